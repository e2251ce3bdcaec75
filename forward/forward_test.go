package forward_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/bus"
	"github.com/morphogenetic/oona/forward"
	"github.com/morphogenetic/oona/spool"
	"github.com/morphogenetic/oona/spool/entry"
)

var (
	errAway    = errors.New("the bus does not answer")
	errMissing = errors.New("the topic is missing")
)

// world is a forwarder with a spool, and a bus that tests can make unavailable or without some topics.
type world struct {
	*forward.Forwarder
	t          *testing.T
	dir        string
	spool      *spool.Queues
	registry   *prometheus.Registry
	log        bytes.Buffer
	opts       spool.Options
	rate       int64
	lapsed     func([]*message.Message) map[oona.RunID]int
	stop       context.CancelFunc
	ended      chan error
	mu         sync.Mutex
	away       bool
	noTopic    map[string]bool // topics that are missing and must not be refused, as that of frames
	missing    map[string]bool
	once       bool           // whether a missing topic exists from the second attempt on
	refused    map[string]int // number of attempts for a missing topic
	attempted  func()         // called at each attempt; may be nil
	topics     map[string][]string
	attempts   map[string]int // by message
	permitted  int            // number of batches that the bus still accepts; negative: no limit
	progressed chan struct{}  // closed and replaced at each attempt
}

func newWorld(t *testing.T) *world {
	t.Helper()
	return &world{
		t: t, dir: t.TempDir(), missing: make(map[string]bool), noTopic: make(map[string]bool), attempts: make(map[string]int), refused: make(map[string]int), topics: make(map[string][]string), permitted: -1, rate: 1 << 30, progressed: make(chan struct{}),
		opts:   spool.Options{MaxBytes: 16 << 10, SegmentBytes: 512, RecordBytes: 1 << 12, Keys: forward.Keys, Logger: slog.New(slog.DiscardHandler)},
		lapsed: func([]*message.Message) map[oona.RunID]int { return nil },
	}
}

func (w *world) publish(_ context.Context, topic string, messages []*message.Message) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, m := range messages {
		w.attempts[string(m.Payload)]++
	}
	defer func() {
		close(w.progressed)
		w.progressed = make(chan struct{})
	}()
	if w.attempted != nil {
		w.attempted()
	}
	switch {
	case w.noTopic[topic]:
		return fmt.Errorf("publish: %w", bus.ErrNoTopic)
	case w.away || w.permitted == 0:
		return errAway
	case w.missing[topic]:
		w.refused[topic]++
		w.missing[topic] = !w.once
		return errMissing
	}
	if w.permitted > 0 {
		w.permitted--
	}
	for _, m := range messages {
		w.topics[topic] = append(w.topics[topic], string(m.Payload))
	}
	return nil
}

// set changes what the bus does.
func (w *world) set(change func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	change()
}

// until waits until a condition holds. It checks the condition after each attempt to publish.
func (w *world) until(what string, so func() bool) {
	w.t.Helper()
	for deadline := time.Now().Add(5 * time.Minute); ; {
		w.mu.Lock()
		progressed, is := w.progressed, so()
		w.mu.Unlock()
		if is {
			return
		}
		if time.Now().After(deadline) {
			w.t.Fatalf("the test has waited too long until %s: %+v", what, w.spool.Stats())
		}
		select {
		case <-progressed:
		case <-time.After(10 * time.Millisecond): // the condition may become true some time after the bus has answered
		}
	}
}

func (w *world) begin() {
	w.t.Helper()
	var err error
	if w.spool, err = spool.OpenQueues(w.dir, w.opts); err != nil {
		w.t.Fatal(err)
	}
	w.registry = prometheus.NewRegistry()
	w.Forwarder, err = forward.New(forward.Config{
		Publish:   w.publish,
		Permanent: func(err error) bool { return errors.Is(err, errMissing) },
		Refused:   func(error) []int { return nil },
		OfTopic:   func(err error) bool { return errors.Is(err, errMissing) },
		Lapsed:    func(_ oona.Micros, all []*message.Message) map[oona.RunID]int { return w.lapsed(all) },
		After:     time.Minute, Timeout: time.Minute, BytesPerSecond: w.rate,
		Logger: slog.New(slog.NewTextHandler(&w.log, nil)),
	}, w.spool, w.registry)
	if err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) run() {
	ctx, cancel := context.WithCancel(w.t.Context())
	w.stop, w.ended = cancel, make(chan error, 1)
	go func() { w.ended <- w.Run(ctx) }()
}

