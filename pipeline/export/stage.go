// Package export is the stage that shows rollups to Prometheus.
//
//	layer.health ------> decode --> rollups.Reader --> store <-- Collect <-- /metrics
//	layer.performance --^              |                 |
//	                              drops repeats          +-- per run, layer and metric: sums since the
//	                              and conflicts              exporter began, and the last closed window
//
// Sums (counters and histograms) are of the rollups that came after the point
// where the log ended when the exporter began: Prometheus has the earlier ones
// from the exporter's previous life, and to add them again would show as a
// burst in every rate. What the log holds before that point, as far back as it
// is read, restores everything else: the last windows, which layers are there,
// and the trigger up to which a restarted aggregator's rollups are repeats.
//
// A layer whose last rollup or whose last window's end is older than
// Config.SilentAfter disappears, and its place under the caps is free. When it
// comes back its sums begin at 0 with a new created timestamp, which rate()
// takes for the reset that it is.
package export

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/bus"
	"github.com/morphogenetic/oona/internal/catalogue"
	"github.com/morphogenetic/oona/internal/tracing"
	"github.com/morphogenetic/oona/pipeline"
	"github.com/morphogenetic/oona/pipeline/layerseries"
	"github.com/morphogenetic/oona/rollups"
)

// Stage keeps the exposed values, and is registered as their collector.
type Stage struct {
	cfg     Config
	log     bus.Reader
	rollups rollups.Reader
	store   *store
	metrics *metrics
	logger  *slog.Logger
	begun   atomic.Bool // Run was called

	mu         sync.Mutex
	partitions map[place]*partition
	ends       map[place]*end
}

// place is a partition of one group's topic.
type place struct {
	group     oona.Group
	partition int32
}

// New returns a stage that reads from log. The caller closes log. The catalogue says what
// is judged of each metric. Its help texts become the help of the histograms. Several
// collectors are registered, so that a registerer may gather them one by one.
func New(cfg Config, log bus.Reader, known *catalogue.Catalogue, registerer prometheus.Registerer, logger *slog.Logger) (*Stage, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("export: %w", err)
	}
	s := &Stage{cfg: cfg, log: log, metrics: newMetrics(), logger: logger, partitions: make(map[place]*partition), ends: make(map[place]*end)}
	s.store = newStore(cfg, known.Rule, s.metrics.fold)
	if err := s.register(known, registerer); err != nil {
		return nil, fmt.Errorf("export: register metrics: %w", err)
	}
	return s, nil
}

// register registers the collectors.
func (s *Stage) register(known *catalogue.Catalogue, registerer prometheus.Registerer) error {
	own := &collector{
		store:    s.store,
		families: newFamilies(known),
		bounds:   make([]bound, len(s.cfg.Buckets)),
		metrics:  s.metrics,
		stage:    s,
		ranks:    make(pairs, s.cfg.WorstSeeds),
	}
	for i, le := range s.cfg.Buckets {
		own.bounds[i] = newBound(le)
	}
	for i := range own.ranks {
		own.ranks[i] = pair(labelRank, strconv.Itoa(i+1))
	}
	collectors := []prometheus.Collector{own}
	for _, g := range groups {
		collectors = append(collectors, &groupCollector{own, g, true}, &groupCollector{own, g, false})
	}
	for _, c := range collectors {
		if err := registerer.Register(c); err != nil {
			return err
		}
	}
	return nil
}

// errLogEnded is returned if a topic's channel was closed before the context ended.
var errLogEnded = errors.New("the log reader has ended by itself")

// Run reads both rollup topics until ctx ends or one of them cannot be read on:
// half of what is shown would stand still.
func (s *Stage) Run(ctx context.Context) error {
	s.begun.Store(true)
	router, err := pipeline.NewRouter(s.logger)
	if err != nil {
		return err
	}
	group, inner := errgroup.WithContext(ctx)
	for _, g := range groups {
		topic := s.cfg.Topics.Rollup(g)
		handler := router.AddConsumerHandler("export "+g.String(), topic, kept{s.log}, s.handler(g))
		group.Go(func() error {
			select {
			case <-router.Running():
			case <-inner.Done():
				return nil
			}
			<-handler.Stopped()
			if inner.Err() != nil {
				return nil
			}
			return fmt.Errorf("export: %s: %w", topic, errLogEnded)
		})
	}
	group.Go(func() error {
		if err := router.Run(inner); err != nil {
			return fmt.Errorf("export: %w", err)
		}
		return nil
	})
	return group.Wait()
}

// kept is a log that a router does not close: its two handlers share it, and
// each might.
type kept struct{ bus.Reader }

func (kept) Close() error { return nil }

// groups are the groups of rollups, as they are numbered.
var groups = [...]oona.Group{oona.Health, oona.Performance}

