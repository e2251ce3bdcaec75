package ingest

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/semaphore"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/bus"
	"github.com/morphogenetic/oona/pipeline"
)

// Raw is the stage that reads frames from the raw topic, to which trainers publish
// with a Kafka client. It forwards each frame as one record of the seed-metrics topic,
// validated and with its tensors stored, as a [Stage] does with requests.
//
//	record --> ack --> decode --> validate --> [batch] --> tensors --> publish --> commit
//	                      |          |                        |           |
//	                      +----------+--- dead letters <------+           +-- down: tried again, in order
//
// The bus hands out one record of each partition at a time. A record is acked when it is decoded,
// and committed when its frames are acknowledged. The records that arrive while a batch is being
// published form the next batch. If a record is forwarded twice, its frames are folded once,
// because they keep the sequence numbers of their producer.
//
// Raw is the bus.Owner of the partitions.
type Raw struct {
	sink    *sink
	topics  oona.Topics
	metrics *rawMetrics
	logger  *slog.Logger
	memory  *share              // for all partitions
	beside  int64               // part of memory for fetched records and decoders, while there are partitions
	each    atomic.Int64        // part of memory that is reserved for the records of each partition
	kept    atomic.Int64        // the part of beside that the decoder of each partition may keep
	large   *semaphore.Weighted // part of memory for records that are larger than each
	largest int64               // size of large

	forwarding sync.WaitGroup // one goroutine per partition
	mu         sync.Mutex
	partitions map[*rawPartition]struct{}
	charged    bool // beside is taken from memory
}

// RawReadAhead returns roughly how many bytes of all partitions of the raw topic may be fetched
// and wait for the Raw. They are part of MaxMemoryBytes.
func (c Config) RawReadAhead() int { return int(3 * c.keptDecoders()) }

// keptDecoders is how many bytes the idle decoders of all partitions may keep.
func (c Config) keptDecoders() int64 { return c.MaxMemoryBytes / 64 }

// NewRaw returns a Raw with the configuration, memory and publisher of a Stage.
func NewRaw(stage *Stage, topics oona.Topics, registerer prometheus.Registerer, logger *slog.Logger) (*Raw, error) {
	r := &Raw{
		sink:       stage.sink,
		topics:     topics,
		memory:     stage.memory.share(stage.cfg.MaxMemoryBytes / 8),
		metrics:    newRawMetrics(),
		logger:     logger,
		partitions: make(map[*rawPartition]struct{}),
	}
	r.beside = int64(stage.cfg.RawReadAhead()) + stage.cfg.keptDecoders()
	r.largest = (r.memory.most() - r.beside) / 2
	r.large = semaphore.NewWeighted(r.largest)
	m := r.metrics
	if err := register(registerer, m.records, m.dead, m.lost, m.retries, m.lag, m.settled, r.memory.gauge("raw")); err != nil {
		return nil, fmt.Errorf("ingest: register metrics of the raw topic: %w", err)
	}
	return r, nil
}

// Run reads records from group until ctx ends. It returns when no more records are being
// forwarded.
func (r *Raw) Run(ctx context.Context, group message.Subscriber) error {
	router, err := pipeline.NewRouter(r.logger)
	if err != nil {
		return err
	}
	router.AddConsumerHandler("raw", r.topics.SeedRaw, group, r.handle)
	r.logger.Info("ingest reads frames from the raw topic", "topic", r.topics.SeedRaw)
	err = router.Run(ctx)
	r.mu.Lock()
	for p := range r.partitions {
		p.end()
	}
	r.mu.Unlock()
	r.forwarding.Wait()
	if err != nil {
		return fmt.Errorf("read frames from %s: %w", r.topics.SeedRaw, err)
	}
	return nil
}

// errNotAssigned is returned for a message of an assignment that is not this stage's.
var errNotAssigned = errors.New("the message belongs to no assignment of this stage")

// handle is the handler of records.
func (r *Raw) handle(msg *message.Message) error {
	at, err := bus.PositionOf(msg)
	if err != nil {
		return err
	}
	p, ours := at.Consumer.(*rawPartition)
	if !ours {
		return errNotAssigned
	}
	p.take(msg, at)
	return nil
}

