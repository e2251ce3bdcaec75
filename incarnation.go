package oona

import "fmt"

// Incarnation numbers the lives of a log. An offset identifies a record only
// together with it: a log that lost its end, or was deleted and made again, has
// the same offsets for other records. The number of a record is that of the
// last IncarnationStart at or before it in the log, and 0 where there is none.
// Numbers are microseconds since the Unix epoch and ascend.
type Incarnation int64

// IncarnationRecord is the value of HeaderRecord for an IncarnationStart. It
// begins like the kind of a configuration, so that a worker which does not know
// it stops instead of going on.
const IncarnationRecord = "configuration/incarnation-1"

// IncarnationStart is the record with which an incarnation of a partition's log
// begins. It is void unless its number is greater than that of the log so far.
type IncarnationStart struct {
	Number      Incarnation
	PreviousEnd int64  // offset up to which the log before was read; NoOffset where there was none
	Reason      string // why it was written, for people
	Worker      string // who wrote it
	WrittenAt   Micros // by the writer's clock
}

// Validate returns a *FieldError for the first field that is wrong.
func (s *IncarnationStart) Validate() error {
	if s.Number < Incarnation(earliestObservation) || s.Number >= Incarnation(latestObservation) {
		return &FieldError{"number", fmt.Sprintf("is %d microseconds since the Unix epoch, outside the years 2000 to 2199", s.Number)}
	}
	if s.PreviousEnd < NoOffset {
		return &FieldError{"previous_end", fmt.Sprintf("is %d; give an offset, or %d for none", s.PreviousEnd, NoOffset)}
	}
	return nil
}

// incarnationStep is the least distance between two incarnations of a log. It
// leaves room for a short form that counts minutes.
const incarnationStep = Incarnation(60e6)

// NextIncarnation returns the number of a log's next incarnation: now, but at
// least one minute above the greatest of those that are known.
func NextIncarnation(now Micros, known ...Incarnation) Incarnation {
	next := Incarnation(now)
	for _, k := range known {
		next = max(next, k+incarnationStep)
	}
	return next
}
