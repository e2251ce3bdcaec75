package reduce

import (
	"cmp"
	"math"
	"slices"

	"github.com/morphogenetic/oona"
)

// Progress is how far a producer was with a layer at one of its frames.
type Progress struct {
	Producer oona.ProducerID
	Epoch    oona.Micros
	Sequence int64
	Step     int64
	At       oona.Micros // event time
}

// Steps returns what reducer 2 computes a layer's speed from: the sum of the rises of
// the step from each frame of a producer to the next one by sequence, and the event
// time between these frames. A pair in which the step falls (the training went back to
// a checkpoint) or event time does not advance counts for neither. The sums are over
// all producers, so their quotient is a mean of the producers' speeds. Steps sorts the
// list.
func Steps(list []Progress) (steps int64, time oona.Micros) {
	slices.SortFunc(list, func(p, q Progress) int {
		return cmp.Or(cmp.Compare(p.Producer, q.Producer), cmp.Compare(p.Epoch, q.Epoch), cmp.Compare(p.Sequence, q.Sequence))
	})
	for i := 1; i < len(list); i++ {
		last, next := &list[i-1], &list[i]
		if next.Producer != last.Producer || next.Epoch != last.Epoch || next.Step < last.Step || next.At <= last.At {
			continue
		}
		steps = sumUpTo(steps, next.Step-last.Step)
		time = sumUpTo(time, next.At-last.At)
	}
	return steps, time
}

// sumUpTo adds two numbers that are not negative. If the sum would overflow, it returns
// the greatest integer.
func sumUpTo[T ~int64](a, b T) T {
	if a > math.MaxInt64-b {
		return math.MaxInt64
	}
	return a + b
}
