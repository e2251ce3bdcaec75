package whatif

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/bus"
	"github.com/morphogenetic/oona/schemas/avro"
	"github.com/morphogenetic/oona/windows"
)

// kept is a replay.Log of one partition.
type kept struct {
	messages []*message.Message
	first    int64 // the lowest offset that was read
}

func (k *kept) Extents(_ context.Context, topics ...string) (map[string][]bus.Extent, error) {
	return map[string][]bus.Extent{topics[0]: {{End: int64(len(k.messages))}}}, nil
}

func (k *kept) Read(_ context.Context, _ string, r bus.Range, take func(*message.Message) error) error {
	for offset := max(r.From, 0); offset < min(r.End, int64(len(k.messages))); offset++ {
		k.first = min(k.first, offset)
		if err := take(k.messages[offset]); err != nil {
			return err
		}
	}
	return nil
}

func (k *kept) add(payload []byte, kind string, at oona.Micros) {
	msg := message.NewMessage("", payload)
	msg.Metadata.Set(oona.HeaderRecord, kind)
	msg.SetContext(bus.WithPosition(context.Background(), bus.Position{Topic: "frames", Offset: int64(len(k.messages)), Appended: at}))
	k.messages = append(k.messages, msg)
}

// If a range does not begin at the beginning of the log, Fold emits the rollups of the whole log whose
// windows begin after the beginning of the range. It reads no more earlier records than it needs.
// Configuration records are ignored, and records without a valid frame are counted.
func TestRangeOfALog(t *testing.T) {
	k := &kept{}
	base := oona.MicrosOf(time.Date(2026, 11, 28, 4, 0, 0, 0, time.UTC))
	c := windows.DefaultConfig()
	next := windows.Configuration{Config: c}
	next.Config.Length, next.Config.Generation = 3*time.Second, 1
	k.add(avro.AppendConfiguration(nil, next.Record()), oona.ConfigurationRecord, base)
	k.add([]byte("no frame"), "", base)
	for second := range 1_200 {
		at := base + oona.Micros(second)*1_000_000
		f := &oona.Frame{
			Run: "run", Layer: oona.LayerID(fmt.Sprint("layer.", second%2)), Producer: "rank.0", Epoch: 1, Sequence: int64(second), ObservedAt: at, Step: int64(second),
			Seeds: []oona.SeedID{1}, States: []oona.State{oona.Training}, Metrics: []oona.Column{{Name: "loss", Values: []float32{float32(second)}}},
		}
		k.add(avro.AppendFrame(nil, f), "", at)
	}
	for _, s := range []Settings{{}, {Kind: oona.Hopping, Hop: 5 * time.Second}, {Kind: oona.Session, Gap: 1900 * time.Millisecond}} {
		s.Config = c
		s.Config.Reducer = 2
		fold := func(r bus.Range, partial bool) (all []oona.Rollup, out *Result) {
			k.first = r.From
			f := &Fold{Log: k, Topic: "frames", Limits: oona.DefaultFrameLimits, Settings: s, Catalogues: windows.Always(about), Partial: partial, Emit: func(_ int32, r *oona.Rollup) error {
				all = append(all, deepCopy(r))
				return nil
			}}
			out, err := f.Partition(t.Context(), r, bus.Extent{End: int64(len(k.messages))})
			if err != nil {
				t.Fatal(err)
			}
			return all, out
		}
		whole, out := fold(bus.Range{End: 1_202}, false)
		if out.Configurations != 1 || out.Undecoded != 1 || out.Verdicts[windows.Folded] != 1_200 || out.Rollups != int64(len(whole)) || out.Open == 0 {
			t.Errorf("%s: %+v", s.Kind, out)
		}
		from := int64(802)
		begins := base + 800_000_000
		late, out := fold(bus.Range{From: from, End: 1_202}, false)
		want := slices.DeleteFunc(slices.Clone(whole), func(r oona.Rollup) bool { return r.Start < begins })
		if len(want) == 0 || fmt.Sprint(late) != fmt.Sprint(want) {
			t.Errorf("%s: %d rollups of the range, want %d", s.Kind, len(late), len(want))
		}
		if out.Verdicts[windows.Folded] != 400 || out.Before == 0 || k.first > from-136 {
			t.Errorf("%s: read from %d on: %+v", s.Kind, k.first, out)
		}
		if partial, out := fold(bus.Range{From: from, End: 1_202}, true); len(partial) <= len(late) || out.Open != 0 || out.Before != 0 || k.first != from {
			t.Errorf("%s: %d partial rollups, read from %d on: %+v", s.Kind, len(partial), k.first, out)
		}
	}
}
