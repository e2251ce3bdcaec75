package loadgen

import (
	"time"

	"github.com/morphogenetic/oona"
)

// clock says when frames are due and what time they carry. All clocks of a
// run begin at the same instant, so all times move by one constant.
type clock struct {
	start time.Time
	base  oona.Micros // start, rounded down: what is due has been
	speed float64
	last  oona.Micros // the latest time given, where frames carry the time of sending
}

func newClock(start time.Time, speed float64) clock {
	return clock{start: start, base: oona.MicrosOf(start), speed: speed}
}

// due returns when to send the frame that is after the start of the recording.
func (c *clock) due(after oona.Micros) time.Time {
	if c.speed == MaxSpeed {
		return c.start
	}
	return c.start.Add(time.Duration(c.scaled(after)) * time.Microsecond)
}

// observed returns the time that the frame carries when it is sent now.
func (c *clock) observed(after oona.Micros, now time.Time) oona.Micros {
	if c.speed == MaxSpeed {
		c.last = max(c.last, oona.MicrosOf(now))
		return c.last
	}
	return c.base + c.scaled(after)
}

func (c *clock) scaled(after oona.Micros) oona.Micros {
	if c.speed == 1 {
		return after
	}
	return oona.Micros(float64(after) / c.speed)
}
