// Package remotewrite is the stage that sends rollups to a Prometheus, or to another
// receiver of the remote-write protocol 1.0. Each rollup becomes samples with the end of
// its window as their time.
//
//	layer.health ------> ack --> decode --> rollups.Reader --> [waits] --> request --> commit
//	layer.performance --^                        |                           |
//	                             repeats, conflicts and what is          refused samples are
//	                             beyond a limit are counted              skipped and counted
//
// The partitions of both topics are shared by the members of one consumer group. A record
// is acked when it is decoded, and committed when the receiver has answered for its
// samples. So nothing is lost if the receiver or an exporter is killed. After that, some
// samples are sent again: the same series with the same times and values.
//
// The series of a layer are in one partition of a topic, and a partition has at most one
// request in flight. So the samples of a series arrive in the order of the topic.
package remotewrite

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sync/semaphore"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/bus"
	"github.com/morphogenetic/oona/pipeline"
)

// Stage is the bus.Owner of the partitions of both rollup topics.
type Stage struct {
	cfg      Config
	receiver receiver
	limits   *limits
	metrics  *metrics
	logger   *slog.Logger
	requests *semaphore.Weighted // in flight, of all partitions

	// noHistogramsUntil is when histograms are sent again, in Unix nanoseconds. The
	// receiver has said that it does not store them.
	noHistogramsUntil atomic.Int64

	pushing    sync.WaitGroup // one goroutine per partition
	mu         sync.Mutex
	ended      bool // Run has ended
	partitions map[*pusher]struct{}
}

// MaxRequests is how many requests may be in flight.
const MaxRequests = 8

// New returns a stage.
func New(cfg Config, registerer prometheus.Registerer, logger *slog.Logger) (*Stage, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("remote write: %w", err)
	}
	s := &Stage{
		cfg: cfg,
		receiver: receiver{
			url:           cfg.URL,
			authorization: cfg.Authorization,
			client:        &http.Client{Transport: cfg.Transport, CheckRedirect: noRedirect, Timeout: requestTimeout},
		},
		limits:     newLimits(cfg),
		logger:     logger,
		requests:   semaphore.NewWeighted(MaxRequests),
		partitions: make(map[*pusher]struct{}),
	}
	s.metrics = newMetrics(s)
	if err := registerer.Register(s.metrics); err != nil {
		return nil, fmt.Errorf("remote write: register metrics: %w", err)
	}
	return s, nil
}

// errRunEnded is returned by Assign after Run.
var errRunEnded = errors.New("the stage has ended")

// groups are the groups of rollups, as they are numbered.
var groups = [...]oona.Group{oona.Health, oona.Performance}

// errEnded is returned if a member of the group has ended before the context.
var errEnded = errors.New("the member of the consumer group has ended by itself")

// Run sends the rollups of partitions that are assigned to the members until ctx ends.
// There is one member for each group of rollups, as a member reads one topic. Run returns
// when no request is in flight any more. It fails if a member ends by itself, as when
// another exporter has its instance.
func (s *Stage) Run(ctx context.Context, members [2]bus.Member) error {
	router, err := pipeline.NewRouter(s.logger)
	if err != nil {
		return err
	}
	s.mu.Lock()
	s.ended = false
	s.mu.Unlock()
	group, inner := errgroup.WithContext(ctx)
	for _, g := range groups {
		topic := s.cfg.Topics.Rollup(g)
		handler := router.AddConsumerHandler("remote write "+g.String(), topic, members[g], s.handle)
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
			return fmt.Errorf("remote write: %s: %w", topic, errors.Join(errEnded, members[g].Joined()))
		})
	}
	group.Go(func() error {
		if err := router.Run(inner); err != nil {
			return fmt.Errorf("remote write: %w", err)
		}
		return nil
	})
	err = group.Wait()
	s.mu.Lock()
	s.ended = true
	for p := range s.partitions {
		p.end()
	}
	s.mu.Unlock()
	s.pushing.Wait()
	return err
}

// errNotAssigned is returned for a message of an assignment that is not this stage's.
var errNotAssigned = errors.New("the message belongs to no assignment of this stage")

// handle is the handler of records.
func (s *Stage) handle(msg *message.Message) error {
	at, err := bus.PositionOf(msg)
	if err != nil {
		return err
	}
	p, ours := at.Consumer.(*pusher)
	if !ours {
		return errNotAssigned
	}
	p.take(msg, at)
	return nil
}

// Assign begins an assignment. Without a commit, it begins at the oldest record.
func (s *Stage) Assign(_ context.Context, a bus.Assignment) (from int64, _ bus.Consumer, err error) {
	from, held := a.Resume()
	lost := int64(0)
	switch {
	case held:
	case from > a.Committed.Offset:
		lost = from - a.Committed.Offset
		s.logger.Error("rollups were deleted before they were sent to the remote-write receiver; increase the retention of their topic",
			"topic", a.Topic, "partition", a.Partition, "records", lost, "from", a.Committed.Offset, "to", from)
	case !a.Settled:
		return 0, nil, bus.ErrShort
	default:
		s.logger.Error("a rollup topic has lost records at its end; its remaining records are sent again",
			"topic", a.Topic, "partition", a.Partition, "committed", a.Committed.Offset, "ends", a.LogEnd)
	}
	p := newPusher(s, a, from)
	p.lost, p.moved = lost, !held // else a later owner could begin at the old commit once the log has grown past it
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended {
		return 0, nil, errRunEnded
	}
	s.partitions[p] = struct{}{}
	s.divide()
	s.pushing.Go(p.push)
	s.logger.Info("partition assigned", "topic", a.Topic, "partition", a.Partition, "from", from, "to", a.LogEnd)
	return from, p, nil
}

// waitingBytes bounds the encoded size of the records that wait, of all partitions. Each
// partition has an equal part, and may always have one record.
const waitingBytes = 16 << 20

func (s *Stage) divide() {
	each := int64(waitingBytes / max(len(s.partitions), 1))
	for p := range s.partitions {
		p.room.Store(each)
	}
}

// each calls do for each assigned partition.
func (s *Stage) each(do func(*pusher)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for p := range s.partitions {
		do(p)
	}
}

// histograms reports whether the receiver may be sent histograms now.
func (s *Stage) histograms() bool { return time.Now().UnixNano() >= s.noHistogramsUntil.Load() }

// Note is a line for people that says whether the receiver takes samples.
func (s *Stage) Note() string { return s.metrics.note(time.Now()) }
