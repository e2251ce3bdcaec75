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
// Raw owns the claims of the partitions (bus.Owner).
type Raw struct {
	stage     *Stage
	topics    oona.Topics
	publisher Publisher
	metrics   *rawMetrics
	logger    *slog.Logger
	memory    *share              // of all claims
	each      atomic.Int64        // what of it is a claim's own
	large     *semaphore.Weighted // what of it is for records that are larger than that

	forwarding sync.WaitGroup // a goroutine a claim
	mu         sync.Mutex
	claims     map[string]*rawClaim // by id
}

// NewRaw returns a stage that validates, keeps tensors and publishes as stage does.
func NewRaw(stage *Stage, topics oona.Topics, registerer prometheus.Registerer, logger *slog.Logger) (*Raw, error) {
	r := &Raw{
		stage:     stage,
		topics:    topics,
		publisher: stage.publisher,
		memory:    stage.memory.share(stage.cfg.MaxMemoryBytes / 8),
		metrics:   newRawMetrics(),
		logger:    logger,
		claims:    make(map[string]*rawClaim),
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
	for _, c := range r.claims {
		c.end()
	}
	r.mu.Unlock()
	r.forwarding.Wait()
	if err != nil {
		return fmt.Errorf("take frames from %s: %w", r.topics.SeedRaw, err)
	}
	return nil
}

// handle takes a record, once. It errs where the bus does not say which.
func (r *Raw) handle(msg *message.Message) error {
	r.mu.Lock()
	c := r.claims[msg.Metadata.Get(oona.MetaClaim)]
	r.mu.Unlock()
	if c == nil {
		return nil // it has ended: the partition's next owner reads the record
	}
	return c.take(msg)
}

// Open begins a claim. Where the log has overtaken the commit, records were
// deleted that nobody has taken: they are counted, and it goes on.
func (r *Raw) Open(_ context.Context, about oona.Claim) error {
	if lost := about.Start - about.Committed.Offset; about.Committed.Offset != oona.NoOffset && lost > 0 {
		r.metrics.lost.WithLabelValues(lostRetention).Add(float64(lost))
		r.logger.Error("records of the raw topic were deleted before they were taken; lengthen its retention",
			"partition", about.Partition, "records", lost, "from", about.Committed.Offset, "to", about.Start)
	}
	if about.Committed.Offset > about.HighWater {
		r.logger.Error("the raw topic has lost records at its end; what it holds is taken again",
			"partition", about.Partition, "committed", about.Committed.Offset, "ends", about.HighWater)
	}
	c := newRawClaim(r, about)
	r.mu.Lock()
	r.claims[about.ID] = c
	r.divide()
	r.mu.Unlock()
	r.forwarding.Go(c.forward)
	r.logger.Info("partition claimed", "topic", about.Topic, "partition", about.Partition, "from", about.Start, "to", about.HighWater)
	return nil
}

// Close ends a claim. What it has not committed is the next owner's.
func (r *Raw) Close(about oona.Claim) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.claims[about.ID].end()
	delete(r.claims, about.ID)
	r.divide()
	partition := strconv.Itoa(int(about.Partition))
	r.metrics.lag.DeleteLabelValues(partition)
	r.metrics.settled.DeleteLabelValues(partition)
	r.logger.Info("partition released", "topic", about.Topic, "partition", about.Partition)
}

// Commit returns the offset after the last record that is forwarded, or among
// the dead letters.
func (r *Raw) Commit(about oona.Claim) (oona.Commit, bool) {
	settled, due := r.claim(about).commit()
	return oona.Commit{Offset: settled}, due
}

// Ends notes where the partition's log ends.
func (r *Raw) Ends(about oona.Claim, offset int64) {
	settled, _ := r.claim(about).commit()
	partition := strconv.Itoa(int(about.Partition))
	r.metrics.lag.WithLabelValues(partition).Set(float64(max(offset-settled, 0)))
	r.metrics.settled.WithLabelValues(partition).Set(float64(settled))
}

// divide gives each claim the same part of half of the memory. The other half is
// for records that do not fit into that. So claims that cannot settle what they
// hold, as the tensor store is down, never hold up those that can.
func (r *Raw) divide() {
	r.each.Store(r.memory.most() / 2 / int64(max(len(r.claims), 1)))
}

// free gives back the memory of a record.
func (r *Raw) free(record *rawRecord) {
	record.held.end()
	r.large.Release(record.large)
	record.large = 0
}

func (r *Raw) claim(about oona.Claim) *rawClaim {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.claims[about.ID]
}

// Committed notes what became of a commit.
func (r *Raw) Committed(about oona.Claim, commit oona.Commit, err error) {
	if err != nil {
		r.stage.warn("what was taken from the raw topic is not committed; it is tried again, and taken again after a restart", "partition", about.Partition, "error", err)
		return
	}
	c := r.claim(about)
	c.mu.Lock()
	c.committed = commit.Offset
	c.mu.Unlock()
}
