package ingest

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"runtime"
	heap "runtime/metrics"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/klauspost/compress/zstd"
	twmb "github.com/twmb/avro"
	"github.com/twmb/avro/ocf"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/intake"
	"github.com/morphogenetic/oona/schemas/avro"
)

// A share can take all free memory except what is reserved for other shares.
func TestShares(t *testing.T) {
	b := newBudget(100)
	one, two := b.share(30), b.share(20)
	if one.most() != 80 || two.most() != 70 {
		t.Errorf("one may have %d, the other %d", one.most(), two.most())
	}
	for _, step := range []struct {
		of   *share
		n    int64
		fits bool
	}{{one, 81, false}, {one, 80, true}, {one, 1, false}, {two, 21, false}, {two, 20, true}, {two, 1, false}} {
		if got := step.of.try(step.n, new(lease)); got != step.fits {
			t.Errorf("%d more fit: %v, with %d and %d in use", step.n, got, one.inUse(), two.inUse())
		}
	}
	one.free(60, nil)
	if !two.try(50, new(lease)) || two.try(1, new(lease)) {
		t.Errorf("of what is free again a share has %d", two.inUse())
	}
}

// Those that wait for memory get it in their order, even if a later one needs less, and
// stop waiting when the context ends.
func TestWaitingForMemory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newBudget(100).share(100)
		s.force(90)
		ctx, cancel := context.WithCancel(t.Context())
		var mu sync.Mutex
		var all []int
		var waiting sync.WaitGroup
		for i, n := range []int64{50, 60, 5, 70} {
			waiting.Go(func() {
				if s.wait(ctx, n) {
					mu.Lock()
					defer mu.Unlock()
					all = append(all, i)
				}
			})
			synctest.Wait()
		}
		order := func() string {
			mu.Lock()
			defer mu.Unlock()
			return fmt.Sprint(all)
		}
		if got := order(); got != "[]" {
			t.Errorf("%v have got memory that was not free", got)
		}
		s.free(45, nil)
		synctest.Wait()
		if got := order(); got != "[0]" {
			t.Errorf("%v have got memory, want the first", got)
		}
		s.free(35, nil)
		synctest.Wait()
		if got := order(); got != "[0]" {
			t.Errorf("%v have got memory, want none before the second", got)
		}
		s.free(30, nil)
		synctest.Wait()
		if got := order(); got != "[0 1 2]" || s.inUse() != 95 {
			t.Errorf("%v have got memory, %d are in use", got, s.inUse())
		}
		cancel()
		waiting.Wait()
		if s.wait(ctx, 50) || s.inUse() != 95 {
			t.Errorf("%d are in use", s.inUse())
		}
	})
}

// bomb returns a container of a few kilobytes whose frames have megabytes.
func bomb(t testing.TB, megabytes int) []byte {
	t.Helper()
	f := goodFrame(0)
	manySeeds(3_000)(f)
	manyMetrics(60)(f)
	one := avro.AppendFrame(nil, f)
	schemas := avro.Schemas()
	var text string
	for _, s := range schemas {
		if s.Name == "kasmina.telemetry.SeedMetrics" {
			text = s.Text
		}
	}
	schema, err := twmb.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	codec, err := ocf.ZstdCodec(nil, []zstd.DOption{})
	if err != nil {
		t.Fatal(err)
	}
	count := megabytes << 20 / len(one)
	var file bytes.Buffer
	w, err := ocf.NewWriter(&file, schema, ocf.WithCodec(ocf.NopCloser(codec)), ocf.WithBlockCount(count), ocf.WithBlockBytes(32<<20))
	if err != nil {
		t.Fatal(err)
	}
	for range count {
		if _, err := w.Write(one[10:]); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return file.Bytes()
}

// liveHeap returns the size of the heap that is in use after a collection.
func liveHeap() int64 {
	runtime.GC()
	sample := []heap.Sample{{Name: "/gc/heap/live:bytes"}}
	heap.Read(sample)
	return int64(sample[0].Value.Uint64())
}

// The decoded size of a record counts, not its size on the topic. Small containers with
// large frames do not exceed the memory of a partition that is stuck, and do not block
// other partitions.
func TestRawMemoryCountsWhatIsDecoded(t *testing.T) {
	if testing.Short() {
		t.Skip("it measures memory for long")
	}
	value := string(bomb(t, 15))
	t.Logf("a container has %d bytes", len(value))
	for name, stuck := range map[string]bool{"stuck": true, "flowing": false} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				idle := liveHeap()
				release := make(chan struct{})
				most := int64(0)
				look := func() { most = max(most, liveHeap()-idle) }
				p := startRawTo(t, newBus(t), keepsNothing(func(ctx context.Context, messages []*message.Message) error {
					switch path := messages[0].Metadata[oona.HeaderPath]; {
					case path != rawTopics.SeedRaw+"/3":
					case stuck:
						select {
						case <-release:
						case <-ctx.Done():
						}
					default:
						look()
					}
					return ctx.Err()
				}), nil)
				for range 60 {
					p.send(value)
				}
				synctest.Wait()
				look()
				for range 100 {
					p.sendTo(4, string(frames(nil)))
				}
				p.committed(4, 100)
				if stuck {
					p.settledTo(0)
				}
				t.Logf("%d bytes in use beyond idle", most)
				if most > 64<<20 {
					t.Errorf("%d bytes are in use beyond idle, want at most 64 MiB", most)
				}
				close(release)
				synctest.Wait()
				p.settledTo(60)
				p.end()
			})
		})
	}
}

