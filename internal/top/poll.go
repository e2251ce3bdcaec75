package top

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/bus"
	"github.com/morphogenetic/oona/pipeline/aggregate"
)

// Bus has the methods of a bus that a Poller needs.
type Bus interface {
	bus.Admin
	bus.Groups
}

// Poller asks the bus and the workers for everything except rollups. It is not safe for
// concurrent use.
type Poller struct {
	Bus     Bus
	Topics  oona.Topics
	Group   string // consumer group of the aggregators
	Workers *Workers

	last    ends
	minute  []ends // results of the polls of the last minute, oldest first
	sampled int    // the partition that was sampled last; partitions are sampled in turn
	paths   map[int32]sample
}

// ends has the offsets at which the partitions of topics ended at a time.
type ends struct {
	at   time.Time
	logs map[string][]bus.Extent
}

const (
	// samplePartitions is the maximum number of partitions that a poll samples.
	samplePartitions = 4
	// sampleRecords is the number of last records of a partition that a sample has.
	sampleRecords = 8
	// pathStays is how long a path is shown after its last frame.
	pathStays = 5 * time.Minute
)

// sample has the paths of the last frames of a partition.
type sample struct {
	end     int64 // end of the partition when the sample was taken
	records int
	frames  int
	paths   map[string]path
}

type path struct {
	frames int
	seen   time.Time
}

// Poll returns the state at now, without layers.
func (p *Poller) Poll(ctx context.Context, now time.Time) Snapshot {
	s := Snapshot{At: now}
	fault := func(of string, err error) {
		if err != nil && !errors.Is(ctx.Err(), context.Canceled) {
			s.Faults = append(s.Faults, fmt.Sprintf("%s: %v", of, err))
		}
	}
	is := ends{at: now, logs: make(map[string][]bus.Extent)}
	var err error
	s.Partitions, err = p.partitions(ctx, &is)
	fault("partitions", err)
	if !errors.Is(err, bus.ErrUnreachable) { // otherwise the other requests would fail, too
		s.Sides, err = p.sides(ctx, &is)
		fault("side topics", err)
		fault("ingests", p.sample(ctx, is.logs[p.Topics.SeedMetrics]))
	}
	s.Ingests = p.ingests(s.Partitions, now)
	if p.Workers != nil {
		s.Ingests = p.Workers.add(ctx, s.Ingests, now)
	}
	p.last = is
	p.minute = append(p.minute, is)
	for len(p.minute) > 2 && now.Sub(p.minute[1].at) >= time.Minute {
		p.minute = p.minute[1:]
	}
	return s
}

// partitions reads the commits before the ends of the partitions, so that no commit is beyond the end
// of its partition.
func (p *Poller) partitions(ctx context.Context, is *ends) ([]Partition, error) {
	topic := p.Topics.SeedMetrics
	members, err := p.Bus.Members(ctx, p.Group)
	if err != nil {
		return nil, err
	}
	commits, err := p.Bus.Commits(ctx, p.Group, topic)
	if err != nil {
		return nil, err
	}
	extents, err := p.Bus.Extents(ctx, topic)
	if err != nil {
		return nil, err
	}
	is.logs[topic] = extents[topic]
	owners := make(map[int32]string)
	for _, m := range members {
		for _, partition := range m.Partitions[topic] {
			owners[partition] = cmp.Or(m.Instance, m.Client, m.ID)
		}
	}
	partitions := make([]Partition, len(extents[topic]))
	held := len(members) > 0
	for i, e := range extents[topic] {
		held = held || i < len(commits) && commits[i].Offset != bus.NoOffset
		shown := Partition{Partition: int32(i), Owner: owners[int32(i)], Start: e.Start, End: e.End}
		shown.PerSecond = rate(p.last, *is, topic, i)
		if i < len(commits) && commits[i].Offset != bus.NoOffset {
			shown.commit(commits[i], is.at)
		}
		partitions[i] = shown
	}
	if !held {
		err = fmt.Errorf("group %s has no members and no commits on %s; give the --group of the aggregators (that of oona demo is %s-demo)", p.Group, topic, strings.SplitN(topic, ".telemetry.", 2)[0])
	}
	return partitions, err
}

// commit sets the fields that say how far the partition was read.
func (s *Partition) commit(c bus.Commit, now time.Time) {
	_, engine, err := aggregate.ParseCommit(c)
	if err != nil {
		s.Fault = err.Error()
		return
	}
	reached, err := engine.Reached()
	if err != nil {
		s.Fault = err.Error()
		return
	}
	lag, seconds := max(0, s.End-reached.ProcessedTo), 0.0
	s.Read, s.Lag = &reached.ProcessedTo, &lag
	if lag > 0 {
		if !reached.Known {
			return
		}
		seconds = max(0, now.Sub(reached.AppendedAt.Time()).Seconds())
	}
	s.LagSeconds = &seconds
}

