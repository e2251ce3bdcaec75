package records_test

import (
	"context"
	"math"
	"slices"
	"testing"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/bus"
	"github.com/morphogenetic/oona/replay/manifest"
	"github.com/morphogenetic/oona/replay/records"
	"github.com/morphogenetic/oona/schemas/avro"
)

func messageOf(value []byte) *message.Message {
	msg := message.NewMessage("", value)
	msg.SetContext(bus.WithPosition(context.Background(), bus.Position{Topic: "any.topic", Offset: 7}))
	return msg
}

func frame() *oona.Frame {
	return &oona.Frame{
		Run: "a", Layer: "enc.1", Producer: "rank.0", Epoch: 1, Sequence: 3, ObservedAt: 1_790_000_000_000_000, Step: 4,
		Seeds: []oona.SeedID{1, 2, 5}, States: []oona.State{oona.Training, oona.Dormant, oona.Training},
		Metrics: []oona.Column{{Name: "loss", Values: []float32{1, float32(math.NaN()), 3}}, {Name: "norm", Values: []float32{4, 5, 6}}},
		Tensors: []oona.Tensor{{Name: "w", Seed: 2, DType: "uint8", Shape: []int64{1}, Data: []byte{9}}},
	}
}

func event() *oona.SeedEvent {
	return &oona.SeedEvent{Run: "a", Layer: "enc.1", Seed: 5, Sequence: 1, At: 1_790_000_000_000_000, From: oona.Dormant, To: oona.Germinated}
}

func rollup() *oona.Rollup {
	return &oona.Rollup{Group: oona.Performance, Run: "a", Layer: "enc.1", Start: 1, End: 2, Reducer: 1, Metrics: []oona.MetricSummary{{Name: "loss"}, {Name: "norm"}}}
}

// TestSelection tests which parts of each kind of record are selected, and the counts.
func TestSelection(t *testing.T) {
	frames, events, rollups := avro.AppendFrame(nil, frame()), avro.AppendEvent(nil, event()), avro.AppendRollup(nil, rollup())
	ends := avro.AppendRunEnd(nil, &oona.RunEnd{Run: "a", At: 1_790_000_000_000_000})
	for _, c := range []struct {
		name             string
		value            []byte
		own              string
		asked            records.Selection
		rows, readings   int64
		selected, narrow bool
	}{
		{"everything of a frame", frames, "", records.Selection{}, 3, 3, true, false},
		{"another run", frames, "", records.Selection{Runs: []oona.RunID{"b"}}, 0, 3, false, false},
		{"another layer", frames, "", records.Selection{Layers: []oona.LayerID{"enc.2"}}, 0, 3, false, false},
		{"two seeds", frames, "", records.Selection{Seeds: []oona.SeedID{2, 5, 9}}, 2, 3, true, true},
		{"no seed", frames, "", records.Selection{Seeds: []oona.SeedID{9}}, 0, 3, false, true},
		{"all seeds", frames, "", records.Selection{Seeds: []oona.SeedID{1, 2, 5}}, 3, 3, true, false},
		{"a state", frames, "", records.Selection{States: []oona.State{oona.Training}}, 2, 3, true, true},
		{"a metric", frames, "", records.Selection{Metrics: []string{"norm"}}, 3, 3, true, true},
		{"an unknown metric", frames, "", records.Selection{Metrics: []string{"other"}}, 0, 3, false, true},
		{"a tick", nil, oona.TickRecord, records.Selection{}, 0, 0, true, false},
		{"a tick and a selection", nil, oona.TickRecord, records.Selection{Runs: []oona.RunID{"a"}}, 0, 0, false, false},
		{"an event", events, "", records.Selection{Seeds: []oona.SeedID{5}, States: []oona.State{oona.Germinated}}, 1, 1, true, false},
		{"an event of another seed", events, "", records.Selection{Seeds: []oona.SeedID{1}}, 0, 1, false, false},
		{"an event of other states", events, "", records.Selection{States: []oona.State{oona.Culled}}, 0, 1, false, false},
		{"the end of a run", ends, "", records.Selection{Runs: []oona.RunID{"a"}, Layers: []oona.LayerID{"enc.1"}, Seeds: []oona.SeedID{1}}, 1, 1, true, false},
		{"the end of another run", ends, "", records.Selection{Runs: []oona.RunID{"b"}}, 0, 1, false, false},
		{"a rollup", rollups, "", records.Selection{Seeds: []oona.SeedID{1}, Metrics: []string{"loss"}}, 1, 1, true, true},
		{"a rollup without the metric", rollups, "", records.Selection{Metrics: []string{"other"}}, 0, 1, false, true},
	} {
		msg := messageOf(c.value)
		if c.own != "" {
			msg.Metadata.Set(oona.HeaderRecord, c.own)
		}
		r, err := records.NewDecoder().Decode(msg)
		if err != nil || r.Err != nil {
			t.Fatalf("%s: %v, %v", c.name, err, r.Err)
		}
		c.asked.Narrow(r)
		want := manifest.Counts{Records: 1, Readings: c.readings, Rows: c.rows, Skipped: c.readings - c.rows}
		if c.own != "" {
			want.Own = 1
		}
		if got := r.Counts(); got != want || r.Selected != c.selected || r.Narrowed != c.narrow {
			t.Errorf("%s: %+v, selected %t, narrowed %t; want %+v, %t, %t", c.name, got, r.Selected, r.Narrowed, want, c.selected, c.narrow)
		}
	}
}

