package reduce

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

// listed is how many entries lists begin with: as many as are wanted by default,
// and some.
const listed = 8

// begin makes w ready for the first sample, keeping its buffers.
func (w *worst) begin(direction oona.Direction, o Options) {
	both := direction == oona.Neutral && o.Reducer >= 2
	w.greatest = ranking{sign: 1, list: w.greatest.list[:0]}
	w.least = ranking{sign: -1, list: w.least.list[:0]}
	if both || direction == oona.LowerIsBetter {
		w.greatest.limit = o.WorstSeeds
	}
	if both || direction == oona.HigherIsBetter {
		w.least.limit = o.WorstSeeds
	}
	if both && w.greatest.list == nil && w.least.list == nil { // side by side in memory
		n := min(o.WorstSeeds, listed)
		memory := make([]extreme, 2*n)
		w.greatest.list, w.least.list = memory[:0:n], memory[n:n]
	}
}

// add looks at a block whose finite values lie between least and greatest, of a
// frame at an offset. Values[i] is of seeds[i].
func (w *worst) add(seeds []oona.SeedID, offset int64, values []float32, least, greatest float32) {
	high, low := w.greatest.bound(greatest), w.least.bound(least)
	if greatest < high && least > low {
		return
	}
	if len(w.greatest.list)+len(w.least.list) == 0 {
		high, low = w.firstBounds(values, high, low)
	}
	seeds = seeds[:len(values)]
	inOrder := unknownOrder
	for i := 0; ; i++ {
		if i += firstBeyond(values[i:], low, high); i >= len(values) {
			return
		}
		x := values[i]
		if x > math.MaxFloat32 || x < -math.MaxFloat32 {
			continue
		}
		if x >= high {
			high = w.greatest.offer(extreme{x, seeds[i], offset}, high, seeds[i:], &inOrder)
		}
		if x <= low {
			low = w.least.offer(extreme{-x, seeds[i], offset}, low, seeds[i:], &inOrder)
		}
	}
}

// firstBounds narrows the bounds for a block that comes first in its window, most
// of which would come onto the lists for a while. The extremes of eight lanes are
// values of as many seeds, so that what is beyond k of them is beyond k seeds.
func (w *worst) firstBounds(values []float32, high, low float32) (float32, float32) {
	inf := float32(math.Inf(1))
	greatest := [8]float32{-inf, -inf, -inf, -inf, -inf, -inf, -inf, -inf}
	least := [8]float32{inf, inf, inf, inf, inf, inf, inf, inf}
	lanesOf(values, &greatest, &least)
	if k := w.greatest.limit; 0 < k && k <= len(greatest) {
		if slices.Sort(greatest[:]); greatest[7] < inf && greatest[8-k] > -inf {
			high = greatest[8-k]
		}
	}
	if k := w.least.limit; 0 < k && k <= len(least) {
		if slices.Sort(least[:]); least[0] > -inf && least[k-1] < inf {
			low = least[k-1]
		}
	}
	return high, low
}

// appendTo appends the list to dst, the seed farthest from the mean first, ties
// by the lower seed id. Where only one list is kept this is its own order.
func (w *worst) appendTo(dst []oona.SeedValue, mean float64) []oona.SeedValue {
	limit := max(w.greatest.limit, w.least.limit)
	high, low := w.greatest.list, w.least.list
	for begin := len(dst); len(dst)-begin < limit && len(high)+len(low) > 0; {
		next, sign := extreme{}, 1.0
		if len(low) == 0 || len(high) > 0 && fartherAbove(high[0], low[0], mean) {
			next, high = high[0], high[1:]
		} else {
			next, low, sign = low[0], low[1:], -1
		}
		if slices.ContainsFunc(dst[begin:], func(s oona.SeedValue) bool { return s.Seed == next.seed }) {
			continue // it is farther away on the other side
		}
		dst = append(dst, oona.SeedValue{Seed: next.seed, Value: positiveZero(sign * float64(next.value)), Offset: next.offset})
	}
	return dst
}

// fartherAbove reports whether high comes before low by its distance above the
// mean and low's below it, ties by the lower seed id. It is exact, as a rounded
// distance would make ties of its own: the sum of the two values, which are
// float32s, is compared with twice the mean, and where they are equal the error
// of the sum decides (Knuth's TwoSum).
func fartherAbove(high, low extreme, mean float64) bool {
	a, b := float64(high.value), -float64(low.value)
	sum, twice := a+b, mean+mean
	if sum != twice { // rounding does not turn an order round
		return sum > twice
	}
	back := sum - a
	rest := (a - (sum - back)) + (b - back)
	return rest > 0 || rest == 0 && high.seed <= low.seed
}

// extreme is a seed's greatest value, or its least with the sign turned, and the
// offset of the first frame that has it.
type extreme struct {
	value  float32
	seed   oona.SeedID
	offset int64
}

// before reports whether a comes before b in a list.
func (a *extreme) before(b *extreme) bool {
	return a.value > b.value || a.value == b.value && a.seed < b.seed
}

// ranking keeps the seeds with the greatest values, or with the sign turned the
// least: each seed with its own, in order, ties by the lower seed id. It is
// exact: a seed's extreme only ever moves outwards, and so does the last one on
// the list, so that what fell off the list, or never came onto it, was rightly
// left out.
type ranking struct {
	sign  float32 // -1: the least
	limit int
	list  []extreme
	full  extreme // the last of a full list: kept here, as the list is far away in memory
}

// bound returns what a value must reach to come onto the list. Of a block that
// does not go as far as a value it is beyond all of its values.
func (r *ranking) bound(farthest float32) float32 {
	switch {
	case r.limit == 0:
	case len(r.list) < r.limit:
		return r.sign * -math.MaxFloat32
	case r.sign*farthest >= r.full.value:
		return r.sign * r.full.value
	}
	return r.sign * float32(math.Inf(1))
}

// offer takes an entry that has reached the bound, unless it is in vain, and
// returns the bound for the seeds after it, of which seeds[0] is its own.
func (r *ranking) offer(entry extreme, bound float32, seeds []oona.SeedID, inOrder *order) float32 {
	if len(r.list) < r.limit || entry.before(&r.full) {
		r.place(entry)
	} else if inOrder.holds(seeds) {
		// Ties are many where a metric stands still. No seed to come is lower.
		return r.sign * math.Nextafter32(r.full.value, float32(math.Inf(1)))
	}
	if len(r.list) < r.limit {
		return bound
	}
	return r.sign * r.full.value
}

// place puts an entry where it belongs, in the place of the seed's former one
// or of the last if the list is full.
func (r *ranking) place(entry extreme) {
	at := len(r.list)
	for i := range r.list {
		if r.list[i].seed == entry.seed {
			at = i
			break
		}
	}
	switch {
	case at < len(r.list):
		if !entry.before(&r.list[at]) {
			return
		}
	case at < r.limit:
		r.list = append(r.list, entry)
	default:
		at--
	}
	for ; at > 0 && entry.before(&r.list[at-1]); at-- {
		r.list[at] = r.list[at-1]
	}
	r.list[at] = entry
	r.full = r.list[len(r.list)-1]
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
