package trial

import (
	"fmt"
	"math/rand/v2"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/windows"
)

const (
	// Windows is how many windows a run trains for.
	Windows = 240
	// Layers is how many layers it has.
	Layers = 4

	length = oona.Micros(10e6) // of a window
	begin  = oona.Micros(1_700_000_000e6)
)

// Run is a training run.
type Run struct {
	Kind Kind
	// Fault is the layer with the fault, which is in its windows From to To-1, counted
	// from 0. For clean runs it is empty.
	Fault    oona.LayerID
	From, To int

	seed uint64
}

// New describes a run. It is made by Fold.
func New(k Kind, seed uint64) Run {
	r := Run{Kind: k, seed: seed}
	if !k.Clean() {
		g := newGenerator(&r)
		r.Fault, r.From, r.To = g.layers[g.faulty].name, g.from, g.from+g.fault.windows
	}
	return r
}

// Window returns the window that an end of a rollup belongs to, counted from 0. Pauses count.
func (r *Run) Window(end oona.Micros) int { return int((end-begin)/length) - 1 }

// Fold makes the run's frames and emits its rollups, in the order of their triggers. A rollup
// is valid until emit returns.
func (r *Run) Fold(emit func(*oona.Rollup)) error {
	cfg := windows.DefaultConfig()
	cfg.Reducer, cfg.WorstSeeds = windows.Reducer, 1
	engine, err := windows.New(cfg, windows.Always(Metric))
	if err != nil {
		return err
	}
	offset := int64(0)
	fold := func(at oona.Micros, f *oona.Frame) error {
		out := engine.Fold(windows.Record{Offset: offset, AppendedAt: at, Path: "ingest", Checksum: uint64(offset), Frame: f}, emit)
		offset++
		if f != nil && out.Verdict != windows.Folded {
			return fmt.Errorf("run %v %d: frame %d is %v: %s", r.Kind, r.seed, f.Sequence, out.Verdict, out.Detail)
		}
		return nil
	}
	g := newGenerator(r)
	for w := range Windows {
		if err := g.window(w, fold); err != nil {
			return err
		}
	}
	for range 100 { // until the trainer is idle and its last window has closed
		g.now += 1e6
		if err := fold(g.now, nil); err != nil {
			return err
		}
	}
	return nil
}

// generator makes the frames of a run.
type generator struct {
	layers []*layer
	frames int // in a window
	faulty int // the layer
	from   int
	fault  fault
	events []event
	wave   int // the window of a wave, or -1

	now      oona.Micros
	epoch    oona.Micros
	sequence int64
	trained  int // windows
}

func newGenerator(of *Run) *generator {
	r := rand.New(rand.NewPCG(of.seed, uint64(of.Kind)+1))
	seeds := []int{10, 30, 100, 300}[r.IntN(4)]
	if of.Kind == OneSeed {
		seeds = 300
	}
	g := &generator{frames: 1 + r.IntN(3), faulty: r.IntN(Layers), from: 70 + r.IntN(50), wave: -1, now: begin, epoch: begin}
	for i := range Layers {
		g.layers = append(g.layers, newLayer(oona.LayerID(fmt.Sprintf("enc.%d", i)), seeds, r))
	}
	g.fault = newFault(of.Kind, r)
	g.events = newEvents(of.Kind, r)
	if of.Kind.Clean() && r.IntN(4) == 0 {
		g.wave = 40 + r.IntN(150)
	}
	return g
}

// window makes the frames of a window of training.
func (g *generator) window(w int, fold func(oona.Micros, *oona.Frame) error) error {
	for _, e := range g.events {
		if e.at == w && w > 0 {
			g.now += oona.Micros(e.pause) * length
			g.trained -= e.back
			if e.pause > 0 {
				g.epoch, g.sequence = g.now, 0
			}
		}
	}
	for _, l := range g.layers {
		l.window()
		if w == g.wave {
			l.wave()
		}
	}
	for i := range g.frames {
		at := g.now + length*oona.Micros(2*i+1)/oona.Micros(2*g.frames)
		for k := range g.layers {
			if f := g.frame(k, w, at, int64(g.trained*g.frames+i)); f != nil {
				if err := fold(at, f); err != nil {
					return err
				}
			}
		}
	}
	g.now += length
	g.trained++
	return nil
}

// frame makes one frame of a layer, or nil if it sends none.
func (g *generator) frame(k, w int, at oona.Micros, step int64) *oona.Frame {
	l := g.layers[k]
	effect := effect{bad: -1}
	for _, e := range g.events {
		if w >= e.at {
			e.disturbs(float64(w-e.at), &effect)
		}
	}
	if in := w - g.from; k == g.faulty && in >= 0 && in < g.fault.windows {
		hurt := g.fault.at(float64(in))
		for m := range hurt.shift {
			hurt.shift[m] += effect.shift[m]
		}
		effect = hurt
	}
	if effect.absent {
		return nil
	}
	if effect.standing {
		step = int64(g.from * g.frames)
	}
	f := &oona.Frame{
		Run: "trial", Layer: l.name, Producer: "trainer", Epoch: g.epoch, Sequence: g.sequence, ObservedAt: at, Step: step,
	}
	g.sequence++
	f.Seeds, f.States, f.Metrics = l.frame(float64(max(0, g.trained)), &effect)
	return f
}
