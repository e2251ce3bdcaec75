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
	publisher  message.Publisher
	metrics    *metrics
	logger     *slog.Logger

	retention atomic.Int64 // of the seed-metrics topic, nanoseconds; 0: for ever, or not known

	mu         sync.Mutex
	partitions map[string]*partition // by claim id
	group      Group                 // nil before Run

	fatal chan error // why the stage must end
}

// New returns a stage that publishes to publisher, whose Close stays the
// caller's. The catalogues give each metric its group and direction.
func New(cfg Config, catalogues windows.Catalogues, publisher message.Publisher, registerer prometheus.Registerer, logger *slog.Logger) (*Stage, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("aggregate: %w", err)
	}
	s := &Stage{
		cfg:        cfg,
		catalogues: catalogues,
		publisher:  publisher,
		logger:     logger,
		partitions: make(map[string]*partition),
		fatal:      make(chan error, 1),
	}
	s.metrics = newMetrics(s)
	if err := registerer.Register(s.metrics); err != nil {
		return nil, fmt.Errorf("aggregate: register metrics: %w", err)
	}
	return s, nil
}

// Group is a subscriber that shares the topic's partitions with other workers.
// It opens and closes the stage's claims around their messages. Joined returns
// nil while it is a member of the group and all that it was assigned, which may
// be nothing, is open, and else why not. Where it cannot be one any more, its
// messages end.
type Group interface {
	message.Subscriber
	Joined() error
}

// Run reads the seed-metrics topic as a member of group until ctx ends.
func (s *Stage) Run(ctx context.Context, group Group) error {
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

func ended(group Group) error {
	if err := group.Joined(); err != nil {
		return err
	}
	return errEnded
}

// Open begins a claim with an engine of its own, made from the commit: nothing
// is carried over from an earlier claim of this worker. A claim that must not be
// opened ends the stage; where that is not known now, the caller tries again.
func (s *Stage) Open(ctx context.Context, claim oona.Claim) error {
	engine, lost, err := s.engine(ctx, claim)
	if err != nil && !isFinal(err) {
		return fmt.Errorf("open partition %d: %w", claim.Partition, err)
	}
	if err != nil {
		err = fmt.Errorf("open a partition: %w", err)
		s.end(err)
		return err
	}
	p := newPartition(s, claim, engine)
	p.noteLoss(lost)
	p.compareSettings("the partition goes on with the windows of its commit, not with this worker's settings")
	s.mu.Lock()
	defer s.mu.Unlock()
	s.partitions[claim.ID] = p
	s.metrics.claims.Inc()
	s.logger.Info("partition claimed", "topic", claim.Topic, "partition", claim.Partition, "from", claim.Start, "to", claim.HighWater, "replays", engine.Replaying())
	return nil
}

// Close ends a claim. Its open windows are dropped: whoever claims the
// partition next folds them from the log.
func (s *Stage) Close(claim oona.Claim) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.partitions, claim.ID)
	s.logger.Info("partition released", "topic", claim.Topic, "partition", claim.Partition)
}

// Commit returns what may be committed of a claim. See bus.Owner.
func (s *Stage) Commit(claim oona.Claim) (oona.Commit, bool) {
	p := s.partition(claim.ID)
	if p == nil {
		return oona.Commit{}, false
	}
	return p.commit()
}

// Committed notes what became of a commit.
func (s *Stage) Committed(claim oona.Claim, c oona.Commit, err error) {
	if p := s.partition(claim.ID); p != nil {
		p.committed(c, err)
	}
}

// Ends notes where the log of a claim's partition ends.
func (s *Stage) Ends(claim oona.Claim, offset int64) {
	if p := s.partition(claim.ID); p != nil {
		p.ends(offset)
	}
}

// end makes Run return with err, if nothing else has before.
func (s *Stage) end(err error) {
	select {
	case s.fatal <- err:
	default: // one reason is enough
	}
}

func (s *Stage) partition(claim string) *partition {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.partitions[claim]
}

// handle folds one record. An error makes Watermill deliver the record again:
// the partition recognises it and only retries its outbox.
//
// A panic is a bug, and leaves an engine that nobody should fold with: the
// stage ends, and its successor goes on from the commit.
func (s *Stage) handle(msg *message.Message) (err error) {
	defer func() {
		if bug := recover(); bug != nil {
			err = fmt.Errorf("panic at partition %s, offset %s: %v\n%s", msg.Metadata.Get(oona.MetaPartition), msg.Metadata.Get(oona.MetaOffset), bug, debug.Stack())
			s.end(err)
		}
	}()
	p := s.partition(msg.Metadata.Get(oona.MetaClaim))
	if p == nil {
		// The claim has ended while the record was on its way: the partition's
		// next owner reads it.
		return nil
	}
	return p.handle(msg)
}

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
	for _, p := range s.partitions {
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
	return slices.Collect(maps.Values(s.partitions))
}
