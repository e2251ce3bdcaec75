package history

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/bus"
	"github.com/morphogenetic/oona/internal/settings"
	"github.com/morphogenetic/oona/pipeline/aggregate"
)

// Examination compares the logs, the group's commits, the rollup topics and the
// settings topic for each partition.
type Examination struct {
	History *History
	topics  oona.Topics
	log     settings.Log
	held    *settings.Settings
	last    []emitted // the last rollups, by partition
	refused []error   // for each partition, the reason why aggregators of the group refuse it, or nil
}

// emitted describes the rollups of a partition.
type emitted struct {
	trigger oona.Trigger // trigger of the last rollup
	beyond  bool         // whether the log ends before the trigger
	never   []string     // rollup topics that never had a rollup of the partition
}

// Installation describes the installation that is examined.
type Installation struct {
	Bus    bus.Bus
	Topics oona.Topics
	Group  string        // group whose commits are read; empty if they are not read
	Settle time.Duration // how long a newly elected leader may not know the end of its log
	Logger *slog.Logger
}

// Examine reads everything but the logs. It reads the logs, too, if readOn returns true
// for a partition.
func Examine(ctx context.Context, at Installation, readOn func(*Examination, *Partition) bool) (_ *Examination, err error) {
	e := &Examination{topics: at.Topics, log: settings.Log{Bus: at.Bus, Topics: at.Topics, Worker: "oona"}}
	if e.held, err = settings.Read(ctx, at.Bus, at.Topics, at.Logger); err != nil {
		return nil, err
	}
	if e.History, err = Open(ctx, at.Bus, at.Topics.SeedMetrics, at.Group); err != nil {
		return nil, err
	}
	if err = e.findRollups(ctx, at.Settle); err == nil {
		err = e.findRefused(ctx)
	}
	if err == nil && slices.ContainsFunc(e.History.Partitions, func(p *Partition) bool { return readOn(e, p) }) {
		err = e.History.ReadOn(ctx)
	}
	if err != nil {
		return nil, err
	}
	return e, nil
}

// Misfits describes disagreements between the topics, and what to do about them. If readLogs is
// set, it reads the logs when that is necessary to be certain.
func Misfits(ctx context.Context, at Installation, readLogs bool) (all []string, err error) {
	e, err := Examine(ctx, at, func(e *Examination, p *Partition) bool { return readLogs && e.uncertain(p) })
	if err != nil {
		return nil, err
	}
	for _, p := range e.History.Partitions {
		if refused := e.refused[p.Number]; refused != nil {
			all = append(all, fmt.Sprintf("partition %d: aggregators of group %s refuse it: %v", p.Number, e.History.Group, refused))
		} else if readLogs {
			all = append(all, e.partition(p)...)
		}
	}
	return append(all, e.History.LostCatalogues(e.held)...), nil
}

// findRollups reads the ends of the rollup topics.
func (e *Examination) findRollups(ctx context.Context, settle time.Duration) error {
	both := []string{e.topics.LayerHealth, e.topics.LayerPerformance}
	extents, err := e.History.Bus.Extents(ctx, both...)
	if err != nil {
		return err
	}
	for _, p := range e.History.Partitions {
		var r emitted
		var found bool
		if r.trigger, found, err = settings.LastTrigger(ctx, e.History.Bus, e.topics, p.Number); err != nil {
			return err
		}
		r.beyond = found // preliminary: findBeyond compares the trigger with the end of the log
		for _, topic := range both {
			if extents[topic][p.Number].End == 0 {
				r.never = append(r.never, topic)
			}
		}
		e.last = append(e.last, r)
	}
	return e.findBeyond(ctx, settle)
}