// Assign begins an assignment. If the log begins after the commit, records were deleted
// before they were read. They are counted and logged, and reading starts at the oldest
// record.
func (r *Raw) Assign(_ context.Context, a bus.Assignment) (from int64, _ bus.Consumer, err error) {
	from, held := a.Resume()
	lost := int64(0)
	if !held && from > a.Committed.Offset {
		lost = from - a.Committed.Offset
		r.logger.Error("records of the raw topic were deleted before they were read, and are lost; increase the retention of the topic, or run more ingests that read it",
			"topic", a.Topic, "partition", a.Partition, "records", lost, "from", a.Committed.Offset, "to", from)
	} else if !held {
		if !a.Settled {
			return 0, nil, bus.ErrShort
		}
		r.logger.Error("the raw topic has lost records at its end; its remaining records are read again",
			"topic", a.Topic, "partition", a.Partition, "committed", a.Committed.Offset, "ends", a.LogEnd)
	}
	p := newRawPartition(r, a, from)
	p.lost, p.moved = lost, !held // otherwise a later owner could begin at the old commit, once the log has grown past it
	r.mu.Lock()
	r.partitions[p] = struct{}{}
	r.divide()
	r.mu.Unlock()
	r.forwarding.Go(p.forward)
	r.logger.Info("partition assigned", "topic", a.Topic, "partition", a.Partition, "from", from, "to", a.LogEnd)
	return from, p, nil
}

// Revoke ends the assignment. The next owner reads what is not committed.
func (p *rawPartition) Revoke() {
	r := p.raw
	r.mu.Lock()
	defer r.mu.Unlock()
	p.end()
	delete(r.partitions, p)
	r.divide()
	r.metrics.lag.DeleteLabelValues(p.label)
	r.metrics.settled.DeleteLabelValues(p.label)
	r.logger.Info("partition released", "topic", p.assignment.Topic, "partition", p.assignment.Partition)
}

// Commit returns the offset after the last record that was forwarded or is a dead
// letter.
func (p *rawPartition) Commit() (bus.Commit, bool) {
	settled, due := p.progress()
	return bus.Commit{Offset: settled}, due
}

// Committed records the result of a commit.
func (p *rawPartition) Committed(commit bus.Commit, err error) {
	if err != nil {
		p.raw.sink.warn("a commit of the raw topic failed; trying again; if ingest is restarted before a commit succeeds, it reads records again", "topic", p.assignment.Topic, "partition", p.assignment.Partition, "err", err)
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.committed = commit.Offset
	// An assignment may end before anything is read, and then the next one finds the
	// same loss. The first assignment that commits beyond it counts it.
	p.raw.metrics.lost.WithLabelValues(lostRetention).Add(float64(p.lost))
	p.lost, p.moved = 0, false
}

// End records where the partition's log ends.
func (p *rawPartition) End(offset int64) {
	settled, _ := p.progress()
	p.raw.metrics.lag.WithLabelValues(p.label).Set(float64(max(offset-settled, 0)))
	p.raw.metrics.settled.WithLabelValues(p.label).Set(float64(settled))
}

// divide reserves an equal part of one half of the memory for the records of each
// partition. The other half is for records that do not fit into their partition's part.
// So partitions whose records cannot be settled, for example because the tensor store is
// down, do not block other partitions.
func (r *Raw) divide() {
	partitions := int64(max(len(r.partitions), 1))
	r.each.Store((r.memory.most() - r.beside) / 2 / partitions)
	r.kept.Store(min(r.sink.cfg.keptDecoders()/partitions, pooled))
	switch has := len(r.partitions) > 0; {
	case has && !r.charged:
		r.memory.force(r.beside) // what is reserved for the raw topic is more than this
	case !has && r.charged:
		r.memory.free(r.beside, nil)
	}
	r.charged = len(r.partitions) > 0
}

// free returns the memory of a record.
func (r *Raw) free(record *rawRecord) {
	record.held.end()
	r.large.Release(record.large)
	record.large = 0
}
