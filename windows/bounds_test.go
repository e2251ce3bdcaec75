package windows

import (
	"fmt"
	"math/rand/v2"
	"runtime"
	"testing"

	"github.com/morphogenetic/oona"
)

// flood folds many similar frames, and counts the reasons of their outcomes.
type flood struct {
	engine  *Engine
	frame   oona.Frame
	offset  int64
	reasons map[Reason]int
}

func newFlood(t *testing.T, cfg Config) *flood {
	t.Helper()
	e, err := New(cfg, Always(benchCatalogue))
	if err != nil {
		t.Fatal(err)
	}
	frame := oona.Frame{Run: "run", Layer: "layer", Producer: "trainer", ObservedAt: origin, Seeds: []oona.SeedID{1}, States: []oona.State{oona.Training}}
	return &flood{engine: e, frame: frame, reasons: map[Reason]int{}}
}

func (f *flood) fold() {
	f.frame.Sequence = f.offset
	o := f.engine.Fold(Record{Offset: f.offset, AppendedAt: f.frame.ObservedAt, Checksum: uint64(f.offset), Frame: &f.frame}, func(*oona.Rollup) {})
	f.reasons[o.Reason]++
	f.offset++
}

// If layers report 100,000 seed ids, always in another order, each needs memory only for MaxSeeds
// of them. The memory is free again when the window has closed.
func TestSeedsAreBounded(t *testing.T) {
	const layers, ids, frameSeeds = 20, 100_000, 2_000
	const ofSeed, kept = 64, 4 << 20 // bytes
	cfg := DefaultConfig()
	f := newFlood(t, cfg)
	before := heap()
	order := rand.New(rand.NewPCG(15, 16)).Perm(ids)
	f.frame.Seeds, f.frame.States = make([]oona.SeedID, frameSeeds), make([]oona.State, frameSeeds)
	for ; len(order) > 0; order = order[frameSeeds:] {
		for i := range f.frame.Seeds {
			f.frame.Seeds[i] = oona.SeedID(order[i])
		}
		for layer := range layers {
			f.frame.Layer = oona.LayerID(fmt.Sprint("layer", layer))
			f.fold()
		}
	}
	open := int64(heap()) - int64(before)
	t.Logf("%d bytes a seed; %v", open/layers/int64(cfg.MaxSeeds), f.reasons)
	if want := layers * (cfg.MaxSeeds / frameSeeds); f.reasons[ReasonNone] != want || f.reasons[ReasonSeeds] != layers*ids/frameSeeds-want {
		t.Errorf("reasons %v, want %d folded and the rest beyond the cap", f.reasons, want)
	}
	if open > layers*int64(cfg.MaxSeeds)*ofSeed {
		t.Errorf("%d bytes are in use, more than %d a seed", open, ofSeed)
	}
	f.frame.Seeds, f.frame.States = f.frame.Seeds[:1], f.frame.States[:1]
	for range 2 { // the second frame closes the window of the first one
		f.frame.ObservedAt += 60_000_000
		f.fold()
	}
	if left := int64(heap()) - int64(before); left > kept || len(f.engine.spareAccumulators) < layers {
		t.Errorf("%d bytes are kept in %d accumulators for the windows to come", left, len(f.engine.spareAccumulators))
	}
	runtime.KeepAlive(f)
}

// However many producers send frames, a timeline has at most as many frontiers as slots. A window
// needs some bytes for each of its frames, to recognise repeats.
func TestProducersAreBounded(t *testing.T) {
	const producers = 100_000
	const ofFrame = 200 // bytes for an identity, its share of the map, and the producer's name
	f := newFlood(t, DefaultConfig())
	before := heap()
	for n := range producers {
		f.frame.Producer = oona.ProducerID(fmt.Sprint("producer", n))
		f.fold()
	}
	used := int64(heap()) - int64(before)
	t.Logf("%d bytes a frame", used/producers)
	if f.reasons[ReasonNone] != producers {
		t.Fatalf("reasons %v, want all folded", f.reasons)
	}
	slots := f.engine.timelines.ordered[0].frontier.Len()
	if limit := f.engine.cfg.FrontierSlots; slots > limit || slots < limit*9/10 {
		t.Errorf("%d slots are occupied of %d", slots, limit)
	}
	if used > producers*ofFrame {
		t.Errorf("%d bytes are in use, more than %d a frame", used, ofFrame)
	}
	runtime.KeepAlive(f)
}

// If 1,000 runs send at the same time, a partition accepts MaxTimelines of them, and its state fits
// into a commit. The other runs need no memory.
func TestRunsAreBounded(t *testing.T) {
	const runs, rounds = 1_000, 20
	f := newFlood(t, DefaultConfig())
	round := func() {
		for run := range runs {
			f.frame.Run = oona.RunID(fmt.Sprint("run", run))
			f.fold()
		}
		f.frame.ObservedAt += 1_000_000
	}
	round()
	before := heap()
	for range rounds {
		round()
	}
	used := int64(heap()) - int64(before)
	s := f.engine.Stats()
	c, err := f.engine.Commit()
	if err != nil {
		t.Errorf("with as many timelines as there may be: %v", err)
	}
	t.Logf("%d timelines, %d bytes of metadata, %d more bytes in use; %v", s.Timelines, len(c.Metadata), used, f.reasons)
	if limit := f.engine.cfg.MaxTimelines; s.Timelines != limit || f.reasons[ReasonTimelines] != (rounds+1)*(runs-limit) {
		t.Errorf("%d timelines, reasons %v, want %d and the others overflowed", s.Timelines, f.reasons, limit)
	}
	if used > 4<<20 {
		t.Errorf("%d bytes more after %d rounds", used, rounds)
	}
	runtime.KeepAlive(f)
}
