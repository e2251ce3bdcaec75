package trial

import (
	"math"
	"math/rand/v2"

	"github.com/morphogenetic/oona"
)

// effect is what a fault, or an event of a clean run, does to a layer in a window.
type effect struct {
	shift    [metrics]float64 // added to the logarithms of levels
	nan      float64          // share of seeds whose loss and gradient are NaN
	dead     float64          // share of seeds whose units are dead
	silent   float64          // share of seeds that do not report
	bad      oona.SeedID      // a seed with another gradient, or -1
	badly    float64          // how far it is from the level
	absent   bool             // the layer sends nothing
	standing bool             // its steps stand still
}

// fault is a fault of one layer: what it does in its windows, counted from 0.
type fault struct {
	windows int
	at      func(window float64) effect
}

// ramp rises from 0 to 1 over some windows.
func ramp(window, over float64) float64 { return max(0, min(window/over, 1)) }

// newFault returns a fault of a kind.
func newFault(k Kind, r *rand.Rand) fault {
	shifted := func(windows int, shift func(w float64) [metrics]float64) fault {
		return fault{windows, func(w float64) effect { return effect{shift: shift(w), bad: -1} }}
	}
	switch k {
	case LevelShift:
		m, by := []int{loss, gradient, weight}[r.IntN(3)], between(r, math.Log2(3), math.Log2(12))
		if m != loss && r.IntN(2) == 0 {
			by = -by
		}
		return shifted(40, func(float64) (s [metrics]float64) { s[m] = by; return s })
	case DriftUp:
		m, by, over := []int{loss, gradient}[r.IntN(2)], between(r, 3, math.Log2(40)), between(r, 60, 100)
		return shifted(int(over)+10, func(w float64) (s [metrics]float64) { s[m] = by * ramp(w, over); return s })
	case Spike:
		by, too := between(r, 2, math.Log2(20)), between(r, 1, 4)
		return shifted(2+r.IntN(5), func(float64) (s [metrics]float64) { s[loss], s[gradient] = by, too; return s })
	case Variance:
		by := between(r, math.Log2(10), math.Log2(300))
		return shifted(50, func(w float64) (s [metrics]float64) { s[variance] = -by * ramp(w+1, 10); return s })
	case Exploding:
		every, most := between(r, 1, 4), between(r, 8, 14)
		return shifted(40, func(w float64) (s [metrics]float64) {
			s[gradient] = min((w+1)/every, most)
			s[loss] = max(0, s[gradient]-5) / 3
			return s
		})
	case Vanishing:
		by, over := between(r, math.Log2(30), 12), between(r, 5, 20)
		return shifted(50, func(w float64) (s [metrics]float64) { s[gradient] = -by * ramp(w+1, over); return s })
	}
	share := between(r, .2, 1)
	switch k {
	case NaNShare:
		return fault{8 + r.IntN(20), func(float64) effect { return effect{nan: share, bad: -1} }}
	case MassDeath:
		share = between(r, .33, .75)
		return fault{40, func(w float64) effect { return effect{dead: share * ramp(w+1, 5), bad: -1} }}
	case Silence:
		share = between(r, .2, .8)
		return fault{30, func(float64) effect { return effect{silent: share, bad: -1} }}
	case Stall:
		absent := r.IntN(2) == 0
		return fault{25, func(float64) effect { return effect{absent: absent, standing: !absent, bad: -1} }}
	case OneSeed:
		badly := between(r, math.Log2(100), math.Log2(1e4))
		return fault{30, func(float64) effect { return effect{bad: 0, badly: badly} }}
	}
	return fault{}
}

// event is a change that all layers of a clean run go through.
type event struct {
	at       int
	pause    int                             // windows without frames
	back     int                             // windows of training that are done again
	disturbs func(window float64, e *effect) // from then on
}

// newEvents returns what happens in a run of a kind.
func newEvents(k Kind, r *rand.Rand) (events []event) {
	drop := func(at int) event {
		by := [metrics]float64{loss: -between(r, .1, .7), gradient: between(r, -.8, .8), variance: between(r, -.3, .3)}
		return event{at: at, disturbs: func(w float64, e *effect) {
			for m := range by {
				e.shift[m] += by[m] * ramp(w+1, 3)
			}
		}}
	}
	settle := func(at int, up [metrics]float64, over float64) event {
		return event{at: at, disturbs: func(w float64, e *effect) {
			for m := range up {
				e.shift[m] += up[m] * math.Exp2(-w/over)
			}
		}}
	}
	at := 60 + r.IntN(120)
	switch k {
	case WarmUp:
		over, up := between(r, 5, 25), [metrics]float64{loss: between(r, .3, 2), gradient: between(r, .5, 3), variance: between(r, -1.5, 1.5)}
		return []event{{disturbs: func(w float64, e *effect) {
			for m := range up {
				e.shift[m] += up[m] * (1 - ramp(w, over))
			}
		}}}
	case Resume:
		e := settle(at, [metrics]float64{loss: between(r, 0, .5), gradient: between(r, -.5, 1)}, 3)
		e.pause, e.back = 1+r.IntN(30), 10+r.IntN(50)
		return []event{e}
	case Drop:
		return []event{drop(40 + r.IntN(70)), drop(130 + r.IntN(70))}
	case Gap:
		e := settle(at, [metrics]float64{loss: between(r, 0, .6), gradient: between(r, -1.5, 2)}, 3)
		e.pause = 20 + r.IntN(480)
		return []event{e}
	}
	if r.IntN(3) == 0 {
		return []event{drop(25 + r.IntN(35))} // before the fault
	}
	return nil
}