// handler reads the records of a group's topic. It never fails: a redelivery
// would bring the same bytes.
func (s *Stage) handler(g oona.Group) message.NoPublishHandlerFunc {
	return func(msg *message.Message) error {
		at, err := bus.PositionOf(msg)
		if err != nil {
			s.drop(g, err)
			return nil
		}
		partition, offset := at.Partition, at.Offset
		p := s.partition(place{g, partition})
		a := s.arrive(g, msg, at)
		fresh := offset >= p.highWater
		if a.rollup, a.err = layerseries.Decode(g, msg.Payload); a.err != nil {
			s.drop(g, a.err, "partition", partition, "offset", offset)
		} else if a.outcome = s.take(a.rollup, partition, offset, msg.Metadata.Get(oona.HeaderTraceparent)); a.outcome == rollups.New && !s.store.fold(a.rollup, at.Appended.Time(), fresh, time.Now()) {
			s.metrics.stale[g].Add(1)
		}
		if fresh {
			s.traced(&a)
		}
		p.next.Store(offset + 1)
		return nil
	}
}

// take returns whether a rollup was read before. It counts rollups that are dropped, and logs those
// that are not only repeats.
func (s *Stage) take(r *oona.Rollup, partition int32, offset int64, traceparent string) rollups.Outcome {
	found := s.rollups.Read(partition, r)
	n := s.metrics.outcomes[found.Outcome][r.Group].Add(1)
	where := []any{"topic", s.cfg.Topics.Rollup(r.Group), "partition", partition, "offset", offset}
	if found.Begins {
		s.metrics.incarnations[r.Group].Add(1)
		s.logger.Info("a new incarnation of the log begins", append(where, "trigger", triggerText(r.Trigger), "highest_before", triggerText(found.Highest))...)
	}
	if found.Outcome == rollups.New || found.Outcome == rollups.Repeat || n&(n-1) != 0 {
		return found.Outcome
	}
	where = append(where, "run", r.Run, "layer", r.Layer, "start", r.Start.Time(), "end", r.End.Time(),
		"hash", fmt.Sprintf("%016x", r.Hash), "trigger", triggerText(r.Trigger), "highest", triggerText(found.Highest), "count", n)
	logger := s.logger
	if c, ok := tracing.Parse(traceparent); ok {
		logger = logger.With("trace_id", c.Trace.String())
	}
	switch found.Outcome {
	case rollups.Conflict:
		logger.Error("dropped a rollup: its window was read with another content before; are all aggregators alike?", where...)
	case rollups.Remade:
		logger.Warn("dropped a rollup: its window was read before, of other records; the log was made again or has lost its end", where...)
	case rollups.Behind:
		logger.Error("dropped a rollup that is not a repeat: the log was made again or has lost its end; `oona topics check` and `oona topics apply` help", where...)
	}
	return found.Outcome
}

func triggerText(t oona.Trigger) string {
	return fmt.Sprintf("incarnation %d, offset %d, index %d", t.Incarnation, t.Offset, t.Index)
}

// drop counts a record that is not a rollup, and logs the 1st, 2nd, 4th, 8th and so
// on. It writes no dead letter: the record stays where it is, and every replica would
// write one at each start.
func (s *Stage) drop(g oona.Group, err error, where ...any) {
	n := s.metrics.undecodable[g].Add(1)
	if n&(n-1) == 0 {
		s.logger.Warn("skipped a record that is not a rollup", append(where, "topic", s.cfg.Topics.Rollup(g), "err", err, "count", n)...)
	}
}

func (s *Stage) partition(at place) *partition {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.partitions[at]
	if p == nil {
		p = new(partition)
		for _, c := range s.log.Ranges(s.cfg.Topics.Rollup(at.group)) {
			if c.Partition == at.partition {
				p.highWater = c.End
			}
		}
		s.partitions[at] = p
	}
	return p
}

// positions calls do with the offset after the last record read of each
// partition that had one.
func (s *Stage) positions(do func(topic string, partition int32, next int64)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for at, p := range s.partitions {
		do(s.cfg.Topics.Rollup(at.group), at.partition, p.next.Load())
	}
}

// caughtUp reports whether a stage that runs is ready.
func (s *Stage) caughtUp() bool { return s.begun.Load() && s.Ready() == nil }

// errCatchingUp is why a stage is not ready.
var errCatchingUp = errors.New("catching up")

// Ready returns nil once every partition has been read up to where its log
// ended when the stage began.
func (s *Stage) Ready() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, g := range groups {
		topic := s.cfg.Topics.Rollup(g)
		ranges := s.log.Ranges(topic)
		if len(ranges) == 0 {
			return fmt.Errorf("%w: %s is not subscribed to yet", errCatchingUp, topic)
		}
		for _, c := range ranges {
			next := c.From
			if p := s.partitions[place{g, c.Partition}]; p != nil {
				next = p.next.Load()
			}
			if next < c.End {
				return fmt.Errorf("%w: %s/%d is at offset %d of %d", errCatchingUp, topic, c.Partition, next, c.End)
			}
		}
	}
	return nil
}
