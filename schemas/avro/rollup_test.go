package avro

import (
	"bytes"
	"fmt"
	"math"
	"reflect"
	"testing"

	"pgregory.net/rapid"

	"github.com/morphogenetic/oona"
)

func TestRollupRoundTrip(t *testing.T) {
	for _, want := range []*oona.Rollup{
		sampleRollup(oona.Health), sampleRollup(oona.Performance), sampleSecond(oona.Health), sampleSecond(oona.Performance),
	} {
		g := want.Group
		var got oona.Rollup
		if _, err := DecodeRollup(AppendRollup(nil, want), &got); err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(&got, want) {
			t.Errorf("%s is %+v\nwant %+v", g, &got, want)
		}
		if got.ContentHash() != got.Hash {
			t.Errorf("%s: the hash %016x came back with content of hash %016x", g, got.Hash, got.ContentHash())
		}
	}
}

func anyFloat64() *rapid.Generator[float64] {
	return rapid.OneOf(
		rapid.Map(rapid.Uint64(), math.Float64frombits),
		rapid.SampledFrom([]float64{0, math.Copysign(0, -1), math.Inf(1), math.Inf(-1), math.Float64frombits(0x7ff8000000000123)}),
	)
}

func anyRollup(t *rapid.T) *oona.Rollup {
	long := rapid.Int64()
	r := &oona.Rollup{
		Group: rapid.SampledFrom([]oona.Group{oona.Health, oona.Performance}).Draw(t, "group"),
		Run:   oona.RunID(anyID().Draw(t, "run")), Layer: oona.LayerID(anyID().Draw(t, "layer")),
		Timeline: oona.TimelineID(rapid.OneOf(rapid.Just(""), anyID()).Draw(t, "timeline")),
		Start:    oona.Micros(long.Draw(t, "start")), End: oona.Micros(long.Draw(t, "end")),
		Trigger: oona.Trigger{
			Incarnation: oona.Incarnation(rapid.OneOf(rapid.Just(int64(0)), long).Draw(t, "incarnation")),
			Offset:      long.Draw(t, "offset"), Index: rapid.Int32().Draw(t, "index"),
		},
		Watermark:   oona.Micros(long.Draw(t, "watermark")),
		FirstOffset: long.Draw(t, "first"), LastOffset: long.Draw(t, "last"),
		Frames: long.Draw(t, "frames"), Readings: long.Draw(t, "readings"), Duplicates: long.Draw(t, "duplicates"),
		Generation: rapid.Int32().Draw(t, "generation"), Hash: rapid.Uint64().Draw(t, "hash"),
		Reducer: rapid.OneOf(rapid.Just(int32(1)), rapid.Int32Min(1)).Draw(t, "reducer"),
		Kind:    oona.WindowKind(rapid.Int32().Draw(t, "kind")), Hop: oona.Micros(long.Draw(t, "hop")),
		Metrics: rapid.SliceOfN(rapid.Custom(anySummary), 0, 3).Draw(t, "metrics"),
	}
	copy(r.Catalogue[:], rapid.OneOf(rapid.Just([]byte{}), rapid.SliceOfN(rapid.Byte(), 8, 8)).Draw(t, "catalogue"))
	if r.Group == oona.Health {
		r.Seeds.Seen, r.Seeds.Active = long.Draw(t, "seen"), long.Draw(t, "active")
		for i := range r.Seeds.ByState {
			r.Seeds.ByState[i] = long.Draw(t, "by state")
		}
		return r
	}
	r.Rates = oona.Rates{
		FramesPerSecond: anyFloat64().Draw(t, "frames/s"), ReadingsPerSecond: anyFloat64().Draw(t, "readings/s"),
		StepsPerSecond: anyFloat64().Draw(t, "steps/s"), Delay: oona.Micros(long.Draw(t, "delay")),
		Steps: long.Draw(t, "steps"), StepTime: oona.Micros(long.Draw(t, "step time")),
	}
	return r
}