// findBeyond compares the rollups with the ends of the logs. It asks for the ends after the rollups
// were read, because rollups of new records would be beyond earlier ends. It repeats the request for
// some seconds, because a newly elected leader may not know the end yet.
func (e *Examination) findBeyond(ctx context.Context, settle time.Duration) error {
	for began := time.Now(); ; {
		extents, err := e.History.Bus.Extents(ctx, e.topics.SeedMetrics)
		if err != nil {
			return err
		}
		short := false
		for i, p := range e.History.Partitions {
			r := &e.last[i]
			r.beyond = r.beyond && r.trigger.Offset >= extents[e.topics.SeedMetrics][p.Number].End
			short = short || r.beyond
		}
		if !short || time.Since(began) > settle {
			return nil
		}
		bus.Pause(ctx, 300*time.Millisecond)
	}
}

// uncertain reports whether the log must be read to find out whether a partition has a fault, and
// which one.
func (e *Examination) uncertain(p *Partition) bool {
	return p.Committed.Offset == oona.NoOffset || e.behind(p) ||
		len(e.last[p.Number].never) > 0 && p.timelines > 0 || len(p.corrections(e.topics.SeedMetrics, e.held)) > 0 ||
		p.lostWindows(e.held) != ""
}

// behind reports whether the rollups have a greater incarnation than the log, as far
// as it was read, or the same incarnation and offsets that the log does not have.
func (e *Examination) behind(p *Partition) bool {
	r := e.last[p.Number]
	return r.trigger.Incarnation > p.Engine.Incarnation() || r.beyond && r.trigger.Incarnation == p.Engine.Incarnation()
}

// findRefused finds the partitions that aggregators of the group would refuse. It ignores
// partitions without a commit, because another group may fold them.
func (e *Examination) findRefused(ctx context.Context) error {
	e.refused = make([]error, len(e.History.Partitions))
	if e.History.Group == "" {
		return nil
	}
	for i, p := range e.History.Partitions {
		past, err := aggregate.PastOf(ctx, p.assignment, e.log)
		if err != nil {
			return fmt.Errorf("partition %d: %w", p.Number, err)
		}
		if !errors.Is(past.Lost, aggregate.ErrNoCommit) {
			e.refused[i] = past.Lost
		}
	}
	return nil
}

// NeedsIncarnation reports whether readers would drop new rollups of a partition unless
// its log begins a new incarnation.
func (e *Examination) NeedsIncarnation(p *Partition) bool {
	refused := e.refused[p.Number]
	return refused == nil && e.behind(p) || errors.Is(refused, aggregate.ErrMadeAgain)
}

// BeginIncarnation begins a new incarnation of the log in a partition. The reason is
// written into the log.
func (e *Examination) BeginIncarnation(ctx context.Context, p *Partition, reason string) error {
	_, err := e.log.BeginIncarnation(ctx, p.Number, p.Engine.Incarnation(), p.Next, reason)
	return err
}

// partition returns the fault of a partition that aggregators do not refuse, or "".
func (e *Examination) partition(p *Partition) (all []string) {
	r := e.last[p.Number]
	if e.behind(p) {
		all = append(all, fmt.Sprintf("partition %d: its rollups are of incarnation %d, up to offset %d, but its log has incarnation %d and ends at offset %d: it is an older log, or has lost its end, and readers drop its new rollups. Begin a new incarnation with: oona topics apply",
			p.Number, r.trigger.Incarnation, r.trigger.Offset, p.Engine.Incarnation(), p.Next))
	}
	if p.firstFrame != oona.NoOffset && p.timelines > 0 && p.firstFrame < p.Committed.Offset {
		for _, topic := range r.never {
			all = append(all, fmt.Sprintf("partition %d: its windows have closed, but %s has never had a rollup of it: the topic was lost, or made again. Readers continue with new rollups; the lost ones are not emitted again",
				p.Number, topic))
		}
	}
	for _, d := range p.corrections(e.topics.SeedMetrics, e.held) {
		all = append(all, fmt.Sprintf("partition %d: the log has %s, but the settings topic has %s. Correct the settings topic with: oona windows show --restore", p.Number, d.Has, d.Had))
	}
	if lost := p.lostWindows(e.held); lost != "" {
		all = append(all, lost)
	}
	return all
}
