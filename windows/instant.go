package windows

import (
	"math"

	"github.com/morphogenetic/oona"
)

// unset is an event time before all others.
const unset oona.Micros = math.MinInt64

// later returns t + d for d >= 0, and the end of time where that overflows.
func later(t, d oona.Micros) oona.Micros {
	if t > math.MaxInt64-d {
		return math.MaxInt64
	}
	return t + d
}

// earlier returns t - d for d >= 0, and the beginning of time where that
// overflows.
func earlier(t, d oona.Micros) oona.Micros {
	if t < math.MinInt64+d {
		return math.MinInt64
	}
	return t - d
}

// windowStart returns the start of the window that contains t, if windows have the given length and
// one of them starts at anchor.
func windowStart(t, anchor, length oona.Micros) oona.Micros {
	into := (t - anchor) % length
	if into < 0 {
		into += length
	}
	return earlier(t, into)
}
