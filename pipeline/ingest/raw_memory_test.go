package ingest

import (
	"bytes"
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/klauspost/compress/zstd"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/schemas/avro"
)

// inflating is a container file whose valid frames take many times as much once
// they are decoded.
func inflating(t *testing.T) string {
	t.Helper()
	var singles [][]byte
	for i := range 50 { // 14 MiB
		f := goodFrame(int64(i))
		manySeeds(8000)(f)
		manyMetrics(8)(f)
		singles = append(singles, avro.AppendFrame(nil, f))
	}
	return string(containerOf(t, singles...))
}

// What waits is counted as it was decoded: a partition with records that inflate
// holds a few of them, and the others go on.
func TestRawCountsWhatItHasDecoded(t *testing.T) {
	file := inflating(t)
	t.Logf("a record has %d bytes", len(file))
	synctest.Test(t, func(t *testing.T) {
		away := errors.New("the bus is away")
		var refuses atomic.Bool
		refuses.Store(true)
		onBus := &topicBus{answer: func(topic string, messages []*message.Message) error {
			if topic == rawTopics.SeedMetrics && refuses.Load() && len(messages[0].Payload) > 1<<10 {
				return away
			}
			return nil
		}}
		p := claimRaw(t, onBus, nil)
		about := p.about
		about.Partition = 2
		other := p.assign(about)
		p.read(file) // so that pools and decoders are warm
		idle := liveHeap()
		const records = 60
		done := make(chan struct{})
		go func() {
			defer close(done)
			for range records {
				p.read(file)
			}
		}()
		synctest.Wait()
		if grown := liveHeap() - idle; grown > 64<<20 {
			t.Errorf("%d records of %d bytes take %d MiB", records, len(file), grown>>20)
		}
		if n := onBus.calls[rawTopics.SeedMetrics]; n == 0 {
			for _, dead := range onBus.on(rawTopics.SeedRawDead) {
				t.Fatal("the bus was not asked, and the test tests nothing: " + dead.Metadata.Get(oona.HeaderErrorMessage))
			}
			t.Error("the bus was not asked, and the test tests nothing")
		}
		if err := p.handle(messageOf(other, 10, string(frames(nil)))); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if n := len(onBus.on(rawTopics.SeedMetrics)); n != 1 {
			t.Errorf("%d frames of another partition were forwarded, want 1", n)
		}
		refuses.Store(false)
		<-done
		p.settledTo(10 + 1 + records)
		other.Revoke()
		p.end()
		if p.memory.inUse() != 0 {
			t.Error("settled records still have room")
		}
	})
}

// Whoever ends a claim gets back all the room of its records.
func TestRawRoomIsGivenBackWithTheClaim(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := claimRaw(t, &topicBus{answer: func(string, []*message.Message) error { return errors.New("away") }}, nil)
		big := strings.Repeat(" ", 3<<20) + string(jsonOf(goodFrame(0)))
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			for range 5 { // one on its way, two that wait, one in hand
				p.read(big)
			}
		}()
		synctest.Wait()
		if p.memory.inUse() == 0 {
			t.Error("records that wait have no room")
		}
		p.consumer.end()
		p.forwarding.Wait()
		<-ended
		if p.memory.inUse() != 0 {
			t.Error("records of a claim that has ended still have room")
		}
	})
}

// Partitions whose records cannot be settled hold memory, and more of them wait
// for some. Another partition goes on, however large their records are.
func TestRawStuckPartitionsLeaveMemoryForOthers(t *testing.T) {
	file := inflating(t)
	synctest.Test(t, func(t *testing.T) {
		onBus := &topicBus{answer: func(topic string, messages []*message.Message) error {
			if topic == rawTopics.SeedMetrics && len(messages[0].Payload) > 1<<10 {
				return errors.New("the bus is away")
			}
			return nil
		}}
		p := claimRaw(t, onBus, nil)
		const stuck = 40
		partitions := make([]*rawPartition, stuck+1)
		for i := range partitions {
			about := p.about
			about.Partition = int32(10 + i)
			partitions[i] = p.assign(about)
		}
		for _, to := range partitions[:stuck] {
			m := messageOf(to, 10, file)
			go func() { _ = p.handle(m) }()
		}
		synctest.Wait()
		t.Logf("%d MiB of %d are in use", p.memory.inUse()>>20, p.memory.most()>>20)
		done := make(chan error, 1)
		small := messageOf(partitions[stuck], 10, string(frames(nil)))
		go func() { done <- p.handle(small) }()
		synctest.Wait()
		if n := len(onBus.on(rawTopics.SeedMetrics)); n != 1 {
			t.Errorf("%d frames of a partition that is not stuck were forwarded, want 1", n)
		}
		for _, of := range partitions {
			of.end()
		}
		if err := <-done; err != nil {
			t.Error(err)
		}
		p.end()
	})
}

// streamed compresses as encoders do that do not know the length beforehand, such as
// Java's: then memory for as much as there may be is asked for, while it is decoded.
type streamed struct{}

func (streamed) Name() string                      { return "zstandard" }
func (streamed) Decompress([]byte) ([]byte, error) { return nil, errors.ErrUnsupported }
func (streamed) Close() error                      { return nil }
func (streamed) Compress(block []byte) ([]byte, error) {
	var out bytes.Buffer
	w, err := zstd.NewWriter(&out)
	if err != nil {
		return nil, err
	}
	for _, b := range block {
		if _, err := w.Write([]byte{b}); err != nil {
			return nil, err
		}
	}
	if err := w.Flush(); err != nil { // or it says how long it is after all
		return nil, err
	}
	err = w.Close()
	return out.Bytes(), err
}

// What a record may need while it is decoded is not what it has once it is: small
// records that cannot be settled leave the memory for large ones to others.
func TestRawSmallContainersDoNotStayLarge(t *testing.T) {
	file := string(containerBy(t, "kasmina.telemetry.SeedMetrics", streamed{}, frames(nil)))
	synctest.Test(t, func(t *testing.T) {
		p := claimRaw(t, &topicBus{answer: func(string, []*message.Message) error { return errors.New("away") }}, nil)
		defer p.end()
		var others []*rawPartition
		defer func() {
			for _, of := range others {
				of.end()
			}
		}()
		for i := range 40 { // so that none has as much as may be needed
			about := p.about
			about.Partition = int32(10 + i)
			others = append(others, p.assign(about))
		}
		p.read(file)
		synctest.Wait()
		if p.memory.inUse() == 0 {
			t.Fatal("the record is settled, and the test tests nothing")
		}
		if all := p.memory.most() / 2; !p.large.TryAcquire(all) {
			t.Error("a small record keeps memory that is for large ones")
		} else {
			p.large.Release(all)
		}
	})
}