// rate returns how many records per second were appended to a partition between two polls,
// or nil if that is not known.
func rate(was, is ends, topic string, partition int) *float64 {
	before, after := was.logs[topic], is.logs[topic]
	if partition >= len(before) || partition >= len(after) || !is.at.After(was.at) {
		return nil
	}
	grown := after[partition].End - before[partition].End
	if grown < 0 { // the topic was deleted and created again
		return nil
	}
	rate := float64(grown) / is.at.Sub(was.at).Seconds()
	return &rate
}

// sides returns the side topics that exist.
func (p *Poller) sides(ctx context.Context, is *ends) (sides []Side, failed error) {
	for _, side := range []struct{ name, topic string }{
		{"late", p.Topics.Late}, {"quarantine", p.Topics.Quarantine}, {"overflow", p.Topics.Overflow},
		{"dead letters", p.Topics.SeedMetricsDead}, {"dead letters of raw", p.Topics.SeedRawDead},
	} {
		extents, err := p.Bus.Extents(ctx, side.topic)
		if side.topic == p.Topics.SeedRawDead && errors.Is(err, bus.ErrNoTopic) {
			continue // this topic exists only with a raw topic
		}
		if err != nil {
			failed = errors.Join(failed, err)
			continue
		}
		is.logs[side.topic] = extents[side.topic]
		shown := Side{Name: side.name, Topic: side.topic, PerSecond: new(float64), PerMinute: new(float64)}
		for i, e := range extents[side.topic] {
			shown.Records += e.End - e.Start
			shown.PerSecond = plus(shown.PerSecond, rate(p.last, *is, side.topic, i), 1)
			if len(p.minute) == 0 {
				shown.PerMinute = nil
				continue
			}
			oldest := p.minute[0]
			shown.PerMinute = plus(shown.PerMinute, rate(oldest, *is, side.topic, i), is.at.Sub(oldest.at).Seconds())
		}
		sides = append(sides, shown)
	}
	return sides, failed
}

// plus returns sum + x * times, or nil if one of them is not known.
func plus(sum, x *float64, times float64) *float64 {
	if sum == nil || x == nil {
		return nil
	}
	total := *sum + *x*times
	return &total
}

// sample reads the last frames of some partitions that have new ones.
func (p *Poller) sample(ctx context.Context, logs []bus.Extent) error {
	if p.paths == nil {
		p.paths = make(map[int32]sample)
	}
	for read, i := 0, 0; i < len(logs) && read < samplePartitions; i++ {
		p.sampled = (p.sampled + 1) % len(logs)
		e, at := logs[p.sampled], int32(p.sampled)
		if e.End == e.Start || p.paths[at].end == e.End {
			continue
		}
		read++
		taken := sample{end: e.End, paths: make(map[string]path)}
		err := p.Bus.Read(ctx, p.Topics.SeedMetrics, bus.Range{Partition: at, From: max(e.Start, e.End-sampleRecords), End: e.End}, taken.take)
		if err != nil {
			return err
		}
		if taken.frames == 0 { // if there are only Oona's own records, the paths of the last sample stay
			taken.paths = p.paths[at].paths
		}
		p.paths[at] = taken
	}
	return nil
}

func (s *sample) take(msg *message.Message) error {
	at, err := bus.PositionOf(msg)
	if err != nil {
		return err
	}
	s.records++
	if msg.Metadata.Get(oona.HeaderRecord) != "" {
		return nil
	}
	s.frames++
	name := msg.Metadata.Get(oona.HeaderPath)
	of := s.paths[name]
	of.frames++
	if appended := at.Appended.Time(); appended.After(of.seen) {
		of.seen = appended
	}
	s.paths[name] = of
	return nil
}

// ingests returns the paths in the samples. Their rates are estimates: the share of a path in the
// sample of a partition, times the rate of the partition, summed over the partitions.
func (p *Poller) ingests(partitions []Partition, now time.Time) []Ingest {
	found := make(map[string]*Ingest)
	for partition, s := range p.paths {
		for name, of := range s.paths {
			if now.Sub(of.seen) > pathStays {
				continue
			}
			shown := found[name]
			if shown == nil {
				shown = &Ingest{Name: name, PerSecond: new(float64)}
				found[name] = shown
			}
			if of.seen.After(shown.Seen) {
				shown.Seen = of.seen
			}
			if int(partition) < len(partitions) && s.frames > 0 {
				shown.PerSecond = plus(shown.PerSecond, partitions[partition].PerSecond, float64(of.frames)/float64(s.records))
			}
		}
	}
	var all []Ingest
	for _, shown := range found {
		all = append(all, *shown)
	}
	slices.SortFunc(all, func(x, y Ingest) int { return cmp.Compare(x.Name, y.Name) })
	return all
}
