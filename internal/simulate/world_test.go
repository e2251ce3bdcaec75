package simulate

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/windows"
)

// world makes a random schedule. Runs begin and end, with ranks and producers. Trainers have
// wrong clocks, are cut off, and drain their spools on the same path or another. There are
// repeats, conflicts, frames out of order, steps of the leader's clock, outages and times
// without traffic. Owners crash and are replaced.
type world struct {
	rng       *rand.Rand
	last      windows.Config // the last configuration that should not be void
	from      oona.Micros    // event time at which it begins
	changing  bool           // whether there are configuration records
	brief     bool           // whether configurations soon expire
	losing    int            // round in which the log loses its beginning; -1 if it does not
	latest    oona.Micros    // the latest append time
	events    []event
	now       oona.Micros // true time
	skew      oona.Micros // skew of the leader's clock
	producers []*producer
	former    []*producer // producers of runs that have ended
	runs      int
	crowded   bool // whether there are more timelines than fit into a commit
	pending   []pending
	sent      []windows.Record
	zombies   int // maximum number of zombies
}

type producer struct {
	run        oona.RunID
	timeline   oona.TimelineID
	id         oona.ProducerID
	path       string
	epoch      oona.Micros
	sequence   int64
	checkpoint int64       // added to its step, because it went back to a checkpoint
	skew       oona.Micros // skew of its clock
	delay      oona.Micros // delay until its records are on the bus
	cutOff     bool
	spool      []windows.Record
}

// pending is a record that arrives later.
type pending struct {
	due    oona.Micros
	record windows.Record
}

// newSchedule returns the schedule of a seed.
func newSchedule(seed uint64) schedule {
	w := &world{rng: rand.New(rand.NewPCG(seed, 5)), now: origin}
	w.crowded = seed%200 == 199
	flags := w.begin()
	for range 1 + w.rng.IntN(3) {
		w.beginRun()
	}
	rounds := 30 + w.rng.IntN(110)
	if w.crowded {
		rounds = 400
	}
	if w.losing >= 0 {
		rounds += w.losing
	}
	for round := range rounds {
		w.passTime()
		w.traffic()
		w.fate()
		if w.changing && w.chance(25) {
			w.reconfigure()
		}
		if round == w.losing {
			w.events = append(w.events, event{kind: loseBeginning, at: w.now, bits: w.rng.Uint64()})
			w.zombies = 0
		}
	}
	return schedule{cfg: flags, events: w.events, settle: w.rng.IntN(5) > 0}
}

// chance returns true with a probability of 1/n.
func (w *world) chance(n int) bool { return w.rng.IntN(n) == 0 }

// between returns a duration in whole hundredths of a second, so that times are often
// equal.
func (w *world) between(least, most time.Duration) oona.Micros {
	const grain = 10 * time.Millisecond
	length := least + time.Duration(w.rng.Int64N(int64(most-least)+1))
	return oona.Micros(length.Round(grain).Microseconds())
}

func pick[T any](w *world, from ...T) T { return from[w.rng.IntN(len(from))] }

// beginRun begins a run, perhaps with the name of an earlier one.
func (w *world) beginRun() {
	run := oona.RunID(fmt.Sprint("run", w.runs%5))
	w.runs++
	for rank := range pick(w, 1, 1, 2) {
		for id := range pick(w, 1, 1, 2, 3) {
			p := &producer{run: run, id: oona.ProducerID(fmt.Sprint("trainer", id)), path: fmt.Sprint("in", w.rng.IntN(2)), epoch: w.now}
			if rank > 0 {
				p.timeline = oona.TimelineID(fmt.Sprint("rank", rank))
			}
			if w.chance(4) {
				p.skew = w.between(-w.last.MaxSkew*5/4, w.last.MaxSkew*5/4)
			}
			if w.chance(4) {
				p.delay = w.between(0, 2*w.last.Length)
			}
			w.producers = append(w.producers, p)
		}
	}
}

func (w *world) endRun() {
	run := w.producers[w.rng.IntN(len(w.producers))].run
	w.producers = slices.DeleteFunc(w.producers, func(p *producer) bool {
		if p.run != run {
			return false
		}
		w.former = append(w.former, p)
		return true
	})
}