func (w *world) end() {
	w.t.Helper()
	w.stop()
	if err := errors.Join(<-w.ended, w.spool.Close()); err != nil {
		w.t.Fatal(err)
	}
}

func messagesOf(run string, n int) []*message.Message {
	return []*message.Message{bus.NewMessage(fmt.Appendf(nil, "%s %04d", run, n), bus.Target{Key: oona.Key(oona.RunID(run), "l")})}
}

func (w *world) send(topic, run string, n int) (spooled bool, err error) {
	released := make(chan struct{})
	spooled, err = w.Send(topic, messagesOf(run, n), func() { close(released) })
	<-released
	return spooled, err
}

// fill sends messages of a run to two topics in turn until the spool is full. It returns how
// many messages of each topic are in the spool.
func (w *world) fill(run string) (frames, events int) {
	w.t.Helper()
	for {
		for i, topic := range []string{"frames", "events"} {
			spooled, err := w.send(topic, run, []int{frames, events}[i])
			if errors.Is(err, spool.ErrFull) {
				return frames, events
			}
			if err != nil || !spooled {
				w.t.Fatalf("message %d to %s: %t, %v", []int{frames, events}[i], topic, spooled, err)
			}
			if topic == "frames" {
				frames++
			} else {
				events++
			}
		}
	}
}

// has checks that the bus has n messages of a run in a topic, in order and each of them once.
func (w *world) has(topic, run string, n int) {
	w.t.Helper()
	w.mu.Lock()
	defer w.mu.Unlock()
	var want []string
	for i := range n {
		want = append(want, fmt.Sprintf("%s %04d", run, i))
	}
	got := slices.DeleteFunc(slices.Clone(w.topics[topic]), func(s string) bool { return s[:len(run)] != run })
	if !slices.Equal(got, want) {
		w.t.Errorf("%s has %d messages of %s, want %d: %q", topic, len(got), run, n, got)
	}
}

// A missing topic delays only its own messages, even if the spool is full: the others are sent, the
// spool has room again, nothing is written twice, and further messages for the topic are refused.
// When the topic exists again, its messages are sent in order. No record is set aside.
func TestMissingTopic(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.away = true
	w.begin()
	frames, events := w.fill("a")
	full := w.spool.Stats()
	if events < 100 || full.Bytes < w.opts.MaxBytes*9/10 || full.Refused == 0 {
		t.Fatalf("the spool is not full: %+v", full)
	}
	w.missing["events"] = true
	w.run()
	w.set(func() { w.away = false })
	w.until("the frames are sent and the events are refused several times", func() bool {
		return len(w.topics["frames"]) == frames && w.refused["events"] >= 3
	})
	w.until("only the events are left", func() bool { return w.spool.Stats().Records == int64(events) })
	w.has("frames", "a", frames)
	for n := range 3 { // these do not go to the spool, although it has events of the run
		if spooled, err := w.send("frames", "a", frames+n); err != nil || spooled {
			t.Fatalf("a frame: %t, %v", spooled, err)
		}
	}
	if spooled, err := w.send("events", "a", events); !errors.Is(err, errMissing) || spooled {
		t.Errorf("an event after those that wait: %t, %v", spooled, err)
	}
	left := w.spool.Stats()
	if left.Records != int64(events) || left.Appended != full.Appended || left.Bytes > full.Bytes*2/3 {
		t.Errorf("the full spool had %+v, and now has %+v", full, left)
	}
	w.end()
	refused := w.refused["events"]
	w.begin() // another process
	w.run()
	w.until("the events are refused again", func() bool { return w.refused["events"] > refused })
	w.set(func() { w.missing["events"] = false })
	w.until("the events are sent", w.spool.Empty)
	w.has("frames", "a", frames+3)
	w.has("events", "a", events)
	if n := testutil.ToFloat64(collected(t, w.registry, "oona_ingest_spool_set_aside_total")); n != 0 {
		t.Errorf("%v records are set aside", n)
	}
	if spooled, err := w.send("events", "b", 0); err != nil || spooled {
		t.Errorf("an event of another run: %t, %v", spooled, err)
	}
	w.end()
}

