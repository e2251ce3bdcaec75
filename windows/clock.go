package windows

import (
	"math"

	"github.com/morphogenetic/oona"
)

// clock is the log's own time. It goes on with the append times of the
// records, but never backwards, and by at most a limit a record: append times
// are equal within a batch and step either way when a partition changes its
// leader, and an outage of the bus is nobody's idleness.
type clock struct {
	started  bool
	previous oona.Micros // append time of the record before
	now      oona.Micros // since the first record
}

func (c *clock) advance(appendedAt, limit oona.Micros) {
	if c.started && appendedAt > c.previous {
		step := uint64(appendedAt) - uint64(c.previous) // exact, also where an int64 would overflow
		c.now += oona.Micros(min(step, uint64(limit)))
	}
	c.started, c.previous = true, appendedAt
}

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

// windowStart returns the start of the window that holds t, of those that start
// at multiples of length from anchor.
func windowStart(t, anchor, length oona.Micros) oona.Micros {
	into := (t - anchor) % length
	if into < 0 {
		into += length
	}
	return earlier(t, into)
}
