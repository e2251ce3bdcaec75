// Package mirror is the stage that copies rollups and the frames of side topics to topics
// of another prefix, where each value has the framing of a schema registry. It is for
// programs that read only such values. Oona's own topics stay as they are.
//
//	layer.health ... --> ack --> reframe --> [waits] --> publish --> commit
//	                                |
//	                                +-- a value of no published schema: counted, logged, left out
//
// The partitions of a topic are shared by the members of one consumer group. A copy has
// the partition, the key, the headers and the time of its record, and its place
// (oona.HeaderMirroredFrom). Copies are in the order of their records. Whoever gets a
// partition looks at the last copy in it, so a record is copied again only if two
// processes believe for a moment that the partition is theirs.
package mirror

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"

	"github.com/ThreeDotsLabs/watermill/message"
	"golang.org/x/sync/errgroup"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/bus"
	"github.com/morphogenetic/oona/pipeline"
)

// Pair is a topic that is copied, and the topic of the copies.
type Pair struct {
	From, To string
	Record   string // name of the schema of its records

	// IDs has the number of each version of the schema in the registry, by fingerprint.
	IDs map[uint64]int32
}

// Pairs returns the topics that can be copied: rollups, and side topics with frames. Dead
// letters cannot, as they need not be Avro.
func Pairs(from, to oona.Topics) []Pair {
	const frame, health, performance = "kasmina.telemetry.SeedMetrics", "kasmina.telemetry.LayerHealth", "kasmina.telemetry.LayerPerformance"
	return []Pair{
		{From: from.LayerHealth, To: to.LayerHealth, Record: health},
		{From: from.LayerPerformance, To: to.LayerPerformance, Record: performance},
		{From: from.Late, To: to.Late, Record: frame},
		{From: from.Quarantine, To: to.Quarantine, Record: frame},
		{From: from.Overflow, To: to.Overflow, Record: frame},
	}
}

// Stage is the bus.Owner of the partitions of all topics that are copied.
type Stage struct {
	bus       bus.Admin
	publisher bus.Publisher
	logger    *slog.Logger
	pairs     map[string]*Pair // by From
	copied    atomic.Int64
	left      atomic.Int64

	copying    sync.WaitGroup // one goroutine per partition
	mu         sync.Mutex
	ended      bool
	partitions map[*partition]struct{}
}

// New returns a stage for these topics. The caller closes the publisher.
func New(pairs []Pair, b bus.Admin, publisher bus.Publisher, logger *slog.Logger) *Stage {
	s := &Stage{bus: b, publisher: publisher, logger: logger, pairs: make(map[string]*Pair), partitions: make(map[*partition]struct{})}
	for i := range pairs {
		s.pairs[pairs[i].From] = &pairs[i]
	}
	return s
}

// Counts returns how many records were copied, and how many were left out.
func (s *Stage) Counts() (copied, left int64) { return s.copied.Load(), s.left.Load() }

// Errors of a stage.
var (
	errEnded       = errors.New("the member of the consumer group has ended by itself")
	errRunEnded    = errors.New("the stage has ended")
	errNotAssigned = errors.New("the message belongs to no assignment of this stage")
)

// Run copies the records of the partitions that are assigned to the members, one for each
// topic, until ctx ends or one of them ends by itself. It returns when nothing is being
// published any more.
func (s *Stage) Run(ctx context.Context, members map[string]bus.Member) error {
	router, err := pipeline.NewRouter(s.logger)
	if err != nil {
		return err
	}
	group, inner := errgroup.WithContext(ctx)
	for topic, member := range members {
		handler := router.AddConsumerHandler("mirror "+topic, topic, member, s.handle)
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
			return fmt.Errorf("mirror %s: %w", topic, errors.Join(errEnded, member.Joined()))
		})
	}
	group.Go(func() error {
		if err := router.Run(inner); err != nil {
			return fmt.Errorf("mirror: %w", err)
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
	s.copying.Wait()
	return err
}

// handle is the handler of records.
func (s *Stage) handle(msg *message.Message) error {
	at, err := bus.PositionOf(msg)
	if err != nil {
		return err
	}
	p, ours := at.Consumer.(*partition)
	if !ours {
		return errNotAssigned
	}
	p.take(msg, at)
	return nil
}

// Assign begins an assignment. Without a commit, it begins at the oldest record. With one,
// it begins after the last record that has a copy, if that is later.
func (s *Stage) Assign(ctx context.Context, a bus.Assignment) (from int64, _ bus.Consumer, err error) {
	pair := s.pairs[a.Topic]
	from, held := a.Resume()
	switch {
	case held && a.Committed.Offset != bus.NoOffset:
		after, err := s.copiedTo(ctx, pair, a)
		if err != nil {
			return 0, nil, err
		}
		from = max(from, after)
	case held:
	case from > a.Committed.Offset:
		s.logger.Error("records were deleted before they were copied; increase the retention of their topic, or keep the mirror running",
			"topic", a.Topic, "partition", a.Partition, "records", from-a.Committed.Offset, "from", a.Committed.Offset, "to", from)
	case !a.Settled:
		return 0, nil, bus.ErrShort
	default:
		s.logger.Error("a topic has lost records at its end; its remaining records are copied again",
			"topic", a.Topic, "partition", a.Partition, "committed", a.Committed.Offset, "ends", a.LogEnd)
	}
	p := newPartition(s, pair, a, from, !held)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended {
		return 0, nil, errRunEnded
	}
	s.partitions[p] = struct{}{}
	s.copying.Go(p.copy)
	s.logger.Info("partition assigned", "topic", a.Topic, "partition", a.Partition, "from", from, "to", a.LogEnd)
	return from, p, nil
}

// copiedTo returns the offset after the last record that has a copy, or 0 if the topic of
// the copies does not tell.
func (s *Stage) copiedTo(ctx context.Context, pair *Pair, a bus.Assignment) (int64, error) {
	last, err := bus.LastRecord(ctx, s.bus, pair.To, a.Partition)
	if err != nil || last == nil {
		return 0, err
	}
	topic, partition, offset, ok := parsePlace(last.Metadata.Get(oona.HeaderMirroredFrom))
	if !ok || topic != a.Topic || partition != a.Partition || offset >= a.LogEnd {
		return 0, nil
	}
	return offset + 1, nil
}