func (w *world) passTime() {
	switch n := w.rng.IntN(1000); {
	case n < 350: // within a batch: equal append times
	case n < 800:
		w.now += w.between(30*time.Millisecond, 700*time.Millisecond)
	case n < 940:
		w.now += w.between(500*time.Millisecond, 3*time.Second)
	case n < 955: // an outage of the bus
		w.now += w.between(w.last.Length, 4*w.last.Length)
	case n < 958:
		w.now += pick[oona.Micros](w, 700e6, 3600e6)
	case n < 985:
		w.quiet(w.rng.IntN(12))
	default:
		w.quiet(int(w.last.IdleHorizon*3/2/w.last.TickInterval) + 1)
	}
	switch n := w.rng.IntN(100); {
	case n < 2: // the partition has another leader
		w.skew = pick[oona.Micros](w, -16e6, 16e6, 700e6, -700e6, 1_500_000, -1_500_000)
	case n < 20:
		w.skew = 0
	}
}

func (w *world) quiet(n int) {
	w.latest = max(w.latest, w.now+w.skew)
	w.events = append(w.events, event{kind: quiet, at: w.now, skew: w.skew, n: n, bits: w.rng.Uint64()})
	w.now += oona.Micros(n) * oona.Micros(w.last.TickInterval.Microseconds())
}

// traffic lets records arrive.
func (w *world) traffic() {
	slices.SortStableFunc(w.pending, func(a, b pending) int { return int(a.due - b.due) })
	for len(w.pending) > 0 && w.pending[0].due <= w.now {
		w.arrive(w.pending[0].record)
		w.pending = w.pending[1:]
	}
	switch n := w.rng.IntN(100); {
	case n < 2 || w.crowded && n < 90:
		w.beginRun()
	case n < 4 && len(w.producers) > 0:
		w.endRun()
	case n < 11:
		w.repeat(false)
	case n < 14:
		w.repeat(true)
	case n < 15 && len(w.producers) > 0:
		w.impossible()
	case n < 17:
		w.arrive(windows.Record{}) // undecodable
	case n < 19 && len(w.former) > 0: // frames of a run that has ended were still in a spool
		p := w.former[w.rng.IntN(len(w.former))]
		p.cutOff = true
		w.reconnect(p)
	}
	if len(w.producers) == 0 {
		w.beginRun()
	}
	for range 1 + w.rng.IntN(2) {
		w.produce(w.producers[len(w.producers)-1-w.rng.IntN(min(len(w.producers), 6))])
	}
}

func (w *world) arrive(r windows.Record) {
	e := event{kind: appended, at: w.now, skew: w.skew, record: r}
	w.latest = max(w.latest, w.now+w.skew)
	if w.chance(8) {
		e.gap = int64(1 + w.rng.IntN(3))
	}
	w.events = append(w.events, e)
	if r.Frame != nil {
		w.sent = append(w.sent, r)
	}
}

func (w *world) produce(p *producer) {
	r := windows.Record{Path: p.path, Checksum: w.rng.Uint64(), Frame: w.frame(p)}
	switch {
	case p.cutOff && w.chance(12):
		w.reconnect(p)
	case !p.cutOff && w.chance(40):
		p.cutOff = true
	}
	switch {
	case p.cutOff:
		p.spool = append(p.spool, r)
	case w.chance(9): // out of order
		w.pending = append(w.pending, pending{w.now + p.delay + w.between(0, 3*time.Second), r})
	case p.delay > 0:
		w.pending = append(w.pending, pending{w.now + p.delay, r})
	default:
		w.arrive(r)
	}
}

// reconnect lets a producer send its spool on its former path. New frames may be sent on another path.
func (w *world) reconnect(p *producer) {
	p.cutOff = false
	due := w.now
	for _, r := range p.spool {
		due += w.between(0, 400*time.Millisecond)
		w.pending = append(w.pending, pending{due, r})
	}
	p.spool = nil
	if w.chance(2) {
		p.path = fmt.Sprint("in", w.rng.IntN(3))
	}
}

