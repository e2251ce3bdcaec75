package records_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"testing"

	"github.com/ThreeDotsLabs/watermill/message"
	twmb "github.com/twmb/avro"
	"github.com/twmb/avro/ocf"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/bus"
	"github.com/morphogenetic/oona/replay/manifest"
	"github.com/morphogenetic/oona/replay/records"
	"github.com/morphogenetic/oona/schemas/avro"
)

// jsonOf returns a frame of two seeds as a trainer sends it.
func jsonOf(layer string) string {
	return fmt.Sprintf(`{"run_id": "a", "layer_id": %q, "producer_id": "p", "producer_epoch": 1, "sequence": 0, "observed_at": 1790000000000000,
		"step": 1, "seed_ids": [0, 1], "states": ["TRAINING", "DORMANT"], "metrics": [{"name": "loss", "values": [0.5, null]}]}`, layer)
}

// The raw topic has bodies, which may have several frames, in all encodings that ingest
// accepts. Each frame is selected by itself.
func TestBodies(t *testing.T) {
	one, two := *frame(), *frame()
	two.Layer = "enc.2"
	singles := avro.AppendFrame(avro.AppendFrame(nil, &one), &two)
	both := []oona.LayerID{"enc.1", "enc.2"}
	for _, c := range []struct {
		name   string
		topic  string
		value  string
		asked  records.Selection
		layers []oona.LayerID // layers of the selected frames
		whole  bool
		counts manifest.Counts
	}{
		{"JSON", "p.telemetry.seed.raw", jsonOf("enc.1"), records.Selection{}, both[:1], true, manifest.Counts{Records: 1, Readings: 2, Rows: 2}},
		{"JSON of a seed", "p.telemetry.seed.raw", jsonOf("enc.1"), records.Selection{Seeds: []oona.SeedID{1}}, both[:1], false, manifest.Counts{Records: 1, Readings: 2, Rows: 1, Skipped: 1}},
		{"JSON of another layer", "p.telemetry.seed.raw", jsonOf("enc.2"), records.Selection{Layers: both[:1]}, nil, false, manifest.Counts{Records: 1, Readings: 2, Skipped: 2}},
		{"an array", "p.telemetry.seed.raw", " [" + jsonOf("enc.1") + "," + jsonOf("enc.2") + "]", records.Selection{}, both, true, manifest.Counts{Records: 1, Readings: 4, Rows: 4}},
		{"an array, of a layer", "p.telemetry.seed.raw", "[" + jsonOf("enc.1") + "," + jsonOf("enc.2") + "]", records.Selection{Layers: both[1:]}, both[1:], false, manifest.Counts{Records: 1, Readings: 4, Rows: 2, Skipped: 2}},
		{"objects one after another", "p.telemetry.seed.raw", string(singles), records.Selection{States: []oona.State{oona.Training}}, both, false, manifest.Counts{Records: 1, Readings: 6, Rows: 4, Skipped: 2}},
		{"a container", "p.telemetry.seed.raw", string(container(t, &one, &two)), records.Selection{Layers: both[1:]}, both[1:], false, manifest.Counts{Records: 1, Readings: 6, Rows: 3, Skipped: 3}},
		{"an array with a mistake", "p.telemetry.seed.raw", "[" + jsonOf("enc.1") + ",{}]", records.Selection{}, []oona.LayerID{""}, true, manifest.Counts{Records: 1, Unread: 1}},
		{"on another topic", "p.telemetry.seed.metrics", string(singles), records.Selection{}, []oona.LayerID{""}, true, manifest.Counts{Records: 1, Unread: 1}},
	} {
		t.Run(c.name, func(t *testing.T) {
			msg := message.NewMessage("", []byte(c.value))
			msg.SetContext(bus.WithPosition(context.Background(), bus.Position{Topic: c.topic, Offset: 7}))
			var counts manifest.Counts
			var layers []oona.LayerID
			err := records.NewDecoder().Each(msg, func(r *records.Record) error {
				c.asked.Narrow(r)
				counts.Add(r.Counts())
				if r.Body != msg || r.At.Offset != 7 {
					t.Errorf("%+v", r)
				}
				if !r.Selected {
					return nil
				}
				if r.Whole != c.whole {
					t.Errorf("whole: %t", r.Whole)
				}
				if r.Frame == nil {
					layers = append(layers, "")
					return nil
				}
				layers = append(layers, r.Frame.Layer)
				if name := avro.RecordName(r.Message.Payload); name != avro.RecordName(singles) {
					t.Errorf("the message of the frame is a %q", name)
				}
				return nil
			})
			if err != nil || counts != c.counts || fmt.Sprint(layers) != fmt.Sprint(c.layers) {
				t.Errorf("%v, %+v, layers %q; want %+v, %q", err, counts, layers, c.counts, c.layers)
			}
		})
	}
}

// container returns an object container file of frames.
func container(t *testing.T, frames ...*oona.Frame) []byte {
	t.Helper()
	var text string
	fingerprint := binary.LittleEndian.Uint64(avro.AppendFrame(nil, frames[0])[2:])
	for _, s := range avro.Schemas() {
		if s.Fingerprint == fingerprint {
			text = s.Text
		}
	}
	schema, err := twmb.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	var file bytes.Buffer
	w, err := ocf.NewWriter(&file, schema)
	if err != nil {
		t.Fatal(err)
	}
	const single = 10 // bytes before the datum
	for _, f := range frames {
		if _, err := w.Write(avro.AppendFrame(nil, f)[single:]); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return file.Bytes()
}
