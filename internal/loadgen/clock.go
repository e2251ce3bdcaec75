package loadgen

import (
	"time"

	"github.com/morphogenetic/oona"
)

// clock maps the times of a recording to the times at which frames are sent. All
// clocks of a run have the same start, so all times move by the same difference.
type clock struct {
	start time.Time
	base  oona.Micros // start, rounded down, so that no frame is ahead of its due time
	speed float64
	last  oona.Micros // at MaxSpeed: the last time that observed returned
}

func newClock(start time.Time, speed float64) clock {
	return clock{start: start, base: oona.MicrosOf(start), speed: speed}
}

// due returns when to send the frame with the given time after the start.
func (c *clock) due(after oona.Micros) time.Time {
	if c.speed == MaxSpeed {
		return c.start
	}
	return c.start.Add(time.Duration(c.scaled(after)) * time.Microsecond)
}

// observed returns the event time of a frame that is sent now.
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
