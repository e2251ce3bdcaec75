// Package aggregate is the stage that folds the records of the seed-metrics
// topic into rollups: one window engine per claim of a partition, rollups and
// side records in an outbox until the bus has acknowledged them.
//
//	record --> decode --> windows.Engine --> outbox --> layer.health, layer.performance
//	              |            |                 +----> late, quarantine, overflow
//	              +------------|----------------------> dead letters
//	                           +-- quiet and windows open --> tick --> (the same partition)
//
// What is committed is the engine's state and the offset from which the open
// windows can be folded again (commit.go): a claim replays from there, and goes
// on. A rollup that was emitted after the commit is emitted again, the same,
// and readers drop it by its trigger.
package aggregate

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"runtime/debug"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/bus"
	"github.com/morphogenetic/oona/pipeline"
	"github.com/morphogenetic/oona/windows"
)

// Config is what the stage must be told.
type Config struct {
	Worker  string // an id, written into ticks
	Topics  oona.Topics
	Windows windows.Config
	Limits  oona.FrameLimits // a frame beyond them goes to the overflow topic
	// FromHere has a partition begin anew, instead of refusing it, where the
	// log's beginning is lost and the group's commit is too, or needs it. It
	// changes nothing for other partitions.
	FromHere bool
	// Retention asks how long the seed-metrics topic keeps a record; 0: for ever.
	// Nil: it is not known.
	Retention func(context.Context) (time.Duration, error)
	// Skip are configurations that no version can read: they are dead letters.
	// All aggregators must be told of them, until no replay comes by.
	Skip []RecordAt
	// Log is asked as a claim begins. Nil: the claim and its commit alone say
	// how it is gone on with, and a loss of the log's end that it has outgrown
	// since is not noticed.
	Log Log
}

// Validate names the first field that is wrong.
func (c Config) Validate() error {
	if err := oona.CheckID("worker", c.Worker); err != nil {
		return err
	}
	return CheckWindows(c.Windows)
}

// Stage owns the engines of the partitions that this worker has claimed.
type Stage struct {
	cfg        Config
	catalogues windows.Catalogues
	publisher  bus.Publisher
	metrics    *metrics
	logger     *slog.Logger

	retention atomic.Int64 // of the seed-metrics topic, nanoseconds; 0: for ever, or not known

	mu         sync.Mutex
	partitions map[*partition]struct{}
	group      bus.Member // nil before Run

	fatal chan error // why the stage must end
}

// New returns a stage that publishes to publisher, whose Close stays the
// caller's. The catalogues give each metric its group and direction.
func New(cfg Config, catalogues windows.Catalogues, publisher bus.Publisher, registerer prometheus.Registerer, logger *slog.Logger) (*Stage, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("aggregate: %w", err)
	}
	s := &Stage{
		cfg:        cfg,
		catalogues: catalogues,
		publisher:  publisher,
		logger:     logger,
		partitions: make(map[*partition]struct{}),
		fatal:      make(chan error, 1),
	}
	s.metrics = newMetrics(s)
	if err := registerer.Register(s.metrics); err != nil {
		return nil, fmt.Errorf("aggregate: register metrics: %w", err)
	}
	return s, nil
}

// Run reads the seed-metrics topic as a member of group until ctx ends.
func (s *Stage) Run(ctx context.Context, group bus.Member) error {
	router, err := pipeline.NewRouter(s.logger)
	if err != nil {
		return err
	}
	s.mu.Lock()
	s.group = group
	s.mu.Unlock()
	router.AddConsumerHandler("aggregate", s.cfg.Topics.SeedMetrics, group, s.handle)
	running, ctx := errgroup.WithContext(ctx)
	running.Go(func() error {
		if err := router.Run(ctx); err != nil {
			return fmt.Errorf("read %s: %w", s.cfg.Topics.SeedMetrics, err)
		}
		if ctx.Err() == nil {
			s.end(ended(group))
		}
		return nil
	})
	running.Go(func() error { return s.writeTicks(ctx) })
	running.Go(func() error { s.followRetention(ctx); return nil })
	running.Go(func() error {
		select {
		case err := <-s.fatal:
			return err
		case <-ctx.Done():
			return nil
		}
	})
	return running.Wait()
}

// errEnded: the group has ended its messages by itself.
var errEnded = errors.New("the subscription to the seed-metrics topic has ended")

func ended(group bus.Member) error {
	if err := group.Joined(); err != nil {
		return err
	}
	return errEnded
}

// own adds a partition to those of the stage.
func (s *Stage) own(p *partition) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.partitions[p] = struct{}{}
}

// disown takes a partition out of those of the stage. Its open windows are
// dropped: the partition's next owner folds them from the log.
func (s *Stage) disown(p *partition) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.partitions, p)
}

// end makes Run return with err, if nothing else has before.
func (s *Stage) end(err error) {
	select {
	case s.fatal <- err:
	default: // one reason is enough
	}
}

// handle folds one record. An error makes Watermill deliver the record again:
// the partition recognises it and only retries its outbox.
//
// A panic is a bug, and leaves an engine that nobody should fold with: the
// stage ends, and its successor goes on from the commit.
func (s *Stage) handle(msg *message.Message) (err error) {
	at, err := bus.PositionOf(msg)
	if err != nil {
		return err
	}
	defer func() {
		if bug := recover(); bug != nil {
			err = fmt.Errorf("panic at partition %d, offset %d: %v\n%s", at.Partition, at.Offset, bug, debug.Stack())
			s.end(err)
		}
	}()
	p, ours := at.Consumer.(*partition)
	if !ours {
		return errNotAssigned
	}
	if p.revoked.Load() {
		return nil // while the record was on its way: the partition's next owner reads it
	}
	return p.handle(msg, at)
}

// errNotAssigned is returned for a message that was not read as one of an
// assignment of this stage.
var errNotAssigned = errors.New("the message is of no assignment of this stage")

// Why a stage is not ready.
var (
	errNotRunning = errors.New("the seed-metrics topic is not subscribed to yet")
	errCatchingUp = errors.New("catching up")
	errUnheard    = errors.New("the leader does not say where the log ends")
	errStalled    = errors.New("records wait in the log and do not come")
)

// Ready returns nil while the stage is a member of its group, once every claimed
// partition has been folded up to where its log ended when the claim began,
// while the partitions' leaders say where they end and what they hold comes, and
// while the bus takes what comes of it. A member without partitions is ready: it
// stands by for those of others.
func (s *Stage) Ready() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.group == nil {
		return errNotRunning
	}
	if err := s.group.Joined(); err != nil {
		return err
	}
	for p := range s.partitions {
		if err := p.ready(); err != nil {
			return err
		}
	}
	return nil
}

// owned returns the claimed partitions, in no order.
func (s *Stage) owned() []*partition {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Collect(maps.Keys(s.partitions))
}
