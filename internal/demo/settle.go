package demo

import (
	"context"
	"fmt"
	"time"

	"github.com/morphogenetic/oona/bus"
	"github.com/morphogenetic/oona/internal/loadgen"
	"github.com/morphogenetic/oona/pipeline/aggregate"
	"github.com/morphogenetic/oona/pipeline/export"
)

const pollInterval = 50 * time.Millisecond

// measure holds the counts of every service and the lengths of the topics.
type measure struct {
	accepted  int64
	claims    int64 // in accepted frames
	events    int64 // accepted
	aggregate aggregate.Counts
	export    export.Counts
	records   int64 // on the seed-metrics topic, Oona's own included
	rollups   int64 // on both rollup topics
	told      int64 // events on their topics
	side      SideRecords
}

// measure reads the counts of the services before the lengths of the topics, so
// that a count is never ahead of its topic.
func (s *services) measure(ctx context.Context) (measure, error) {
	taken := s.ingest.Counts()
	m := measure{
		accepted:  taken.Frames,
		claims:    taken.Claims,
		events:    taken.Events,
		aggregate: s.aggregate.Counts(),
		export:    s.export.Counts(),
	}
	t := s.topics
	extents, err := s.bus.Extents(ctx, append(t.AllEvents(), t.SeedMetrics, t.LayerHealth, t.LayerPerformance, t.Late, t.Quarantine, t.Overflow, t.SeedMetricsDead)...)
	if err != nil {
		return measure{}, fmt.Errorf("measure the topics: %w", err)
	}
	length := func(topic string) (n int64) {
		for _, e := range extents[topic] {
			n += e.End
		}
		return n
	}
	m.records = length(t.SeedMetrics)
	m.rollups = length(t.LayerHealth) + length(t.LayerPerformance)
	for _, topic := range t.AllEvents() {
		m.told += length(topic)
	}
	m.side = SideRecords{Late: length(t.Late), Quarantine: length(t.Quarantine), Overflow: length(t.Overflow), Dead: length(t.SeedMetricsDead)}
	return m, nil
}

// settled reports whether all records on the bus have been read, and all emitted
// rollups are on the bus.
func (m measure) settled() bool {
	return m.aggregate.Next == m.records && m.aggregate.Pending == 0 && m.readRollups() == m.rollups
}

// readRollups returns how many rollup records the exporter has read since the
// beginning of their topics.
func (m measure) readRollups() int64 {
	return m.export.Rollups + m.export.Repeats + m.export.Conflicts + m.export.Undecodable
}

// limit is how long the demo waits for what is on its way: until a deadline, and after the signal
// to stop at most for the grace. While windows are open, ticks are appended, so on a busy machine
// there may be something on its way for long.
type limit struct {
	deadline time.Time
	stop     <-chan struct{} // closed by the signal; nil: there is none
	grace    time.Duration
	stopping bool
}

// limit returns a limit with the patience of the demo. If the last windows must close, the time is
// added that they need to become idle.
func (s *services) limit(closing bool, idle time.Duration) *limit {
	patience := s.patience
	if closing {
		patience += 2 * idle
	}
	return &limit{deadline: time.Now().Add(patience), stop: s.asked, grace: s.grace}
}

// reached reports whether the demo must not wait any longer.
func (l *limit) reached() bool {
	select {
	case <-l.stop:
		if soon := time.Now().Add(l.grace); !l.stopping && soon.Before(l.deadline) {
			l.deadline = soon
		}
		l.stopping = true
	default:
	}
	return time.Now().After(l.deadline)
}

// settle waits until all records and rollups have been read. If closing is set, it
// also waits until idleness and ticks have closed the last windows. It returns false
// if the demo must not wait any longer.
func (s *services) settle(ctx context.Context, closing bool, idle time.Duration) (measure, bool, error) {
	return s.settleWithin(ctx, closing, s.limit(closing, idle))
}

func (s *services) settleWithin(ctx context.Context, closing bool, most *limit) (measure, bool, error) {
	for {
		m, err := s.measure(ctx)
		if err != nil {
			return m, false, err
		}
		if m.settled() && (!closing || m.aggregate.OpenWindows == 0) {
			return m, true, nil
		}
		if most.reached() {
			return m, false, nil
		}
		if err := s.failed(); err != nil {
			return m, false, err
		}
		bus.Pause(ctx, pollInterval)
	}
}

// until returns a report of what was counted between m and end.
func (m measure) until(end measure, played loadgen.Counts) *Report {
	from, to := m.aggregate, end.aggregate
	own := to.Own - from.Own
	return &Report{
		Sent:         played.Sent,
		Acknowledged: played.Acknowledged,
		Refused:      played.Refused,
		Unanswered:   played.Unanswered(),
		Accepted:     end.accepted - m.accepted,
		Records:      end.records - m.records - own,
		Folded:       to.Folded - from.Folded,
		Duplicate:    to.Duplicate - from.Duplicate,
		Late:         to.Late - from.Late,
		Quarantined:  to.Quarantined - from.Quarantined,
		Overflowed:   to.Overflowed - from.Overflowed,
		Dead:         to.Dead - from.Dead,
		SideRecords: SideRecords{
			Late:       end.side.Late - m.side.Late,
			Quarantine: end.side.Quarantine - m.side.Quarantine,
			Overflow:   end.side.Overflow - m.side.Overflow,
			Dead:       end.side.Dead - m.side.Dead,
		},
		TensorsSent:    played.Tensors,
		ClaimsAccepted: end.claims - m.claims,
		RollupsEmitted: to.Rollups - from.Rollups,
		RollupsOnBus:   end.rollups - m.rollups,
		RollupsRead:    end.export.Rollups + end.export.Repeats - m.export.Rollups - m.export.Repeats,
		OpenWindows:    to.OpenWindows,

		EventsRecorded:     played.Events,
		EventsSent:         played.EventsSent,
		EventsAcknowledged: played.EventsAcknowledged,
		RunsEnded:          played.Ended,
		EventsAccepted:     end.events - m.events,
		EventsOnBus:        end.told - m.told,
	}
}
