package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/bus"
	"github.com/morphogenetic/oona/bus/kafka"
	"github.com/morphogenetic/oona/internal/settings"
	"github.com/morphogenetic/oona/pipeline/aggregate"
)

// examination compares what the logs, the group's commits, the rollup topics and
// the settings topic say of each partition.
type examination struct {
	topics  oona.Topics
	held    *settings.Settings
	history *history
	log     settings.Log
	last    []emitted // by partition
	refused []error   // why aggregators of the group refuse it, by partition; nil: they do not
}

// emitted are the rollups of a partition.
type emitted struct {
	trigger oona.Trigger // the last
	beyond  bool         // the log ends before the trigger
	never   []string     // topics that never had any
}

// examine looks at all but the logs, and reads those on only if that is wanted of
// a partition. The history is to be closed.
func (c *windowsCommand) examine(ctx context.Context, readOn func(*examination, *partitionHistory) bool, logger *slog.Logger) (_ *examination, err error) {
	topics, err := oona.NewTopics(c.Prefix)
	if err != nil {
		return nil, err
	}
	e := &examination{topics: topics, log: settings.Log{Bus: c.Bus, Topics: topics, Worker: "oona"}}
	if e.held, err = settings.Read(ctx, c.Bus, topics, logger); err != nil {
		return nil, err
	}
	var topic string
	if e.history, topic, err = c.open(ctx, logger); err != nil {
		return nil, err
	}
	if err = e.findRollups(ctx, c.Bus); err == nil {
		err = e.findRefused(ctx)
	}
	if err == nil && slices.ContainsFunc(e.history.partitions, func(p *partitionHistory) bool { return readOn(e, p) }) {
		err = c.readOn(ctx, e.history, topic)
	}
	if err != nil {
		return nil, errors.Join(err, e.history.close())
	}
	return e, nil
}

// misfits says what does not fit together, and what to do about it. It reads the
// logs only where something seems wrong without them, and only if it may.
func (c *windowsCommand) misfits(ctx context.Context, readLogs bool, logger *slog.Logger) (all []string, err error) {
	e, err := c.examine(ctx, func(e *examination, p *partitionHistory) bool { return readLogs && e.uncertain(p) }, logger)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, e.history.close()) }()
	for _, p := range e.history.partitions {
		if refused := e.refused[p.partition]; refused != nil {
			all = append(all, fmt.Sprintf("partition %d: aggregators of group %s refuse it: %v", p.partition, e.history.group, refused))
		} else if readLogs {
			all = append(all, e.partition(p)...)
		}
	}
	return append(all, e.history.lostCatalogues(e.held)...), nil
}

// findRollups looks at the ends of the rollup topics.
func (e *examination) findRollups(ctx context.Context, at kafka.Config) error {
	both := []string{e.topics.LayerHealth, e.topics.LayerPerformance}
	ends, err := kafka.HighWater(ctx, at, both...)
	if err != nil {
		return err
	}
	for _, p := range e.history.partitions {
		var r emitted
		var found bool
		if r.trigger, found, err = settings.LastTrigger(ctx, at, e.topics, p.partition); err != nil {
			return err
		}
		r.beyond = found // until the log's end is known
		for _, topic := range both {
			if ends[topic][p.partition] == 0 {
				r.never = append(r.never, topic)
			}
		}
		e.last = append(e.last, r)
	}
	return e.findBeyond(ctx, at)
}

// findBeyond compares the rollups with where the logs end: with ends of after the
// rollups were read, so that what is emitted meanwhile is not beyond them. A leader
// that was just elected may not know the end yet, so it is asked for some seconds.
func (e *examination) findBeyond(ctx context.Context, at kafka.Config) error {
	for began := time.Now(); ; {
		ends, err := kafka.HighWater(ctx, at, e.topics.SeedMetrics)
		if err != nil {
			return err
		}
		short := false
		for i, p := range e.history.partitions {
			r := &e.last[i]
			r.beyond = r.beyond && r.trigger.Offset >= ends[e.topics.SeedMetrics][p.partition]
			short = short || r.beyond
		}
		if !short || time.Since(began) > at.SettleTime() {
			return nil
		}
		bus.Pause(ctx, 300*time.Millisecond)
	}
}

// uncertain reports whether what is known without the log may be wrong, or is too
// little to say what is.
func (e *examination) uncertain(p *partitionHistory) bool {
	return p.committed.Offset == oona.NoOffset || e.behind(p) ||
		len(e.last[p.partition].never) > 0 && p.timelines > 0 || len(p.differences(e.topics.SeedMetrics, e.held)) > 0 ||
		p.lostWindows(e.held) != ""
}

// behind reports whether the rollups are of a greater incarnation than the log, as
// far as it was read, or of the same and of records that it does not hold.
func (e *examination) behind(p *partitionHistory) bool {
	r := e.last[p.partition]
	return r.trigger.Incarnation > p.engine.Incarnation() || r.beyond && r.trigger.Incarnation == p.engine.Incarnation()
}

// findRefused asks as an aggregator does whether a partition can be folded on.
// That the group has no commit of it says nothing of the topics: it may be another
// group's.
func (e *examination) findRefused(ctx context.Context) error {
	e.refused = make([]error, len(e.history.partitions))
	if e.history.group == "" {
		return nil
	}
	for i, p := range e.history.partitions {
		past, err := aggregate.PastOf(ctx, p.assignment, e.log)
		if err != nil {
			return fmt.Errorf("partition %d: %w", p.partition, err)
		}
		if !errors.Is(past.Lost, aggregate.ErrNoCommit) {
			e.refused[i] = past.Lost
		}
	}
	return nil
}

// needsIncarnation reports whether readers would drop what is emitted of a
// partition until its log is in another incarnation.
func (e *examination) needsIncarnation(p *partitionHistory) bool {
	refused := e.refused[p.partition]
	return refused == nil && e.behind(p) || errors.Is(refused, aggregate.ErrMadeAgain)
}

// partition says what is wrong with a partition that aggregators take. Its log
// was read where that matters.
func (e *examination) partition(p *partitionHistory) (all []string) {
	r := e.last[p.partition]
	if e.behind(p) {
		all = append(all, fmt.Sprintf("partition %d: its rollups are of incarnation %d, up to offset %d, and its log is in incarnation %d and ends at offset %d: it is an older log, or has lost its end, and readers drop what is emitted of it. Begin an incarnation with: oona topics apply",
			p.partition, r.trigger.Incarnation, r.trigger.Offset, p.engine.Incarnation(), p.next))
	}
	if p.firstFrame != oona.NoOffset && p.timelines > 0 && p.firstFrame < p.committed.Offset {
		for _, topic := range r.never {
			all = append(all, fmt.Sprintf("partition %d: windows of it have closed, and %s has never had a rollup of it: the topic was lost, or made again. Readers go on with what comes; what was lost is not emitted again",
				p.partition, topic))
		}
	}
	for _, d := range p.differences(e.topics.SeedMetrics, e.held) {
		all = append(all, fmt.Sprintf("partition %d: the log has %s, and the settings topic has %s. Write that of the log with: oona windows show --restore", p.partition, d.log, d.settings))
	}
	if lost := p.lostWindows(e.held); lost != "" {
		all = append(all, lost)
	}
	return all
}
