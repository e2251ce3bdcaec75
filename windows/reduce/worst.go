package reduce

import (
	"math"
	"slices"

	"github.com/morphogenetic/oona"
)

// worst keeps the worst seeds of a metric: the seeds with the greatest values or with
// the least values, by the metric's direction. For a metric without a direction it
// keeps both, because the seeds farthest from the mean are among them: if a seed has a
// value above the mean and is not among the greatest k, then k seeds are at least as
// far away. (The mean is known only when the window closes.) Reducer 1 keeps none for
// such a metric.
type worst struct{ greatest, least ranking }

// listed is the initial capacity of lists: a few more than the default number of worst
// seeds.
const listed = 8

// begin makes w ready for the first sample and keeps its memory.
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

// add adds a block of a frame, whose finite values are between least and greatest.
// values[i] is of seeds[i].
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

// firstBounds narrows the bounds for the first block of a window. Otherwise many of its
// values would be put on the lists only for a while. The extremes of eight lanes are
// values of eight seeds, so a value beyond k of them is beyond k seeds.
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

// appendTo appends the worst seeds to dst, the seed farthest from the mean first; among
// equals, the lower seed id is first. If only one list is kept, this is its order.
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

// fartherAbove reports whether high is farther above the mean than low is below it;
// among equals, the lower seed id is first. It is exact, because rounded distances would
// make other values equal: it compares the sum of the two values, which are float32s,
// with twice the mean. If these are equal, the rounding error of the sum decides
// (Knuth's TwoSum).
func fartherAbove(high, low extreme, mean float64) bool {
	a, b := float64(high.value), -float64(low.value)
	sum, twice := a+b, mean+mean
	if sum != twice { // rounding does not reverse an order
		return sum > twice
	}
	back := sum - a
	rest := (a - (sum - back)) + (b - back)
	return rest > 0 || rest == 0 && high.seed <= low.seed
}

// extreme is a seed's greatest value, or its least value with the sign reversed, and the
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

// ranking keeps the seeds with the greatest values, or with the least values if the sign
// is -1. Each seed has one entry. Among equals, the lower seed id is first. The ranking
// is exact: a seed's extreme only moves outwards, and so does the last one on the list,
// so a value that was dropped or never put on the list cannot belong there later.
type ranking struct {
	sign  float32 // -1: the least
	limit int
	list  []extreme
	full  extreme // the last entry of a full list; it is kept here because the list is often not in the cache
}

// bound returns what a value must reach to be put on the list. For a block whose
// farthest value does not reach it, it is infinite.
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

// offer puts an entry that has reached the bound on the list if it belongs there. It
// returns the bound for the seeds that follow; seeds[0] is the entry's own.
func (r *ranking) offer(entry extreme, bound float32, seeds []oona.SeedID, inOrder *order) float32 {
	if len(r.list) < r.limit || entry.before(&r.full) {
		r.place(entry)
	} else if inOrder.holds(seeds) {
		// A metric that does not change has many ties. No seed that follows is lower.
		return r.sign * math.Nextafter32(r.full.value, float32(math.Inf(1)))
	}
	if len(r.list) < r.limit {
		return bound
	}
	return r.sign * r.full.value
}

// place inserts an entry. It replaces the seed's former entry, or the last entry if the
// list is full.
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

// order says whether a frame's seeds ascend from some position on.
type order int8

const (
	unknownOrder order = iota
	ascending
	anyOrder
)

// holds reports whether seeds ascend. If it was asked before about seeds that end with
// these, it returns the same answer.
func (o *order) holds(seeds []oona.SeedID) bool {
	if *o == unknownOrder {
		*o = anyOrder
		if slices.IsSorted(seeds) {
			*o = ascending
		}
	}
	return *o == ascending
}