// A narrowed frame is valid. Its columns and tensors are those of the remaining seeds.
func TestNarrowedFrame(t *testing.T) {
	decoder := records.NewDecoder()
	asked := records.Selection{Seeds: []oona.SeedID{5, 1}, Metrics: []string{"norm"}}
	for range 3 { // the decoder uses its memory again
		r, err := decoder.Decode(messageOf(avro.AppendFrame(nil, frame())))
		if err != nil || r.Err != nil {
			t.Fatal(err, r.Err)
		}
		asked.Narrow(r)
		f := r.Frame
		if err := f.Validate(oona.DefaultFrameLimits); err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(f.Seeds, []oona.SeedID{1, 5}) || len(f.Metrics) != 1 || !slices.Equal(f.Metrics[0].Values, []float32{4, 6}) || len(f.Tensors) != 0 {
			t.Fatalf("%+v", f)
		}
	}
}

// If a record cannot be decoded, its Err says why, whatever the Selection is. It has no readings.
func TestUndecodable(t *testing.T) {
	invalid := frame()
	invalid.States = invalid.States[:2]
	unequal := frame()
	unequal.Metrics[0].Values = unequal.Metrics[0].Values[:1]
	for name, value := range map[string][]byte{
		"no record": []byte("not a frame"), "empty": nil, "cut": avro.AppendFrame(nil, frame())[:30],
		"trailing": append(avro.AppendEvent(nil, event()), 0), "states": avro.AppendFrame(nil, invalid), "values": avro.AppendFrame(nil, unequal),
		"the end of a run and more": append(avro.AppendRunEnd(nil, &oona.RunEnd{Run: "a", At: 1_790_000_000_000_000}), 0),
		"of another kind":           avro.AppendTick(nil, oona.Tick{}),
	} {
		r, err := records.NewDecoder().Decode(messageOf(value))
		if err != nil {
			t.Fatal(err)
		}
		asked := records.Selection{Seeds: []oona.SeedID{5}}
		asked.Narrow(r)
		if want := (manifest.Counts{Records: 1, Unread: 1}); r.Err == nil || r.Counts() != want || r.Selected || r.Frame != nil || r.Event != nil || r.RunEnd != nil {
			t.Errorf("%s: %v, %+v", name, r.Err, r.Counts())
		}
	}
}