func anySummary(t *rapid.T) oona.MetricSummary {
	long, double := rapid.Int64(), anyFloat64()
	buckets := func() oona.Buckets {
		n := rapid.IntRange(0, 5).Draw(t, "buckets")
		return oona.Buckets{
			Indexes: rapid.SliceOfN(rapid.Int32(), n, n).Draw(t, "indexes"),
			Counts:  rapid.SliceOfN(rapid.Uint64Max(math.MaxInt64), n, n).Draw(t, "counts"),
		}
	}
	return oona.MetricSummary{
		Name:  anyID().Draw(t, "name"),
		Count: long.Draw(t, "count"), NotMeasured: long.Draw(t, "not measured"), Infinite: long.Draw(t, "infinite"),
		Sum: double.Draw(t, "sum"), Min: double.Draw(t, "min"), Max: double.Draw(t, "max"),
		Mean: double.Draw(t, "mean"), M2: double.Draw(t, "m2"),
		Histogram: oona.Histogram{Zero: rapid.Uint64Max(math.MaxInt64).Draw(t, "zero"), Positive: buckets(), Negative: buckets()},
		Worst: rapid.SliceOfN(rapid.Custom(func(t *rapid.T) oona.SeedValue {
			return oona.SeedValue{Seed: oona.SeedID(rapid.Int32().Draw(t, "seed")), Value: double.Draw(t, "value"), Offset: long.Draw(t, "worst offset")}
		}), 0, 4).Draw(t, "worst"),
		NotMeasuredActive: long.Draw(t, "active"),
	}
}

// The content hash covers every field but itself, bit by bit.
func TestRollupsRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		want := anyRollup(t)
		data := AppendRollup(nil, want)
		if again := AppendRollup(nil, want); !bytes.Equal(again, data) {
			t.Fatalf("encoded %x, then %x", data, again)
		}
		var got oona.Rollup
		rest, err := DecodeRollup(append(data, "after"...), &got)
		if err != nil {
			t.Fatal(err)
		}
		if string(rest) != "after" {
			t.Fatalf("rest is %q", rest)
		}
		if got.Hash != want.Hash || got.Trigger != want.Trigger || got.ContentHash() != want.ContentHash() {
			t.Fatalf("rollup is %+v\nwant %+v", got, want)
		}
		if again := AppendRollup(nil, &got); !bytes.Equal(again, data) {
			t.Fatalf("written again it is %x\nwant %x", again, data)
		}
	})
}

func TestEventsRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		state := rapid.Map(rapid.IntRange(0, oona.StateCount-1), func(i int) oona.State { return oona.State(i) })
		want := &oona.SeedEvent{
			Run: oona.RunID(anyID().Draw(t, "run")), Layer: oona.LayerID(anyID().Draw(t, "layer")),
			Seed: oona.SeedID(rapid.Int32().Draw(t, "seed")), Sequence: rapid.Int64().Draw(t, "sequence"),
			At: oona.Micros(rapid.Int64().Draw(t, "at")), Step: rapid.Int64().Draw(t, "step"),
			From: state.Draw(t, "from"), To: state.Draw(t, "to"), Reason: rapid.String().Draw(t, "reason"),
			Evidence: rapid.MapOfN(rapid.String(), anyFloat64(), 0, 6).Draw(t, "evidence"),
			Command:  rapid.String().Draw(t, "command"), Actor: rapid.String().Draw(t, "actor"), Node: rapid.String().Draw(t, "node"),
			Session: rapid.Int64().Draw(t, "session"), Epoch: rapid.Int64().Draw(t, "epoch"), JournalIndex: rapid.Int64().Draw(t, "journal"),
			Blueprint: rapid.String().Draw(t, "blueprint"), Mark: oona.EventMark(rapid.IntRange(0, oona.EventMarkCount-1).Draw(t, "mark")),
			TriggerPosition: rapid.Int64().Draw(t, "position"), TriggerIndex: rapid.Int32().Draw(t, "index"),
			Incarnation: oona.Incarnation(rapid.Int64().Draw(t, "incarnation")),
			Timeline:    oona.TimelineID(rapid.String().Draw(t, "timeline")), Producer: oona.ProducerID(rapid.String().Draw(t, "producer")),
			ProducerEpoch: rapid.Int64().Draw(t, "producer epoch"),
		}
		data := AppendEvent(nil, want)
		var got oona.SeedEvent
		if _, err := DecodeEvent(data, &got); err != nil {
			t.Fatal(err)
		}
		if g, w := fmt.Sprint(nativeEvent(&got, 2)), fmt.Sprint(nativeEvent(want, 2)); g != w {
			t.Fatalf("event is %s\nwant %s", g, w)
		}
		// The decoded map has another order of iteration: the bytes do not.
		if again := AppendEvent(nil, &got); !bytes.Equal(again, data) {
			t.Fatalf("encoded %x, then %x", data, again)
		}
	})
}

func TestTicksRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		want := oona.Tick{Worker: rapid.String().Draw(t, "worker"), WrittenAt: oona.Micros(rapid.Int64().Draw(t, "written"))}
		got, err := DecodeTick(AppendTick(nil, want))
		if err != nil || got != want {
			t.Fatalf("tick is %+v, %v; want %+v", got, err, want)
		}
	})
}
