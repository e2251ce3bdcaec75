package windows

import (
	"math"
	"slices"

	"github.com/morphogenetic/oona"
)

// worst keeps the worst seeds of a metric: those with the greatest values, or
// with the least, as the direction says. Of a metric without a direction it
// keeps both, as the seeds farthest from the mean, which is known only when the
// window closes, are among them: a seed with a value above the mean that is not
// among the greatest k has k seeds before it, all of them as far away. Reducer 1
// keeps none of such a metric.
type worst struct{ greatest, least ranking }

// begin makes w ready for the first sample, keeping its buffers.
func (w *worst) begin(direction oona.Direction, cfg *Config) {
	both := direction == oona.Neutral && cfg.Reducer >= 2
	w.greatest = ranking{sign: 1, seeds: w.greatest.seeds[:0]}
	w.least = ranking{sign: -1, seeds: w.least.seeds[:0]}
	if both || direction == oona.LowerIsBetter {
		w.greatest.limit = cfg.WorstSeeds
	}
	if both || direction == oona.HigherIsBetter {
		w.least.limit = cfg.WorstSeeds
	}
}

// add looks at a block whose finite values lie between least and greatest.
// Values[i] is of the seed of.seeds[i].
func (w *worst) add(of readings, values []float32, least, greatest float32) {
	high, low := w.greatest.bound(greatest), w.least.bound(least)
	if greatest < high && least > low {
		return
	}
	seeds := of.seeds[:len(values)]
	inOrder := unknownOrder
	for i := 0; ; i++ {
		if i += firstBeyond(values[i:], low, high); i >= len(values) {
			return
		}
		x := values[i]
		if math.Abs(float64(x)) > math.MaxFloat32 {
			continue
		}
		entry := oona.SeedValue{Seed: seeds[i], Value: float64(x), Offset: of.offset}
		if x >= high {
			high = w.greatest.offer(entry, seeds[i:], &inOrder)
		}
		if x <= low {
			low = w.least.offer(entry, seeds[i:], &inOrder)
		}
	}
}

// appendTo appends the list to dst, the seed farthest from the mean first, ties
// by the lower seed id. Where only one list is kept this is its own order.
func (w *worst) appendTo(dst []oona.SeedValue, mean float64) []oona.SeedValue {
	limit := max(w.greatest.limit, w.least.limit)
	high, low := w.greatest.seeds, w.least.seeds
	for begin := len(dst); len(dst)-begin < limit && len(high)+len(low) > 0; {
		var next oona.SeedValue
		if len(low) == 0 || len(high) > 0 && fartherAbove(high[0], low[0], mean) {
			next, high = high[0], high[1:]
		} else {
			next, low = low[0], low[1:]
		}
		if slices.ContainsFunc(dst[begin:], func(s oona.SeedValue) bool { return s.Seed == next.Seed }) {
			continue // it is farther away on the other side
		}
		next.Value = positiveZero(next.Value)
		dst = append(dst, next)
	}
	return dst
}

// fartherAbove reports whether high comes before low by its distance above the
// mean and low's below it, ties by the lower seed id. It is exact, as a rounded
// distance would make ties of its own: the sum of the two values, which are
// float32s, is compared with twice the mean, and where they are equal the error
// of the sum decides (Knuth's TwoSum).
func fartherAbove(high, low oona.SeedValue, mean float64) bool {
	sum, twice := high.Value+low.Value, mean+mean
	if sum != twice { // rounding does not turn an order round
		return sum > twice
	}
	back := sum - high.Value
	rest := (high.Value - (sum - back)) + (low.Value - back)
	return rest > 0 || rest == 0 && high.Seed <= low.Seed
}

// ranking keeps the seeds with the greatest values, or with the sign turned the
// least: each seed with its own, in order, ties by the lower seed id. It is
// exact: a seed's extreme only ever moves outwards, and so does the last one on
// the list, so that what fell off the list, or never came onto it, was rightly
// left out.
type ranking struct {
	sign  float64 // -1: the least
	limit int
	seeds []oona.SeedValue
	full  oona.SeedValue // the last of a full list: kept here, as the list is far away in memory
}

// bound returns what a value must reach to come onto the list. Of a block that
// does not go as far as extreme that is beyond all of its values.
func (r *ranking) bound(extreme float32) float32 {
	switch {
	case r.limit == 0:
	case len(r.seeds) < r.limit:
		return float32(r.sign * -math.MaxFloat32)
	case r.sign*float64(extreme) >= r.sign*r.full.Value:
		return float32(r.full.Value)
	}
	return float32(math.Inf(int(r.sign)))
}

// offer takes an entry that has reached the bound, unless it is in vain, and
// returns the bound for the seeds after it, of which seeds[0] is its own.
func (r *ranking) offer(entry oona.SeedValue, seeds []oona.SeedID, inOrder *order) float32 {
	if len(r.seeds) < r.limit || r.before(entry, r.full) {
		r.place(entry)
	} else if inOrder.holds(seeds) {
		// Ties are many where a metric stands still. No seed to come is lower.
		return math.Nextafter32(float32(r.full.Value), float32(math.Inf(int(r.sign))))
	}
	if len(r.seeds) < r.limit {
		return float32(r.sign * -math.MaxFloat32)
	}
	return float32(r.full.Value)
}

// place puts an entry where it belongs, in the place of the seed's former one
// or of the last if the list is full.
func (r *ranking) place(entry oona.SeedValue) {
	at := len(r.seeds)
	for i := range r.seeds {
		if r.seeds[i].Seed == entry.Seed {
			at = i
			break
		}
	}
	switch {
	case at < len(r.seeds):
		if !r.before(entry, r.seeds[at]) {
			return
		}
	case at < r.limit:
		r.seeds = append(r.seeds, entry)
	default:
		at--
	}
	for ; at > 0 && r.before(entry, r.seeds[at-1]); at-- {
		r.seeds[at] = r.seeds[at-1]
	}
	r.seeds[at] = entry
	r.full = r.seeds[len(r.seeds)-1]
}

// before reports whether a comes before b in the list.
func (r *ranking) before(a, b oona.SeedValue) bool {
	return r.sign*a.Value > r.sign*b.Value || a.Value == b.Value && a.Seed < b.Seed
}

// order is whether a frame's seeds ascend from some place on.
type order int8

const (
	unknownOrder order = iota
	ascending
	anyOrder
)

// holds reports it for these seeds or for others that it was asked about before,
// of which these are a part.
func (o *order) holds(seeds []oona.SeedID) bool {
	if *o == unknownOrder {
		*o = anyOrder
		if slices.IsSorted(seeds) {
			*o = ascending
		}
	}
	return *o == ascending
}