func (w *world) frame(p *producer) *oona.Frame {
	f := &oona.Frame{
		Run: p.run, Timeline: p.timeline, Producer: p.id, Epoch: p.epoch, Sequence: p.sequence,
		Layer:      oona.LayerID(fmt.Sprint("layer", w.rng.IntN(3))),
		ObservedAt: w.now + p.skew - w.between(0, 200*time.Millisecond),
		Step:       p.sequence/2 + p.checkpoint,
	}
	if w.chance(15) {
		p.checkpoint = -w.rng.Int64N(p.sequence/2 + 1) // the training goes back to a checkpoint, or continues from a later one
	}
	if w.crowded {
		f.Run = oona.RunID(fmt.Sprint("run", w.runs))
	}
	p.sequence++
	first := w.rng.IntN(4)
	for i := range 1 + w.rng.IntN(3) {
		f.Seeds = append(f.Seeds, oona.SeedID(first+i))
		f.States = append(f.States, oona.State(w.rng.IntN(oona.StateCount)))
	}
	names := strings.Fields("loss gain norm heat")
	for range pick(w, 0, 1, 1, 2) {
		i := w.rng.IntN(len(names))
		c := oona.Column{Name: names[i]}
		names = slices.Delete(names, i, i+1)
		for range f.Seeds {
			c.Values = append(c.Values, w.value())
		}
		f.Metrics = append(f.Metrics, c)
	}
	return f
}

// value returns 0, a positive or negative power of two, or "not measured".
func (w *world) value() float32 {
	switch x := float32(int(1) << w.rng.IntN(5)); w.rng.IntN(8) {
	case 0:
		return float32(math.NaN())
	case 1:
		return 0
	case 2:
		return -x
	default:
		return x
	}
}

// repeat sends a frame again, perhaps on another path, or other bytes with the same
// identity.
func (w *world) repeat(conflict bool) {
	if len(w.sent) == 0 {
		return
	}
	reach := 12
	if w.chance(4) {
		reach = len(w.sent)
	}
	r := w.sent[len(w.sent)-1-w.rng.IntN(min(len(w.sent), reach))]
	if w.chance(3) {
		r.Path = fmt.Sprint("in", w.rng.IntN(3))
	}
	if conflict {
		f := *r.Frame
		if w.chance(3) { // a frame of another window
			f.ObservedAt += oona.Micros(w.last.Length.Microseconds())
		}
		f.Step++
		r.Frame, r.Checksum = &f, w.rng.Uint64()
	}
	w.arrive(r)
}

// impossible sends a frame with an event time that is just acceptable, or just not acceptable.
func (w *world) impossible() {
	p := w.producers[w.rng.IntN(len(w.producers))]
	r := windows.Record{Path: p.path, Checksum: w.rng.Uint64(), Frame: w.frame(p)}
	ahead, behind := oona.Micros(w.last.MaxSkew.Microseconds()), oona.Micros(w.last.MaxDelay.Microseconds())
	r.Frame.ObservedAt = w.now + w.skew + pick(w, ahead, ahead+1, -behind, -behind-1, 3600e6, -7201e6)
	w.arrive(r)
}

// fate lets the owners work, crash or be replaced.
func (w *world) fate() {
	do := w.do
	some := func() int { return pick(w, 1, 2, 4, 1000, 1000, 1000) }
	for owner := 0; owner <= w.zombies; owner++ {
		often := 1
		if owner > 0 {
			often = 3
		}
		if w.rng.IntN(4*often) < 3 {
			do(fold, owner, some())
		}
		if w.rng.IntN(5*often) < 3 {
			do(publish, owner, some())
		}
		if w.chance(4 * often) {
			do(snapshot, owner, 0)
		}
		if w.chance(3 * often) {
			do(commit, owner, pick(w, 0, 0, 0, 1, 3, 30))
		}
		if w.chance(40) {
			do(redeliver, owner, 0)
		}
	}
	switch n := w.rng.IntN(1000); {
	case n < 35:
		do(crash, 0, 0)
	case n < 60:
		w.changeOwner(takeOver)
	case n < 62:
		w.changeOwner(loseOffsets)
	case n < 100 && w.zombies > 0:
		do(crash, 1+w.rng.IntN(w.zombies), 0)
		w.zombies--
	}
}

func (w *world) do(k kind, owner, n int) {
	w.events = append(w.events, event{kind: k, at: w.now, owner: owner, n: n})
}

// changeOwner lets another owner take over. The former one becomes a zombie.
func (w *world) changeOwner(k kind) {
	w.do(k, 0, 0)
	w.zombies = min(w.zombies+1, maxZombies)
}
