package windows

import (
	"math"
	"slices"
	"time"

	"github.com/morphogenetic/oona"
)

// misplaced returns why an event time cannot be right for a record that was appended at
// appendedAt, or ReasonNone. The later a record is appended, the less it can be ReasonFuture
// and the more it can be ReasonStale.
func (s *spans) misplaced(at, appendedAt oona.Micros) Reason {
	if at > later(appendedAt, s.maxSkew) {
		return ReasonFuture
	}
	if at < earlier(appendedAt, s.maxDelay) {
		return ReasonStale
	}
	return ReasonNone
}

// Limits says which frames an engine does not fold, whatever else its log holds. It is for
// those that write frames to a log. It knows of a log only the configurations that were
// written, and may not know the earliest ones. Where it does not know the configuration of
// an event time, it says nothing.
type Limits struct {
	logs [][]stretch // different ones
}

// stretch is a stretch of event time whose configuration is known. Two stretches of a log do
// not overlap, but there may be gaps.
type stretch struct {
	from, until oona.Micros // until is not included
	cfg         Config
	spans       spans
}

// unknownLength is more than the length of windows whose configuration is not known.
const unknownLength = oona.Micros(24 * time.Hour / time.Microsecond)

// NewLimits returns the limits of a topic. Each list has the configurations that were
// written for one partition, in the order of generations, from some generation on without a
// gap. From is as it was written, or rounded as Configuration says. If the first one is from
// 0, it holds from the beginning of the log. If a list is empty or a configuration is not
// valid, nothing is known.
func NewLimits(partitions [][]Configuration) *Limits {
	l := new(Limits)
	for _, list := range partitions {
		log := certain(list)
		if log == nil {
			return new(Limits)
		}
		if !slices.ContainsFunc(l.logs, func(other []stretch) bool { return slices.Equal(other, log) }) {
			l.logs = append(l.logs, log)
		}
	}
	return l
}

// certain returns where the configurations of a partition hold with certainty, or nil.
func certain(list []Configuration) []stretch {
	var all []stretch
	epochs := configEpochs{}
	for i, c := range list {
		if c.Config.Validate() != nil {
			return nil
		}
		at := stretch{from: unset, until: math.MaxInt64, cfg: c.Config, spans: spansOf(c.Config)}
		switch {
		case i > 0 && list[0].From == 0: // the epochs are known exactly
			at.from = epochs.last().nextEnd(c.From)
			all[i-1].until = at.from
		case i > 0: // the windows of the last one begin at an instant that is not known
			at.from = later(c.From, all[i-1].spans.length)
			all[i-1].until = c.From
		case c.From != 0:
			at.from = later(c.From, unknownLength)
		}
		epochs = append(epochs, newConfigEpoch(c.Config, at.from, unknown))
		all = append(all, at)
	}
	return all
}

// Known reports whether anything is known.
func (l *Limits) Known() bool { return l != nil && len(l.logs) > 0 }

// Judge returns why a frame is not folded if it is appended at any time from earliest to
// latest, whichever partition it goes to, and a configuration that has the limit. The reason
// is ReasonNone if it is not certain that the frame is not folded. The frame must have passed
// Validate.
//
// The engine gives the same reason, with one exception: a frame that exceeds a cap may also
// be late or conflict with another one, or its timeline may be one too many.
func (l *Limits) Judge(f *oona.Frame, earliest, latest oona.Micros) (why Reason, by *Config) {
	if l == nil {
		return ReasonNone, nil
	}
	for i, log := range l.logs {
		s := holding(log, f.ObservedAt)
		if s == nil {
			return ReasonNone, nil
		}
		reason := s.judge(f, earliest, latest)
		if reason == ReasonNone || i > 0 && reason != why {
			return ReasonNone, nil
		}
		why, by = reason, &s.cfg
	}
	return why, by
}

func holding(log []stretch, at oona.Micros) *stretch {
	for i := range log {
		if s := &log[i]; s.from <= at && at < s.until {
			return s
		}
	}
	return nil
}

func (s *stretch) judge(f *oona.Frame, earliest, latest oona.Micros) Reason {
	reason := s.spans.misplaced(f.ObservedAt, earliest)
	switch {
	case reason != s.spans.misplaced(f.ObservedAt, latest):
		return ReasonNone
	case reason != ReasonNone:
		return reason
	case len(f.Metrics) > s.cfg.MaxMetrics:
		return ReasonMetrics
	case len(f.Seeds) > s.cfg.MaxSeeds:
		return ReasonSeeds
	}
	return ReasonNone
}
