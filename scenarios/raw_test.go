package scenarios

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/morphogenetic/oona"
	kafkabus "github.com/morphogenetic/oona/bus/kafka"
)

// rawProducer publishes to a partition of the raw topic, like a trainer with a Kafka client.
type rawProducer struct {
	client    *kgo.Client
	topic     string
	partition int32
	bad       *atomic.Int64 // records that are not frames
}

// badEvery is the number of records of frames between two that are not frames.
const badEvery = 25

// publish writes a record with frames, and sometimes one without.
func (p *rawProducer) publish(ctx context.Context, body []byte, ids []identity, a *acks) {
	records := []*kgo.Record{{Topic: p.topic, Partition: p.partition, Value: body}}
	if ids[0].sequence%badEvery == 0 {
		p.bad.Add(1)
		records = append(records, &kgo.Record{Topic: p.topic, Partition: p.partition, Value: body[:len(body)-1]})
	}
	status := 200
	if p.client.ProduceSync(ctx, records...).FirstErr() != nil {
		status = 0 // the client retries until ctx ends
	}
	a.answer(status, ids)
}

// Row 18. Trainers publish to the raw topic, and ingests are killed that have forwarded
// records without committing them. Each frame is folded once, and each record that is not a
// frame is a dead letter.
func rawTopic(w *world) {
	w.windows.IdleHorizon = 15 * time.Second    // longer than the session of a killed ingest
	w.windows.AllowedLateness = 5 * time.Second // the windows of records that are forwarded again must be open
	if _, err := kafkabus.New(kafkabus.Config{Brokers: kafka.Addrs(), ClientID: "scenarios"}, nil).Apply(w.ctx, w.topics.RawSpecs(partitions)); err != nil {
		w.Fatal(err)
	}
	raw := []string{"--raw", "--raw-group", w.prefix + "-raw"}
	w.startIngest(raw...)
	first := w.ingest
	w.startIngest(raw...)
	ingests := []*process{first, w.ingest}
	w.awaitRaw(ingests...)
	reader := w.startReaders("of the raw topic's rollups")
	w.startWorker()

	client := kafka.client(w.T, kgo.RequiredAcks(kgo.AllISRAcks()), kgo.RecordPartitioner(kgo.ManualPartitioner()))
	defer client.Close()
	var bad atomic.Int64
	var trainers []trainer
	for p := range int32(partitions) {
		trainers = append(trainers, trainer{run: "run-a", producer: oona.ProducerID(fmt.Sprint("raw-", p)), layers: 6, seeds: 8, rate: 100,
			raw: &rawProducer{client, w.topics.SeedRaw, p, &bad}})
	}
	finish := w.train(trainers...)
	const kills = 3
	for range kills {
		w.awaitUnsettled()
		ingests[0].kill(w.T)
		w.startIngest(raw...)
		ingests = append(ingests[1:], w.ingest)
		w.awaitRaw(ingests...)
		w.pause(2 * time.Second)
	}
	finish()
	w.awaitForwarded()
	ingests[0].terminate(w.T)
	w.stop()
	r := w.check()
	reader.stop(w, 0, r)
	w.nothingAside(r)
	w.figure("%d ingests killed, %d records of no frames", kills, bad.Load())
	if r.dup == 0 {
		w.Error("no frame was forwarded again: the fault did not occur")
	}
	w.checkDeadLetters(int(bad.Load()))
}

// rawAssigned returns the number of partitions of the raw topic that an ingest has.
func rawAssigned(p *process) (n int) {
	const series = "oona_ingest_raw_settled_offset{"
	for name := range p.metrics() {
		if len(name) > len(series) && name[:len(series)] == series {
			n++
		}
	}
	return n
}

// awaitRaw waits until ingests share the partitions of the raw topic.
func (w *world) awaitRaw(ingests ...*process) {
	w.Helper()
	w.await("the ingests to share the raw topic", func() bool {
		n := 0
		for _, p := range ingests {
			one := rawAssigned(p)
			if one == 0 {
				return false
			}
			n += one
		}
		return n == partitions
	})
}

// awaitUnsettled waits until each partition of the raw topic has records that are not
// committed.
func (w *world) awaitUnsettled() {
	w.Helper()
	w.await("records of the raw topic that are not committed", func() bool {
		_, ends := kafka.extents(w.T, w.ctx, w.topics.SeedRaw)
		for p, offset := range kafka.committed(w.T, w.ctx, w.prefix+"-raw", w.topics.SeedRaw, partitions) {
			if offset < 0 || ends[p]-offset < 4 {
				return false
			}
		}
		return true
	})
}

// awaitForwarded waits until nothing is left in the raw topic.
func (w *world) awaitForwarded() {
	w.Helper()
	w.await("the raw topic to be forwarded", func() bool {
		_, ends := kafka.extents(w.T, w.ctx, w.topics.SeedRaw)
		left := 0
		for p, offset := range kafka.committed(w.T, w.ctx, w.prefix+"-raw", w.topics.SeedRaw, partitions) {
			left += int(ends[p] - offset)
		}
		return left == 0
	})
}

// checkDeadLetters checks that each record that is not a frame is among the dead letters of
// the raw topic, perhaps several times, with the same origin.
func (w *world) checkDeadLetters(want int) {
	w.Helper()
	origins := make(map[string]bool)
	for _, records := range kafka.dump(w.T, w.ctx, w.topics.SeedRawDead) {
		for i := range records {
			h := records[i].headers
			if h[oona.HeaderErrorException] != "undecodable" || h[oona.HeaderErrorTopic] != w.topics.SeedRaw {
				w.Errorf("a dead letter of the raw topic has headers %v", h)
			}
			origins[h[oona.HeaderErrorPartition]+":"+h[oona.HeaderErrorOffset]] = true
		}
	}
	if len(origins) != want {
		w.Errorf("%d records of the raw topic are dead letters, and %d were no frames", len(origins), want)
	}
}
