package watch

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/bus"
	"github.com/morphogenetic/oona/schemas/avro"
)

type noTensors struct{}

func (noTensors) Bytes(context.Context, oona.TensorClaim) ([]byte, error) {
	return nil, errors.New("no store")
}

// Any record can be shown as a line and as JSON. The output has no characters that control the
// terminal.
func FuzzRecord(f *testing.F) {
	topics, err := oona.NewTopics(oona.DefaultPrefix)
	if err != nil {
		f.Fatal(err)
	}
	names := []string{topics.SeedMetrics, topics.LayerHealth, topics.LayerPerformance, topics.Late, topics.SeedMetricsDead, topics.SeedRaw, topics.Settings}
	data := []byte{0, 0, 0x80, 0x3f}
	frame := avro.AppendFrame(nil, &oona.Frame{
		Run: "r", Layer: "l", Producer: "p", Seeds: []oona.SeedID{1}, States: []oona.State{2},
		Metrics: []oona.Column{{Name: "m", Values: []float32{1}}},
		Tensors: []oona.Tensor{{Name: "t", Seed: 1, DType: "float32", Shape: []int64{1}, Data: data}},
	})
	rollup := avro.AppendRollup(nil, &oona.Rollup{Run: "r", Layer: "l", Metrics: []oona.MetricSummary{{Name: "m", Count: 1}}})
	f.Add(0, "", frame)
	f.Add(0, oona.TickRecord, avro.AppendTick(nil, oona.Tick{Worker: "w"}))
	f.Add(0, oona.ConfigurationRecord, avro.AppendConfiguration(nil, oona.WindowConfiguration{Generation: 1}))
	f.Add(0, oona.IncarnationRecord, avro.AppendIncarnation(nil, oona.IncarnationStart{Worker: "w"}))
	f.Add(1, "", rollup)
	f.Add(2, "", avro.AppendRollup(nil, &oona.Rollup{Group: oona.Performance, Reducer: 2, Metrics: []oona.MetricSummary{{Name: "m", Count: 1, Worst: []oona.SeedValue{{}}}}}))
	f.Add(6, "", []byte("version: 1\n\x1b[2Jmetrics: []\n"))
	f.Add(4, "\x1b[2J", []byte("dead"))
	f.Add(5, "", []byte(`[{"run_id":"r"},{"layer_id":3}]`))
	f.Add(5, "", []byte(avro.ContainerMagic+"\x00"))
	f.Fuzz(func(t *testing.T, topic int, kind string, value []byte) {
		msg := message.NewMessage("", value)
		msg.Metadata = message.Metadata{
			oona.HeaderRecord: kind, oona.HeaderErrorException: kind, oona.HeaderErrorMessage: kind,
		}
		msg.SetContext(bus.WithPosition(t.Context(), bus.Position{Offset: 1, Appended: 2}))
		name := names[uint(topic)%uint(len(names))]
		records, err := newDecoder(topics, oona.Address{Topic: name, Seed: oona.AnySeed}).decode(msg)
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range records {
			if r.Frame != nil {
				r.Frame.resolve(t.Context(), noTensors{})
			}
			if _, err := json.Marshal(r); err != nil {
				t.Errorf("%s record as JSON: %v", r.Kind, err)
			}
			if line := r.Line(); strings.ContainsAny(line, "\n\x1b") || line == "" {
				t.Errorf("%s record as the line %q", r.Kind, line)
			}
			if text := r.Text(); strings.ContainsAny(text, "\r\x1b") || r.Setting == nil && text != r.Line() {
				t.Errorf("%s record as the text %q", r.Kind, text)
			}
		}
	})
}