// keepsNothing is a bus for tests that measure memory. Publish calls it and keeps no
// record.
type keepsNothing func(ctx context.Context, messages []*message.Message) error

func (keepsNothing) Close() error { return nil }

func (b keepsNothing) Publish(ctx context.Context, _ string, messages ...*message.Message) error {
	if len(messages) == 0 {
		return nil
	}
	return b(ctx, messages)
}

// The end of an assignment returns the memory of records that wait and of records that
// are being published.
func TestEndedAssignmentsGiveMemoryBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		onBus := newBus(t)
		p := startRaw(t, onBus, nil)
		if err := onBus.Freeze(rawTopics.SeedMetrics, 0); err != nil {
			t.Fatal(err)
		}
		for range 3 {
			p.send(string(frames(nil, nil)))
			synctest.Wait()
		}
		if n := onBus.Waiting(rawTopics.SeedMetrics, 0); n != 2 || p.memory.inUse()-p.beside < 3*intake.MessageBytes {
			t.Errorf("%d frames wait for the bus, %d bytes are in use", n, p.memory.inUse())
		}
		p.end() // checks the memory
	})
}

// Requests in progress do not exceed the limit of memory, whatever their encoding, and
// return all of it.
func TestMemoryOfRequests(t *testing.T) {
	if testing.Short() {
		t.Skip("it measures memory for long")
	}
	plain := frames(make([]func(*oona.Frame), 1000)...)
	container := bomb(t, 3)
	spaces := append([]byte(goodJSON), bytes.Repeat([]byte(" "), 3<<20)...)
	for name, c := range map[string]struct {
		mediaType, coding string
		body              []byte
	}{
		"frames":          {mediaAvro, "", plain},
		"gzip":            {mediaJSON, "gzip", gzipped(spaces)},
		"zstd":            {mediaJSON, "zstd", zstandarded(t, spaces)},
		"container":       {mediaAvro, "", container},
		"gzip, container": {mediaAvro, "gzip", gzipped(container)},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				release := make(chan struct{})
				s := newStage(t, keepsNothing(func(context.Context, []*message.Message) error { <-release; return nil }), func(c *Config) {
					c.MaxBodyBytes, c.MaxDecompressedBytes, c.MaxInFlight = 1<<20, 4<<20, 1000
					c.MaxMemoryBytes, c.ClientShare = c.leastMemory(), 1
				})
				idle := liveHeap()
				var served sync.WaitGroup
				var mu sync.Mutex
				codes := make(map[int]int)
				for range 100 {
					served.Go(func() {
						w := post(s, c.mediaType, c.body, "Content-Encoding", c.coding)
						mu.Lock()
						defer mu.Unlock()
						codes[w.Code]++
					})
					synctest.Wait()
				}
				time.Sleep(memoryWait)
				synctest.Wait()
				// Without --raw and a store, requests may use all memory.
				if used, beyond := liveHeap()-idle, int64(4<<20); used > s.cfg.MaxMemoryBytes+beyond {
					t.Errorf("%d bytes are in use, %d may be, %d are counted", used, s.cfg.MaxMemoryBytes, s.frames.inUse())
				}
				if s.frames.inUse() > s.cfg.MaxMemoryBytes || codes[http.StatusTooManyRequests] == 0 {
					t.Errorf("%d of %d bytes are in use, answers are %v", s.frames.inUse(), s.cfg.MaxMemoryBytes, codes)
				}
				close(release)
				served.Wait()
				if codes[http.StatusOK] < 2 || codes[http.StatusOK]+codes[http.StatusTooManyRequests] != 100 {
					t.Errorf("answers are %v", codes)
				}
				time.Sleep(time.Minute)
				if used := s.frames.inUse(); used != 0 {
					t.Errorf("%d bytes are not returned", used)
				}
			})
		})
	}
}

// The largest possible request fits into the memory if nothing else uses it.
func TestLargestRequestFits(t *testing.T) {
	s := newStage(t, &acknowledging{}, func(c *Config) { c.MaxMemoryBytes = c.leastMemory() })
	if w := post(s, mediaAvro, gzipped(bomb(t, 15)), "Content-Encoding", "gzip"); w.Code != http.StatusOK {
		t.Errorf("answered %d %s", w.Code, w.Body)
	}
}

// Decoders are kept or dropped by the size of their buffers, not of the body.
func TestDecodersOfSmallContainersAreNotKept(t *testing.T) {
	s := newStage(t, &acknowledging{}, func(c *Config) { c.MaxMessageBytes = 4 << 20 })
	var made []*intake.Decoder
	s.decoders.New = func() any {
		made = append(made, intake.NewDecoder(s.intake.Frame))
		return made[len(made)-1]
	}
	f := goodFrame(0)
	manySeeds(50_000)(f)
	manyMetrics(5)(f)
	body := containerOf(t, avro.AppendFrame(nil, f))
	if w := post(s, mediaAvro, body); w.Code != http.StatusOK || len(body) > pooled/8 {
		t.Fatalf("a container of %d bytes is answered %d %s", len(body), w.Code, w.Body)
	}
	for range 100 {
		if d, _ := s.decoders.Get().(*intake.Decoder); len(made) > 0 && d == made[0] {
			t.Fatalf("decoders that keep %d bytes are in the pool", d.Size())
		}
	}
}

func TestDefaultMemory(t *testing.T) {
	if c := DefaultConfig(); c.MaxMemoryBytes < c.leastMemory() || c.Validate() != nil {
		t.Errorf("%d bytes by default, %d at least: %v", c.MaxMemoryBytes, c.leastMemory(), c.Validate())
	}
}
