package oona

import "fmt"

// Incarnation identifies a log among those that a partition had. A log that
// lost its end, or that was deleted and made again, uses the same offsets for
// other records. So an offset identifies a record only together with the
// incarnation. A record has the incarnation of the last IncarnationStart at or
// before it in the log, or 0 if the log has no IncarnationStart up to there.
// Incarnations are microseconds since the Unix epoch, and they ascend.
type Incarnation int64

// IncarnationRecord is the value of HeaderRecord for an IncarnationStart. It
// has the prefix of configurations, so that a worker that does not know it
// stops.
const IncarnationRecord = "configuration/incarnation-1"

// IncarnationStart is the first record of an incarnation of a partition's log.
// It has no effect unless Number is greater than the incarnation of the log
// before it.
type IncarnationStart struct {
	Number      Incarnation
	PreviousEnd int64  // offset up to which the previous log was read, or NoOffset
	Reason      string // why it was written, for people
	Worker      string // the writer
	WrittenAt   Micros // time of writing by the writer's clock
}

// Validate returns a *FieldError for the first field that is wrong.
func (s *IncarnationStart) Validate() error {
	if s.Number < Incarnation(earliestObservation) || s.Number >= Incarnation(latestObservation) {
		return &FieldError{"number", fmt.Sprintf("is %d microseconds since the Unix epoch, outside the years 2000 to 2199", s.Number)}
	}
	if s.PreviousEnd < NoOffset {
		return &FieldError{"previous_end", fmt.Sprintf("is %d; give an offset, or %d if there was no log before", s.PreviousEnd, NoOffset)}
	}
	return nil
}

// incarnationStep is the least distance between two incarnations of a log: one
// minute, so that a short form can count minutes.
const incarnationStep = Incarnation(60e6)

// NextIncarnation returns the next incarnation of a log: now, but at least one
// minute above all that are known.
func NextIncarnation(now Micros, known ...Incarnation) Incarnation {
	next := Incarnation(now)
	for _, k := range known {
		next = max(next, k+incarnationStep)
	}
	return next
}
