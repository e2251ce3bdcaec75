package windows

import (
	"math"
	"slices"

	"github.com/morphogenetic/oona"
)

// worst keeps the seeds with the worst values of a metric: each seed with its
// own worst, worst first, ties by the lower seed id. It is exact: a seed's
// worst value only ever gets worse, and so does the last one on the list, so
// that what fell off the list, or never came onto it, was rightly left out.
type worst struct {
	direction oona.Direction
	limit     int
	seeds     []oona.SeedValue // the values turned so that greater is worse
	full      bar              // of a full list: kept here, as the list is far away in memory
}

// bar is what a value must beat to come onto the list: the value and the seed
// of its last entry, or what everything beats while there is room.
type bar struct {
	value float32
	seed  int64
}

func (w *worst) bar() bar {
	if len(w.seeds) < w.limit {
		return bar{-math.MaxFloat32, math.MaxInt64}
	}
	return w.full
}

// add looks at a block whose finite values lie between least and greatest.
// Values[i] is of seeds[i].
func (w *worst) add(seeds []oona.SeedID, values []float32, least, greatest float32) {
	if w.limit == 0 || w.direction == oona.Neutral {
		return
	}
	sign, extreme := float32(1), greatest
	if w.direction == oona.HigherIsBetter {
		sign, extreme = -1, -least
	}
	b := w.bar()
	if extreme < b.value {
		return
	}
	seeds = seeds[:len(values)]
	ties, unknown := 0, 0 // values from the latter on may be many that are below the bar
	for i := 0; i < len(values); i++ {
		if i == unknown {
			i += skipBelow(values[i:], sign, b.value)
			if unknown = i + skipStride; i == len(values) {
				return
			}
		}
		x := values[i] * sign
		if !(x >= b.value) || x > math.MaxFloat32 { // NaN, too, is not worse than anything
			continue
		}
		if x == b.value && int64(seeds[i]) >= b.seed {
			// Ties are many where a metric stands still, and then of no use.
			if ties++; ties == 1 && extreme == b.value && slices.IsSorted(seeds[i:]) {
				return // no value to come is worse, and no seed to come is lower
			}
			continue
		}
		w.place(oona.SeedValue{Seed: seeds[i], Value: float64(x)})
		b = w.bar()
	}
}

// place puts an entry where it belongs, in the place of the seed's former one
// or of the last if the list is full.
func (w *worst) place(entry oona.SeedValue) {
	at := len(w.seeds)
	for i := range w.seeds {
		if w.seeds[i].Seed == entry.Seed {
			at = i
			break
		}
	}
	switch {
	case at < len(w.seeds):
		if !worse(entry, w.seeds[at]) {
			return
		}
	case at < w.limit:
		w.seeds = append(w.seeds, entry)
	default:
		at--
	}
	for ; at > 0 && worse(entry, w.seeds[at-1]); at-- {
		w.seeds[at] = w.seeds[at-1]
	}
	w.seeds[at] = entry
	last := w.seeds[len(w.seeds)-1]
	w.full = bar{float32(last.Value), int64(last.Seed)}
}

func worse(a, b oona.SeedValue) bool {
	return a.Value > b.Value || a.Value == b.Value && a.Seed < b.Seed
}

// appendTo appends the list to dst, with the values as they were reported.
func (w *worst) appendTo(dst []oona.SeedValue) []oona.SeedValue {
	sign := 1.0
	if w.direction == oona.HigherIsBetter {
		sign = -1
	}
	for _, s := range w.seeds {
		dst = append(dst, oona.SeedValue{Seed: s.Seed, Value: positiveZero(sign * s.Value)})
	}
	return dst
}
