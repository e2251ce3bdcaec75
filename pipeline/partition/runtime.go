package partition

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

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"

	"github.com/morphogenetic/oona/bus"
	"github.com/morphogenetic/oona/pipeline"
)

// Runtime owns the machines of the partitions that are assigned to this worker. It is
// a bus.Owner.
type Runtime struct {
	cfg       Config
	publisher bus.Publisher
	metrics   *metrics
	logger    *slog.Logger

	retention atomic.Int64 // retention of the topic in nanoseconds; 0 if it is unlimited or not known

	mu     sync.Mutex
	held   map[*assignment]struct{}
	member bus.Member // nil before Run

	fatal chan error // receives the error with which the worker ends
}

// New returns a runtime that publishes to publisher. The caller closes the publisher.
func New(cfg Config, publisher bus.Publisher, registerer prometheus.Registerer, logger *slog.Logger) (*Runtime, error) {
	r := &Runtime{
		cfg:       cfg,
		publisher: publisher,
		logger:    logger,
		held:      make(map[*assignment]struct{}),
		fatal:     make(chan error, 1),
	}
	r.metrics = newMetrics(r)
	if err := registerer.Register(r.metrics); err != nil {
		return nil, fmt.Errorf("%s: register metrics of partitions: %w", cfg.Name, err)
	}
	return r, nil
}

// Assign opens a machine for a partition. Nothing of an earlier assignment is reused.
// See bus.Owner.
func (r *Runtime) Assign(ctx context.Context, a bus.Assignment) (from int64, _ bus.Consumer, err error) {
	opened, err := r.cfg.Open(ctx, a)
	if err != nil {
		if !errors.Is(err, bus.ErrShort) && r.cfg.Refuses(err) {
			r.end(fmt.Errorf("read partition %d: %w", a.Partition, err))
		}
		return 0, nil, err
	}
	p := newAssignment(r, a, opened)
	r.mu.Lock()
	r.held[p] = struct{}{}
	r.mu.Unlock()
	r.metrics.assigned.Inc()
	r.logger.Info("partition assigned", "topic", a.Topic, "partition", a.Partition, "from", opened.From, "to", a.LogEnd, "replays", opened.Machine.Replaying())
	return opened.From, p, nil
}

// release forgets an assignment and its machine. The partition's next owner folds
// the log from the commit.
func (r *Runtime) release(p *assignment) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.held, p)
	r.logger.Info("partition released", "topic", p.about.Topic, "partition", p.about.Partition)
}

// Run folds the topic as a member of a group until ctx ends.
func (r *Runtime) Run(ctx context.Context, member bus.Member) error {
	router, err := pipeline.NewRouter(r.logger)
	if err != nil {
		return err
	}
	r.mu.Lock()
	r.member = member
	r.mu.Unlock()
	router.AddConsumerHandler(r.cfg.Name, r.cfg.Topic, member, r.handle)
	running, ctx := errgroup.WithContext(ctx)
	running.Go(func() error {
		if err := router.Run(ctx); err != nil {
			return fmt.Errorf("read %s: %w", r.cfg.Topic, err)
		}
		if ctx.Err() == nil {
			r.end(ended(member))
		}
		return nil
	})
	running.Go(func() error { return r.writeTicks(ctx) })
	running.Go(func() error { r.followRetention(ctx); return nil })
	running.Go(func() error {
		select {
		case err := <-r.fatal:
			return err
		case <-ctx.Done():
			return nil
		}
	})
	return running.Wait()
}

// errEnded is returned if the member has closed its subscription.
var errEnded = errors.New("the subscription has ended")

func ended(member bus.Member) error {
	if err := member.Joined(); err != nil {
		return err
	}
	return errEnded
}

// end makes Run return err, unless there was an error before.
func (r *Runtime) end(err error) {
	select {
	case r.fatal <- err:
	default: // the first error is returned
	}
}

// errNotAssigned is returned for a message whose Consumer is not an assignment.
var errNotAssigned = errors.New("the message does not belong to an assignment of this worker")

// ErrPanic is wrapped by the error with which Run returns after Machine.Fold has
// panicked.
var ErrPanic = errors.New("a record made the fold panic")

// handle folds one record. After an error Watermill delivers the record again, and
// the assignment only retries its outbox.
//
// A panic is a bug, and afterwards the state of the machine may be wrong. So the worker
// ends, and the next owner of the partition folds the record again, starting from the
// last commit.
func (r *Runtime) handle(msg *message.Message) (err error) {
	at, err := bus.PositionOf(msg)
	if err != nil {
		return err
	}
	defer func() {
		if bug := recover(); bug != nil {
			err = fmt.Errorf("%w: %s/%d at offset %d: %v. This is a bug of Oona: please report it. Nothing is lost: the next owner of the partition folds the record again. If it panics there too, docs/operations.md says what to do (OonaPartitionUnowned)\n%s",
				ErrPanic, at.Topic, at.Partition, at.Offset, bug, debug.Stack())
			r.end(err)
		}
	}()
	p, ours := at.Consumer.(*assignment)
	if !ours {
		return errNotAssigned
	}
	if p.revoked.Load() {
		return nil // the partition's next owner reads the record
	}
	return p.handle(msg, at)
}

// errNotRunning is returned by Ready before Run.
var errNotRunning = errors.New("the topic is not subscribed to yet")

// Ready returns nil if the worker is a member of its group and every partition that
// is assigned to it is ready: it is folded up to the end that its log had when it was
// assigned, its leader answers, its records are delivered, and its output is
// published. A member without partitions is ready, as a stand-by.
func (r *Runtime) Ready() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.member == nil {
		return errNotRunning
	}
	if err := r.member.Joined(); err != nil {
		return err
	}
	for p := range r.held {
		if err := p.ready(); err != nil {
			return err
		}
	}
	return nil
}

// Each calls do with the machine of each assigned partition, in no particular order,
// except those that have failed. The machine folds nothing during the call.
func (r *Runtime) Each(do func(partition int32, m Machine)) {
	for _, p := range r.assignments() {
		p.mu.Lock()
		if !p.failed.Load() {
			do(p.about.Partition, p.machine)
		}
		p.mu.Unlock()
	}
}

// Counts are sums over the partitions that are assigned.
type Counts struct {
	Open    int64 // Pace.Open
	Pending int64 // messages that the bus has not acknowledged
	Next    int64 // sum of the offsets after the last records that were folded
}

// Counts returns the current sums.
func (r *Runtime) Counts() Counts {
	var c Counts
	for _, p := range r.assignments() {
		c.Next += p.next.Load()
		c.Pending += p.pending.Load()
		c.Open += p.open.Load()
	}
	return c
}

func (r *Runtime) assignments() []*assignment {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Collect(maps.Keys(r.held))
}
