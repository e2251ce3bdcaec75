package logtime

import "github.com/morphogenetic/oona"

// Clock is the clock of a log. Its zero value has seen no record.
type Clock struct {
	Started  bool        // a record has been seen
	Previous oona.Micros // append time of the last record
	Now      oona.Micros // log time since the first record; it never goes back
}

// Advance moves the clock to the next record. Log time grows by as much as the
// append time has grown since the record before, but not by more than limit.
func (c *Clock) Advance(appendedAt, limit oona.Micros) {
	if c.Started && appendedAt > c.Previous {
		step := uint64(appendedAt) - uint64(c.Previous) // exact, also where an int64 would overflow
		c.Now += oona.Micros(min(step, uint64(limit)))
	}
	c.Started, c.Previous = true, appendedAt
}
