package ingest

import (
	"context"
	"errors"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/bus"
)

var rawTopics = func() oona.Topics {
	topics, err := oona.NewTopics(oona.DefaultPrefix)
	if err != nil {
		panic(err)
	}
	return topics
}()

// rawFixture is a Raw that reads the raw topic of a bus, as the only member of its
// group.
type rawFixture struct {
	*Raw
	stage   *Stage
	bus     *testBus
	t       *testing.T
	trainer bus.Publisher
	member  bus.Member
	stop    context.CancelFunc
	ended   chan error
	sent    map[int32]int64 // records, by partition of the raw topic
}

const rawGroup = "oona-ingest"

// startRaw runs a Raw until end. Call it in a bubble of synctest.
func startRaw(t *testing.T, onBus *testBus, change func(*Config)) *rawFixture {
	t.Helper()
	return startRawTo(t, onBus, onBus, change)
}

// startRawTo runs a Raw that publishes to another bus than it reads from.
func startRawTo(t *testing.T, from *testBus, to bus.Publisher, change func(*Config)) *rawFixture {
	t.Helper()
	stage := newStage(t, to, change)
	raw, err := NewRaw(stage, rawTopics, prometheus.NewRegistry(), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	p := &rawFixture{Raw: raw, stage: stage, bus: from, t: t, ended: make(chan error, 1), sent: make(map[int32]int64)}
	if p.trainer, err = from.Publisher(bus.PublisherOptions{}); err != nil {
		t.Fatal(err)
	}
	if p.member, err = from.Member(bus.MemberOptions{Group: rawGroup}, raw); err != nil {
		t.Fatal(err)
	}
	extents, err := from.Extents(t.Context(), rawTopics.SeedRaw)
	if err != nil {
		t.Fatal(err)
	}
	for i, extent := range extents[rawTopics.SeedRaw] {
		p.sent[int32(i)] = extent.End
	}
	ctx, cancel := context.WithCancel(t.Context())
	p.stop = cancel
	go func() { p.ended <- raw.Run(ctx, p.member) }()
	synctest.Wait()
	if err := p.member.Joined(); err != nil {
		t.Fatal(err)
	}
	return p
}

// end stops the Raw, waits until it has ended, and checks that no memory is in use.
func (p *rawFixture) end() {
	p.t.Helper()
	p.stop()
	if err := errors.Join(<-p.ended, p.member.Close()); err != nil {
		p.t.Error(err)
	}
	if used := p.memory.inUse(); used != 0 {
		p.t.Errorf("%d bytes are not given back at the end", used)
	}
}

// send publishes a record to partition 3 of the raw topic, as a trainer does.
func (p *rawFixture) send(value string, headers ...string) {
	p.t.Helper()
	p.sendTo(3, value, headers...)
}

func (p *rawFixture) sendTo(partition int32, value string, headers ...string) {
	p.t.Helper()
	msg := bus.NewMessage([]byte(value), bus.Target{Partition: partition, Directed: true, Key: []byte("a key"), Time: 1790000001500000})
	for i := 0; i+1 < len(headers); i += 2 {
		msg.Metadata.Set(headers[i], headers[i+1])
	}
	if err := p.trainer.Publish(p.t.Context(), rawTopics.SeedRaw, msg); err != nil {
		p.t.Fatal(err)
	}
	p.sent[partition]++
}

// partition returns the assignment of a partition.
func (p *rawFixture) partition(number int32) *rawPartition {
	p.t.Helper()
	p.mu.Lock()
	defer p.mu.Unlock()
	for of := range p.partitions {
		if of.assignment.Partition == number {
			return of
		}
	}
	p.t.Fatalf("partition %d is not assigned", number)
	return nil
}

// waiting returns the bytes that wait in partition 3.
func (p *rawFixture) waiting() int64 {
	of := p.partition(3)
	of.mu.Lock()
	defer of.mu.Unlock()
	return of.bytes
}

// settledTo asserts what is committed of partition 3, once a commit is due.
func (p *rawFixture) settledTo(want int64) {
	p.t.Helper()
	p.committed(3, want)
	if lag := testutil.ToFloat64(p.metrics.lag.WithLabelValues("3")); lag != float64(p.sent[3]-want) {
		p.t.Errorf("lag is %v, want %d", lag, p.sent[3]-want)
	}
	if settled := testutil.ToFloat64(p.metrics.settled.WithLabelValues("3")); settled != float64(want) {
		p.t.Errorf("settled to %v, want %d", settled, want)
	}
}

func (p *rawFixture) committed(partition int32, want int64) {
	p.t.Helper()
	time.Sleep(2 * time.Second)
	synctest.Wait()
	if want == 0 {
		want = bus.NoOffset
	}
	commits, err := p.bus.Commits(p.t.Context(), rawGroup, rawTopics.SeedRaw)
	if err != nil {
		p.t.Fatal(err)
	}
	if got := commits[partition].Offset; got != want {
		p.t.Errorf("offset %d of partition %d is committed, want %d", got, partition, want)
	}
}

// down makes the bus refuse frames until up is called. up returns how many calls were
// refused.
func (b *testBus) down(t *testing.T) (up func() (refused int)) {
	t.Helper()
	b.Refuse(func(topic string, _ int32) error {
		if topic == rawTopics.SeedMetrics {
			return errors.New("no broker")
		}
		return nil
	})
	return func() int {
		b.Refuse(nil)
		_, failed := b.count(rawTopics.SeedMetrics)
		if failed == 0 {
			t.Error("the bus has refused nothing, and the test tests nothing")
		}
		return failed
	}
}