// collected returns a collector with the current value of a metric of a registry.
func collected(t *testing.T, r *prometheus.Registry, name string) prometheus.Collector {
	t.Helper()
	families, err := r.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == name {
			g := prometheus.NewGauge(prometheus.GaugeOpts{Name: "value"})
			g.Set(f.GetMetric()[0].GetCounter().GetValue() + f.GetMetric()[0].GetGauge().GetValue())
			return g
		}
	}
	t.Fatalf("there is no metric %s", name)
	return nil
}

// At the end of a process, the messages for a missing topic stay in the spool, and the others
// are sent.
func TestDrainWithoutATopic(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.away = true
	w.begin()
	frames, events := w.fill("a")
	w.away, w.missing["events"] = false, true
	if left := w.Drain(t.Context()); left != int64(events) || w.refused["events"] != 1 {
		t.Errorf("%d records are left, want %d", left, events)
	}
	w.has("frames", "a", frames)
	w.missing["events"] = false
	if left := w.Drain(t.Context()); left != 0 {
		t.Errorf("%d records are left", left)
	}
	w.has("events", "a", events)
	if err := w.spool.Close(); err != nil {
		t.Fatal(err)
	}
}

// A full spool takes messages again long before it is empty.
func TestFullSpoolIsSent(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.away = true
	w.opts.MaxBytes, w.opts.SegmentBytes = 4<<20, 64<<10
	w.opts.RecordBytes = 128 << 10
	w.begin()
	large := func(n int) error {
		m := messagesOf("a", n)
		m[0].Payload = append(m[0].Payload, make([]byte, 50<<10)...)
		spooled, err := w.Send("frames", m, func() {})
		if err == nil && !spooled {
			t.Fatalf("message %d does not wait for the earlier ones", n)
		}
		return err
	}
	n := 0
	for ; ; n++ {
		if err := large(n); errors.Is(err, spool.ErrFull) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
	}
	w.set(func() { w.away, w.permitted = false, 8 })
	w.run()
	w.until("a part is sent", func() bool { return w.permitted == 0 && w.spool.Stats().Records < int64(n) })
	more := 0
	for ; ; more++ {
		if err := large(n + more); errors.Is(err, spool.ErrFull) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
	}
	if left := w.spool.Stats(); more < 10 || left.Records < int64(n/2) {
		t.Errorf("%d messages were in the full spool, and only %d more fit after eight batches were sent: %+v", n, more, left)
	}
	w.set(func() { w.permitted = -1 })
	w.until("all is sent", w.spool.Empty)
	w.mu.Lock()
	for i, got := range w.topics["frames"] {
		if want := fmt.Sprintf("a %04d", i); got[:len(want)] != want {
			t.Fatalf("message %d is %q", i, got[:len(want)])
		}
	}
	if len(w.topics["frames"]) != n+more {
		t.Errorf("%d messages are sent, want %d", len(w.topics["frames"]), n+more)
	}
	w.mu.Unlock()
	w.end()
}

// Frames that have become too old in the spool are counted and logged after they are sent.
func TestLapsedFrames(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.away = true
	w.lapsed = func(all []*message.Message) map[oona.RunID]int {
		return map[oona.RunID]int{oona.RunID(entry.Runs(all)[0]): 1}
	}
	w.begin()
	for n := range 3 {
		for _, run := range []string{"a", "b"}[:1+n%2] {
			if spooled, err := w.send("frames", run, n); err != nil || !spooled {
				t.Fatalf("%t, %v", spooled, err)
			}
		}
	}
	w.away = false
	if left := w.Drain(t.Context()); left != 0 {
		t.Fatalf("%d are left", left)
	}
	if n := testutil.ToFloat64(collected(t, w.registry, "oona_ingest_spool_stale_frames_total")); n != 4 {
		t.Errorf("%v frames are counted", n)
	}
	for _, want := range []string{"run=a frames=3", "run=b frames=1"} {
		if !bytes.Contains(w.log.Bytes(), []byte(want)) {
			t.Errorf("the log lacks %q:\n%s", want, &w.log)
		}
	}
	if err := w.spool.Close(); err != nil {
		t.Fatal(err)
	}
}
