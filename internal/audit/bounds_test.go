package audit_test

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/internal/audit"
)

// TestBoundsChangeNoFault: an event has the same faults whatever the bounds of time are. The
// oracle is an audit without bounds. The clock of the trainer steps, so the events between the
// bounds are not a part of the sequence without holes.
func TestBoundsChangeNoFault(t *testing.T) {
	random := rand.New(rand.NewPCG(7, 11))
	r := newTrail(t)
	const begin, seeds = oona.Micros(1_790_000_000_000_000), 60
	for seed := range oona.SeedID(seeds) {
		at, state := begin+oona.Micros(random.IntN(100)), oona.Dormant
		for sequence := range int64(12) {
			e := event(sequence, state, state)
			for e.To == state && state.CanBecome(oona.Culled) || e.To == state && random.IntN(5) > 0 {
				if next := oona.State(random.IntN(oona.StateCount)); next == state || state.CanBecome(next) {
					e.To = next
				}
			}
			state = e.To
			e.Seed, e.At = seed, at
			at += oona.Micros(random.IntN(30))
			if random.IntN(4) == 0 {
				at -= oona.Micros(random.IntN(60)) // the clock steps back
			}
			switch random.IntN(12) {
			case 0:
				if sequence > 0 { // what is before the first event is not asked for with --from
					continue // a gap
				}
			case 1:
				other := e
				other.At, other.To = at, oona.State(random.IntN(oona.StateCount))
				r.write(other) // a conflict
			case 2:
				e.From = oona.State(random.IntN(oona.StateCount)) // another state
			case 3:
				r.write(e) // a repeat
			}
			r.write(e)
		}
	}
	type identity struct {
		seed     oona.SeedID
		sequence int64
		at       oona.Micros
		from, to oona.State
	}
	of := func(e *audit.Event) identity { return identity{e.Seed, e.Sequence, e.At, e.From, e.To} }
	oracle := make(map[identity]string)
	whole, lives := r.run(audit.Options{Seed: oona.AnySeed})
	for _, kind := range []audit.Kind{audit.Gap, audit.Conflict, audit.Transition} {
		if whole.Faults[kind] < 10 {
			t.Fatalf("%d faults of kind %s; the case is not hard enough", whole.Faults[kind], kind)
		}
	}
	for _, l := range lives {
		for i := range l.Events {
			oracle[of(&l.Events[i])] = fmt.Sprint(l.Events[i].Faults, l.Events[i].Repeats)
		}
	}
	holes := 0 // places where the bounds leave out events that the topics have
	for range 40 {
		var o audit.Options
		o.Seed = oona.AnySeed
		if random.IntN(4) > 0 {
			o.From = begin + oona.Micros(random.IntN(120))
		}
		if random.IntN(4) > 0 {
			o.Until = max(o.From, begin) + 1 + oona.Micros(random.IntN(120))
		}
		found := 0
		s, lives := r.run(o)
		for _, l := range lives {
			for i := range l.Events {
				e := &l.Events[i]
				found++
				if got := fmt.Sprint(e.Faults, e.Repeats); got != oracle[of(e)] {
					t.Errorf("from %d until %d: seed %d, sequence %d: %s, and without bounds %s", o.From, o.Until, e.Seed, e.Sequence, got, oracle[of(e)])
				}
				if i > 0 && e.Sequence > l.Events[i-1].Sequence+1 {
					holes++
				}
			}
		}
		want := 0
		for id := range oracle {
			if (o.From == 0 || id.at >= o.From) && (o.Until == 0 || id.at < o.Until) {
				want++
			}
		}
		if found != want || s.Events != want {
			t.Errorf("from %d until %d: %d events, want %d; %+v", o.From, o.Until, found, want, s)
		}
	}
	if holes < 100 {
		t.Errorf("%d holes; the case is not hard enough", holes)
	}
}

// TestFromAtTheBeginning: what was before the first event that the topics have is reported as
// missing without --from, and not with it; an event of the past that the topics have counts.
func TestFromAtTheBeginning(t *testing.T) {
	r := newTrail(t)
	all := way()
	r.write(all[2], all[4])
	for _, c := range []struct {
		from oona.Micros
		want string
	}{
		{0, "[2 gap 4 gap]"},
		{all[2].At, "[4 gap]"},
		{all[4].At, "[4 gap]"}, // sequence 2 is on the topics, and 3 is not
	} {
		_, lives := r.run(audit.Options{Seed: oona.AnySeed, From: c.from})
		if got := fmt.Sprint(faults(lives[0])); len(lives) != 1 || got != c.want {
			t.Errorf("from %d: %s, want %s", c.from, got, c.want)
		}
	}
}
