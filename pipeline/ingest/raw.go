package ingest

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"sync"
	"sync/atomic"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/semaphore"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/bus"
	"github.com/morphogenetic/oona/pipeline"
)

// Raw is the stage that takes frames from the raw topic, where trainers that
// speak Kafka publish them, and forwards each as one record of the seed-metrics
// topic: validated, and with tensors checked in, as a [Stage] does with requests.
//
//	record --> ack --> decode --> validate --> [batch] --> tensors --> publish --> commit
//	                      |          |                        |           |
//	                      +----------+--- dead letters <------+           +-- down: tried again, in order
//
// Of each partition the bus hands out one record at a time, so a record is acked
// once it is decoded, and committed once what comes of it is acknowledged: those
// that come while a batch is on its way are the next. A record that is forwarded
// twice is folded once, as its frames keep their producer's sequence.
//
// Raw is the bus.Owner of the partitions.
type Raw struct {
	intake  *intake
	topics  oona.Topics
	metrics *rawMetrics
	logger  *slog.Logger
	memory  *share              // of all partitions
	each    atomic.Int64        // what of it is a partition's own
	large   *semaphore.Weighted // what of it is for records that are larger than that

	forwarding sync.WaitGroup // a goroutine a partition
	mu         sync.Mutex
	partitions map[*rawPartition]struct{}
}

// NewRaw returns a stage that validates, keeps tensors and publishes as stage does.
func NewRaw(stage *Stage, topics oona.Topics, registerer prometheus.Registerer, logger *slog.Logger) (*Raw, error) {
	r := &Raw{
		intake:     stage.intake,
		topics:     topics,
		memory:     stage.memory.share(stage.cfg.MaxMemoryBytes / 8),
		metrics:    newRawMetrics(),
		logger:     logger,
		partitions: make(map[*rawPartition]struct{}),
	}
	r.large = semaphore.NewWeighted(r.memory.most() / 2)
	if err := errors.Join(r.metrics.register(registerer), registerer.Register(r.memory.gauge("raw"))); err != nil {
		return nil, fmt.Errorf("ingest: register metrics of the raw topic: %w", err)
	}
	return r, nil
}

// Run takes records from group until ctx ends, and then until no record is on
// its way.
func (r *Raw) Run(ctx context.Context, group message.Subscriber) error {
	router, err := pipeline.NewRouter(r.logger)
	if err != nil {
		return err
	}
	router.AddConsumerHandler("raw", r.topics.SeedRaw, group, r.handle)
	r.logger.Info("ingest takes frames", "topic", r.topics.SeedRaw)
	err = router.Run(ctx)
	r.mu.Lock()
	for p := range r.partitions {
		p.end()
	}
	r.mu.Unlock()
	r.forwarding.Wait()
	if err != nil {
		return fmt.Errorf("take frames from %s: %w", r.topics.SeedRaw, err)
	}
	return nil
}

// errNotAssigned is returned for a message that was not read as one of an
// assignment of this stage.
var errNotAssigned = errors.New("the message is of no assignment of this stage")

// handle takes a record, once.
func (r *Raw) handle(msg *message.Message) error {
	at, err := bus.PositionOf(msg)
	if err != nil {
		return err
	}
	p, ours := at.Consumer.(*rawPartition)
	if !ours {
		return errNotAssigned
	}
	return p.take(msg, at)
}

// Assign begins an assignment. Where the log has overtaken the commit, records
// were deleted that nobody has taken: they are counted, and it goes on.
func (r *Raw) Assign(_ context.Context, a bus.Assignment) (from int64, _ bus.Consumer, err error) {
	from, held := a.Resume()
	lost := int64(0)
	if !held && from > a.Committed.Offset {
		lost = from - a.Committed.Offset
		r.logger.Error("records of the raw topic were deleted before they were taken; lengthen its retention",
			"partition", a.Partition, "records", lost, "from", a.Committed.Offset, "to", from)
	} else if !held {
		if !a.Settled {
			return 0, nil, bus.ErrShort
		}
		r.logger.Error("the raw topic has lost records at its end; what it holds is taken again",
			"partition", a.Partition, "committed", a.Committed.Offset, "ends", a.LogEnd)
	}
	p := newRawPartition(r, a, from)
	p.lost = lost
	r.mu.Lock()
	r.partitions[p] = struct{}{}
	r.divide()
	r.mu.Unlock()
	r.forwarding.Go(p.forward)
	r.logger.Info("partition assigned", "topic", a.Topic, "partition", a.Partition, "from", from, "to", a.LogEnd)
	return from, p, nil
}

// Revoke ends the assignment. What it has not committed is the next owner's.
func (p *rawPartition) Revoke() {
	r := p.raw
	r.mu.Lock()
	defer r.mu.Unlock()
	p.end()
	delete(r.partitions, p)
	r.divide()
	partition := strconv.Itoa(int(p.assignment.Partition))
	r.metrics.lag.DeleteLabelValues(partition)
	r.metrics.settled.DeleteLabelValues(partition)
	r.logger.Info("partition released", "topic", p.assignment.Topic, "partition", p.assignment.Partition)
}

// Commit returns the offset after the last record that is forwarded, or among
// the dead letters.
func (p *rawPartition) Commit() (bus.Commit, bool) {
	settled, due := p.progress()
	return bus.Commit{Offset: settled}, due
}

// Committed notes what became of a commit.
func (p *rawPartition) Committed(commit bus.Commit, err error) {
	if err != nil {
		p.raw.intake.warn("what was taken from the raw topic is not committed; it is tried again, and taken again after a restart", "partition", p.assignment.Partition, "err", err)
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.committed = commit.Offset
	// An assignment may end before it is read, and the next one finds the same loss:
	// it is counted once, by the first that commits beyond it.
	p.raw.metrics.lost.WithLabelValues(lostRetention).Add(float64(p.lost))
	p.lost = 0
}

// End notes where the partition's log ends.
func (p *rawPartition) End(offset int64) {
	settled, _ := p.progress()
	partition := strconv.Itoa(int(p.assignment.Partition))
	p.raw.metrics.lag.WithLabelValues(partition).Set(float64(max(offset-settled, 0)))
	p.raw.metrics.settled.WithLabelValues(partition).Set(float64(settled))
}

// divide gives each partition the same part of half of the memory. The other half
// is for records that do not fit into that. So partitions that cannot settle what
// they hold, as the tensor store is down, never hold up those that can.
func (r *Raw) divide() {
	r.each.Store(r.memory.most() / 2 / int64(max(len(r.partitions), 1)))
}

// free gives back the memory of a record.
func (r *Raw) free(record *rawRecord) {
	record.held.end()
	r.large.Release(record.large)
	record.large = 0
}
