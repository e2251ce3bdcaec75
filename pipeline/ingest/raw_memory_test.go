package ingest

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/klauspost/compress/zstd"

	"github.com/morphogenetic/oona/bus"
	"github.com/morphogenetic/oona/schemas/avro"
)

// inflating returns a container file whose valid frames are many times larger once they
// are decoded.
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

// The decoded size of waiting records counts: a partition holds only a few records that
// are large once decoded. Other partitions are forwarded.
func TestRawCountsWhatItHasDecoded(t *testing.T) {
	if testing.Short() {
		t.Skip("it measures memory for long")
	}
	file := inflating(t)
	t.Logf("a record has %d bytes", len(file))
	synctest.Test(t, func(t *testing.T) {
		var refuses atomic.Bool
		var refused, small atomic.Int64
		refuses.Store(true)
		to := keepsNothing(func(_ context.Context, messages []*message.Message) error {
			switch {
			case len(messages[0].Payload) <= 1<<10:
				small.Add(1)
			case refuses.Load():
				refused.Add(1)
				return errors.New("the bus does not answer")
			}
			return nil
		})
		p := startRawTo(t, newBus(t), to, nil)
		p.send(file) // so that pools and decoders are warm
		synctest.Wait()
		idle := liveHeap()
		const records = 60
		for range records {
			p.send(file)
		}
		synctest.Wait()
		onTopic := int64(records * len(file))
		if grown := liveHeap() - idle - onTopic; grown > 64<<20 {
			t.Errorf("%d records of %d bytes take %d MiB", records, len(file), grown>>20)
		}
		if refused.Load() == 0 {
			t.Error("the bus was not asked, and the test tests nothing")
		}
		p.sendTo(2, string(frames(nil)))
		synctest.Wait()
		if n := small.Load(); n != 1 {
			t.Errorf("%d frames of another partition were forwarded, want 1", n)
		}
		refuses.Store(false)
		time.Sleep(time.Minute)
		p.settledTo(1 + records)
		p.end()
	})
}

// The end of an assignment returns all memory of its records.
func TestRawMemoryIsGivenBackWithTheAssignment(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		onBus := newBus(t)
		up := onBus.down(t)
		p := startRaw(t, onBus, nil)
		big := strings.Repeat(" ", 3<<20) + string(jsonOf(goodFrame(0)))
		for range 5 { // one on its way, two that wait, one in hand
			p.send(big)
		}
		synctest.Wait()
		if p.memory.inUse() <= p.beside {
			t.Error("records that wait use no memory")
		}
		p.end() // looks at the memory
		up()
	})
}

// A record that waits does not keep what it was fetched with: the bus hands out parts of
// large buffers.
func TestRawKeepsNoBuffersOfTheBus(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		onBus := newBus(t)
		up := onBus.down(t)
		p := startRaw(t, onBus, nil)
		of := p.partition(3)
		idle := liveHeap()
		const records, fetched = 64, 1 << 20
		value := frames(nil)
		for i := range int64(records) {
			buffer := make([]byte, fetched)
			n := copy(buffer, value)
			of.take(message.NewMessage("", buffer[:n]), bus.Position{Topic: rawTopics.SeedRaw, Partition: 3, Offset: i, Key: buffer[n : n+1]})
		}
		synctest.Wait()
		if waits := p.waiting(); waits == 0 {
			t.Error("no record waits, and the test tests nothing")
		}
		if used := liveHeap() - idle; used > records*fetched/4 {
			t.Errorf("%d small records keep %d KiB", records, used>>10)
		}
		p.end()
		up()
	})
}

// With many partitions whose records cannot be settled, and are larger than the parts of
// their partitions, what is used stays within the memory of the raw topic. All records are
// forwarded later.
func TestRawMemoryOfManyPartitions(t *testing.T) {
	if testing.Short() {
		t.Skip("it measures memory for long")
	}
	value := strings.Repeat(" ", 600<<10) + string(jsonOf(goodFrame(0)))
	synctest.Test(t, func(t *testing.T) {
		onBus := newBus(t, manyPartitions)
		up := onBus.down(t)
		p := startRaw(t, onBus, func(c *Config) { c.MaxMemoryBytes = c.leastMemory() })
		const partitions, records = 64, 2
		for range records {
			for i := range int32(partitions) {
				p.sendTo(i, value)
			}
		}
		synctest.Wait()
		used, most := p.memory.inUse(), p.memory.most()
		t.Logf("%d MiB of %d are in use, by records of %d MiB", used>>20, most>>20, partitions*records*len(value)>>20)
		if used > most || used <= p.beside {
			t.Errorf("%d bytes are in use, %d may be", used, most)
		}
		if kept := p.kept.Load(); partitions*kept > p.beside {
			t.Errorf("decoders may keep %d bytes each", kept)
		}
		up()
		time.Sleep(time.Minute)
		synctest.Wait()
		if n := len(onBus.on(t, rawTopics.SeedMetrics)); n != partitions*records {
			t.Errorf("%d frames were forwarded, want %d", n, partitions*records)
		}
		p.end()
	})
}

// Many partitions whose records cannot be settled hold memory or wait for it. Another
// partition is still forwarded.
func TestRawStuckPartitionsLeaveMemoryForOthers(t *testing.T) {
	file := inflating(t)
	synctest.Test(t, func(t *testing.T) {
		onBus := newBus(t, manyPartitions)
		onBus.before = func(topic string, messages []*message.Message) error {
			if topic == rawTopics.SeedMetrics && len(messages[0].Payload) > 1<<10 {
				return errors.New("the bus does not answer")
			}
			return nil
		}
		p := startRaw(t, onBus, nil)
		const stuck = 40
		for i := range stuck {
			p.sendTo(int32(10+i), file)
		}
		synctest.Wait()
		if _, failed := onBus.count(rawTopics.SeedMetrics); failed == 0 {
			t.Error("the bus was not asked, and the test tests nothing")
		}
		t.Logf("%d MiB of %d are in use", p.memory.inUse()>>20, p.memory.most()>>20)
		p.sendTo(10+stuck, string(frames(nil)))
		synctest.Wait()
		if n := len(onBus.on(t, rawTopics.SeedMetrics)); n != 1 {
			t.Errorf("%d frames of a partition that is not stuck were forwarded, want 1", n)
		}
		p.end()
	})
}

// streamed compresses without the length of the content, as Java's encoder does. Its
// decoder must reserve memory for the largest possible content.
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

// A record that needed much memory while it was decoded returns it afterwards: small
// records that cannot be settled do not hold the memory for large records.
func TestRawSmallContainersDoNotStayLarge(t *testing.T) {
	file := string(containerBy(t, "kasmina.telemetry.SeedMetrics", streamed{}, frames(nil)))
	synctest.Test(t, func(t *testing.T) {
		onBus := newBus(t, manyPartitions)
		up := onBus.down(t)
		p := startRaw(t, onBus, nil)
		p.send(file)
		synctest.Wait()
		if p.memory.inUse() <= p.beside {
			t.Fatal("the record is settled, and the test tests nothing")
		}
		if all := p.largest; !p.large.TryAcquire(all) {
			t.Error("a small record keeps memory that is for large ones")
		} else {
			p.large.Release(all)
		}
		p.end()
		up()
	})
}
