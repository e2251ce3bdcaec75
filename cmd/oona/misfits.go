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

// examination compares the logs, the group's commits, the rollup topics and the
// settings topic for each partition.
type examination struct {
	topics  oona.Topics
	held    *settings.Settings
	history *history
	log     settings.Log
	last    []emitted // by partition
	refused []error   // by partition: why aggregators of the group refuse it, or nil
}

// emitted describes the rollups of a partition.
type emitted struct {
	trigger oona.Trigger // the last
	beyond  bool         // the log ends before the trigger
	never   []string     // topics that never had a rollup of the partition
}

// examine reads everything but the logs. It reads the logs, too, if readOn returns true
// for a partition.
func (c *windowsCommand) examine(ctx context.Context, readOn func(*examination, *partitionHistory) bool, logger *slog.Logger) (_ *examination, err error) {
	topics, err := oona.NewTopics(c.Prefix)
	if err != nil {
		return nil, err
	}
	b := kafka.New(c.Bus, logger)
	e := &examination{topics: topics, log: settings.Log{Bus: b, Topics: topics, Worker: "oona"}}
	if e.held, err = settings.Read(ctx, b, topics, logger); err != nil {
		return nil, err
	}
	if e.history, err = c.open(ctx, logger); err != nil {
		return nil, err
	}
	if err = e.findRollups(ctx, c.Bus.SettleTime()); err == nil {
		err = e.findRefused(ctx)
	}
	if err == nil && slices.ContainsFunc(e.history.partitions, func(p *partitionHistory) bool { return readOn(e, p) }) {
		err = e.history.readOn(ctx)
	}
	if err != nil {
		return nil, err
	}
	return e, nil
}

// misfits returns what does not agree between the topics, and what to do about it. If
// readLogs is set, it reads the logs if they are needed to be certain.
func (c *windowsCommand) misfits(ctx context.Context, readLogs bool, logger *slog.Logger) (all []string, err error) {
	e, err := c.examine(ctx, func(e *examination, p *partitionHistory) bool { return readLogs && e.uncertain(p) }, logger)
	if err != nil {
		return nil, err
	}
	for _, p := range e.history.partitions {
		if refused := e.refused[p.partition]; refused != nil {
			all = append(all, fmt.Sprintf("partition %d: aggregators of group %s refuse it: %v", p.partition, e.history.group, refused))
		} else if readLogs {
			all = append(all, e.partition(p)...)
		}
	}
	return append(all, e.history.lostCatalogues(e.held)...), nil
}

// findRollups reads the ends of the rollup topics.
func (e *examination) findRollups(ctx context.Context, settle time.Duration) error {
	both := []string{e.topics.LayerHealth, e.topics.LayerPerformance}
	extents, err := e.history.bus.Extents(ctx, both...)
	if err != nil {
		return err
	}
	for _, p := range e.history.partitions {
		var r emitted
		var found bool
		if r.trigger, found, err = settings.LastTrigger(ctx, e.history.bus, e.topics, p.partition); err != nil {
			return err
		}
		r.beyond = found // findBeyond corrects it
		for _, topic := range both {
			if extents[topic][p.partition].End == 0 {
				r.never = append(r.never, topic)
			}
		}
		e.last = append(e.last, r)
	}
	return e.findBeyond(ctx, settle)
}

// findBeyond compares the rollups with the ends of the logs. It asks for the ends after
// the rollups were read, so that rollups of new records are not beyond them. It asks
// for some seconds, as a newly elected leader may not know the end yet.
func (e *examination) findBeyond(ctx context.Context, settle time.Duration) error {
	for began := time.Now(); ; {
		extents, err := e.history.bus.Extents(ctx, e.topics.SeedMetrics)
		if err != nil {
			return err
		}
		short := false
		for i, p := range e.history.partitions {
			r := &e.last[i]
			r.beyond = r.beyond && r.trigger.Offset >= extents[e.topics.SeedMetrics][p.partition].End
			short = short || r.beyond
		}
		if !short || time.Since(began) > settle {
			return nil
		}
		bus.Pause(ctx, 300*time.Millisecond)
	}
}

// uncertain reports whether the log is needed to find out whether and what is wrong
// with a partition.
func (e *examination) uncertain(p *partitionHistory) bool {
	return p.committed.Offset == oona.NoOffset || e.behind(p) ||
		len(e.last[p.partition].never) > 0 && p.timelines > 0 || len(p.differences(e.topics.SeedMetrics, e.held)) > 0 ||
		p.lostWindows(e.held) != ""
}

// behind reports whether the rollups have a greater incarnation than the log, as far
// as it was read, or the same incarnation and offsets that the log does not have.
func (e *examination) behind(p *partitionHistory) bool {
	r := e.last[p.partition]
	return r.trigger.Incarnation > p.engine.Incarnation() || r.beyond && r.trigger.Incarnation == p.engine.Incarnation()
}

// findRefused finds the partitions that aggregators of the group would refuse. It
// ignores partitions without a commit, as another group may fold them.
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

// needsIncarnation reports whether readers would drop new rollups of a partition unless
// its log begins a new incarnation.
func (e *examination) needsIncarnation(p *partitionHistory) bool {
	refused := e.refused[p.partition]
	return refused == nil && e.behind(p) || errors.Is(refused, aggregate.ErrMadeAgain)
}

// partition returns what is wrong with a partition that aggregators do not refuse.
func (e *examination) partition(p *partitionHistory) (all []string) {
	r := e.last[p.partition]
	if e.behind(p) {
		all = append(all, fmt.Sprintf("partition %d: its rollups are of incarnation %d, up to offset %d, but its log has incarnation %d and ends at offset %d: it is an older log, or has lost its end, and readers drop its new rollups. Begin a new incarnation with: oona topics apply",
			p.partition, r.trigger.Incarnation, r.trigger.Offset, p.engine.Incarnation(), p.next))
	}
	if p.firstFrame != oona.NoOffset && p.timelines > 0 && p.firstFrame < p.committed.Offset {
		for _, topic := range r.never {
			all = append(all, fmt.Sprintf("partition %d: its windows have closed, but %s has never had a rollup of it: the topic was lost, or made again. Readers continue with new rollups; the lost ones are not emitted again",
				p.partition, topic))
		}
	}
	for _, d := range p.differences(e.topics.SeedMetrics, e.held) {
		all = append(all, fmt.Sprintf("partition %d: the log has %s, but the settings topic has %s. Correct the settings topic with: oona windows show --restore", p.partition, d.log, d.settings))
	}
	if lost := p.lostWindows(e.held); lost != "" {
		all = append(all, lost)
	}
	return all
}
