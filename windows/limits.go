package windows

import (
	"math"
	"slices"
	"time"

	"github.com/morphogenetic/oona"
)

// misplaced returns the reason why an event time cannot be right for a record that was appended at
// appendedAt, or ReasonNone. If a record is appended later, it can only change from ReasonFuture to
// ReasonNone, and from ReasonNone to ReasonStale.
func (s *spans) misplaced(at, appendedAt oona.Micros) Reason {
	if at > later(appendedAt, s.maxSkew) {
		return ReasonFuture
	}
	if at < earlier(appendedAt, s.maxDelay) {
		return ReasonStale
	}
	return ReasonNone
}

// Limits decides which frames an engine will certainly not fold, whatever else is in its log. It is
// for programs that write frames to a log. Limits only knows the configurations that were written,
// and may not know the earliest ones. If it does not know the configuration for an event time, it
// does not decide.
type Limits struct {
	logs [][]stretch // the different lists of stretches; equal ones of several partitions are here once
}

// stretch is an interval of event time whose configuration is known. The stretches of a log do not
// overlap, but there may be gaps between them.
type stretch struct {
	from, until oona.Micros // the interval [from, until)
	cfg         Config
	spans       spans
}

// unknownLength is longer than any window whose configuration is not known.
const unknownLength = oona.Micros(24 * time.Hour / time.Microsecond)

// NewLimits returns the limits of a topic. Each list has the configurations that were
// written for one partition, in the order of generations, from some generation on without a
// gap. From has the value that was written, or the rounded one (see Configuration). If From of the
// first one is 0, it applies from the beginning of the log. If a list is empty or a configuration
// is not valid, the result knows no limits.
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

// certain returns the stretches in which the configurations of a partition are certainly in effect, or nil.
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

// Known reports whether l knows any limits.
func (l *Limits) Known() bool { return l != nil && len(l.logs) > 0 }

// Judge returns the reason why a frame will not be folded if it is appended at any time from
// earliest to latest, to any partition. It also returns a configuration with the limit that the
// frame exceeds. The reason is ReasonNone if it is not certain that the frame will not be folded.
// The frame must have passed Validate.
//
// The engine gives the same reason, with one exception. If a frame exceeds a limit on metrics or
// seeds, it may also be late, or in conflict with another frame, or there may be too many timelines;
// then the engine gives that reason.
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
