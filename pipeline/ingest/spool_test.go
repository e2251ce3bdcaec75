package ingest

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/alecthomas/units"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/bus"
	"github.com/morphogenetic/oona/forward"
	"github.com/morphogenetic/oona/schemas/avro"
	spoolentry "github.com/morphogenetic/oona/spool/entry"
	"github.com/morphogenetic/oona/windows"
)

// spooling is a stage with a spool. Tests can make its bus unavailable.
type spooling struct {
	*Stage
	t      *testing.T
	dir    string
	bus    *testBus
	down   atomic.Pointer[error] // the error that Publish returns; nil if the bus is available
	failed atomic.Int64          // number of calls of Publish that have returned this error
	// If hang is set, Publish returns only when its context has ended.
	hang atomic.Bool

	running  *running
	registry *prometheus.Registry
}

func newSpooling(t *testing.T) *spooling {
	t.Helper()
	s := &spooling{t: t, dir: t.TempDir(), bus: newBus(t)}
	s.bus.before = func(string, []*message.Message) error {
		if err := s.down.Load(); err != nil {
			s.failed.Add(1)
			return *err
		}
		return nil
	}
	return s
}

// Publish implements bus.Publisher.
func (s *spooling) Publish(ctx context.Context, topic string, messages ...*message.Message) error {
	if s.hang.Load() {
		<-ctx.Done()
		time.Sleep(20 * time.Millisecond) // the answer arrives later than necessary
		return context.Cause(ctx)
	}
	return s.bus.Publish(ctx, topic, messages...)
}

func (s *spooling) Close() error { return s.bus.Close() }

func (s *spooling) leave(err error) { s.down.Store(&err) }

func (s *spooling) begin(change func(*Config)) {
	s.t.Helper()
	s.configure(change)
	s.running = startStage(s.t, s.Stage)
}

// configure makes a stage without running it.
func (s *spooling) configure(change func(*Config)) {
	s.t.Helper()
	cfg := DefaultConfig()
	cfg.Topic, cfg.Instance = rawTopics.SeedMetrics, "ingest-1"
	cfg.PublishTimeout = time.Minute // so that a busy machine does not cause a timeout; only a bus that hangs reaches it
	cfg.Spool.Directory, cfg.Spool.After, cfg.Spool.Headroom = s.dir, time.Minute, 0
	if change != nil {
		change(&cfg)
	}
	var err error
	if cfg.Spool.Open, err = cfg.OpenSpool(slog.New(slog.DiscardHandler)); err != nil {
		s.t.Fatal(err)
	}
	s.registry = prometheus.NewRegistry()
	if s.Stage, err = New(cfg, s, s.registry, slog.New(slog.DiscardHandler)); err != nil {
		s.t.Fatal(err)
	}
}

// end stops the stage and closes the spool, as at the end of the process.
func (s *spooling) end() {
	s.t.Helper()
	s.running.cancel()
	if err := errors.Join(<-s.running.ended, s.cfg.Spool.Open.Close()); err != nil {
		s.t.Fatal(err)
	}
}

// send sends a frame and returns the status of the answer.
func (s *spooling) send(run oona.RunID, sequence int) int {
	f := goodFrame(int64(sequence))
	f.Run = run
	return post(s.Stage, mediaAvro, avro.AppendFrame(nil, f)).Code
}

func (s *spooling) want(status int, run oona.RunID, from, end int) {
	s.t.Helper()
	for i := from; i < end; i++ {
		if got := s.send(run, i); got != status {
			s.t.Fatalf("frame %d of %s is answered %d, want %d", i, run, got, status)
		}
	}
}

// hasty sets short timeouts, for tests in which the bus hangs.
func hasty(c *Config) { c.PublishTimeout, c.Spool.After = 200*time.Millisecond, time.Second }

// again stops the stage and starts another one.
func (s *spooling) again(change func(*Config)) {
	s.t.Helper()
	s.end()
	s.begin(change)
}

// drained waits until the spool is empty.
func (s *spooling) drained() {
	s.t.Helper()
	for deadline := time.Now().Add(5 * time.Minute); !s.cfg.Spool.Open.Empty(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			s.t.Fatalf("the spool is not drained: %+v", s.cfg.Spool.Open.Stats())
		}
	}
}

// sequences returns the sequence numbers of a run's frames on the bus, in order.
func (s *spooling) sequences(run oona.RunID) (all []int64) {
	s.t.Helper()
	for _, m := range s.bus.on(s.t, rawTopics.SeedMetrics) {
		var d avro.FrameDecoder
		var f oona.Frame
		if _, err := d.Decode(m.Payload, &f); err != nil {
			s.t.Fatal(err)
		}
		if f.Run == run {
			all = append(all, f.Sequence)
		}
	}
	return all
}

func (s *spooling) inOrder(run oona.RunID, n int) {
	s.t.Helper()
	got := s.sequences(run)
	if len(got) != n {
		s.t.Fatalf("the bus has the frames %v of %s, want %d", got, run, n)
	}
	for i, sequence := range got {
		if sequence != int64(i) {
			s.t.Fatalf("the bus has the frames %v of %s", got, run)
		}
	}
}

// While the bus is unavailable, frames are accepted with 202. When it is back, they are sent to the
// bus in order, even if ingest was restarted in the meantime.
func TestSpool(t *testing.T) {
	for name, leave := range map[string]func(*spooling){
		"an error": func(s *spooling) { s.leave(fmt.Errorf("publish: %w", bus.ErrUnreachable)) },
		"silence": func(s *spooling) {
			s.again(hasty)
			s.hang.Store(true)
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := newSpooling(t)
			s.begin(nil)
			s.want(http.StatusOK, "a", 0, 5)
			if n := s.cfg.Spool.Open.Stats(); n.Appended != 0 || n.Bytes != 0 {
				t.Errorf("the spool was used while the bus was available: %+v", n)
			}
			leave(s)
			s.want(http.StatusAccepted, "a", 5, 15)
			s.want(http.StatusAccepted, "b", 0, 10)
			if s.hang.Load() {
				s.again(hasty)
			} else {
				s.again(nil)
			}
			s.want(http.StatusAccepted, "a", 15, 20)
			if s.hang.Swap(false) {
				s.again(nil)
			}
			s.down.Store(nil)
			s.drained()
			s.want(http.StatusOK, "a", 20, 25)
			s.inOrder("a", 25)
			s.inOrder("b", 10)
			s.end()
		})
	}
}

// While the spool is sent, new frames of the runs in the spool are added to it, and frames of other
// runs go directly to the bus.
func TestOrderAcrossTheSpool(t *testing.T) {
	const first, waiting = 100, 107
	s := newSpooling(t)
	s.begin(func(c *Config) { c.Spool.Rate = 1 << 10 }) // so slow that the first request takes more than ten seconds
	s.leave(bus.ErrUnreachable)
	var body []byte
	for i := range int64(first) {
		f := goodFrame(i)
		f.Run = "a"
		body = avro.AppendFrame(body, f)
	}
	if w := post(s.Stage, mediaAvro, body); w.Code != http.StatusAccepted || len(body) < 10<<10 {
		t.Fatalf("%d bytes are answered %d %s", len(body), w.Code, w.Body)
	}
	for s.failed.Load() < 2 { // one attempt for the request, and one from the spool, whose batch has only this record
		time.Sleep(time.Millisecond)
	}
	s.want(http.StatusAccepted, "a", first, waiting)
	s.down.Store(nil)
	for s.cfg.Spool.Open.Stats().Records == 1+waiting-first {
		time.Sleep(time.Millisecond)
	}
	spooled, direct := 0, 0
	for i := waiting; !s.cfg.Spool.Open.Empty(); i++ {
		switch s.send("a", i) {
		case http.StatusAccepted:
			spooled++
		case http.StatusOK:
		default:
			t.Fatal("a frame was refused")
		}
		if got := s.send("b", direct); got != http.StatusOK {
			t.Fatalf("frame %d of another run is answered %d; %+v", direct, got, s.cfg.Spool.Open.Stats())
		}
		direct++
		if i == waiting+32 {
			break
		}
		time.Sleep(5 * time.Millisecond)
	}
	if spooled == 0 || direct == 0 {
		t.Errorf("%d frames were added to the spool, %d went directly to the bus", spooled, direct)
	}
	s.end()
	s.begin(nil)
	s.drained()
	s.inOrder("b", direct)
	got := s.sequences("a")
	seen := int64(-1)
	for _, sequence := range got { // after the restart, a frame may be on the bus twice
		if sequence > seen+1 {
			t.Fatalf("the bus has the frames %v", got)
		}
		seen = max(seen, sequence)
	}
	s.end()
}

// A stage that is stopped sends the content of the spool in order before it ends. If the bus is
// unavailable, it ends at once.
func TestSpoolIsDrainedAtTheEnd(t *testing.T) {
	for name, test := range map[string]struct {
		drain time.Duration
		back  bool
		left  bool
	}{
		"the bus is back":         {drain: time.Minute, back: true},
		"the bus does not answer": {drain: time.Minute, left: true},
		"there is no time left":   {back: true, left: true},
	} {
		t.Run(name, func(t *testing.T) {
			s := newSpooling(t)
			s.begin(func(c *Config) { c.Spool.Drain = test.drain })
			s.leave(bus.ErrUnreachable)
			s.want(http.StatusAccepted, "a", 0, 20)
			for s.failed.Load() < 4 { // after four attempts, the pause before the next one is longer than the rest of the test needs
				time.Sleep(time.Millisecond)
			}
			if test.back {
				s.down.Store(nil)
			}
			s.running.cancel()
			if err := <-s.running.ended; err != nil {
				t.Fatal(err)
			}
			if left := !s.cfg.Spool.Open.Empty(); left != test.left {
				t.Errorf("frames are left: %t", left)
			}
			if !test.left {
				s.inOrder("a", 20)
			}
			if err := s.cfg.Spool.Open.Close(); err != nil {
				t.Fatal(err)
			}
			s.down.Store(nil)
			s.begin(nil)
			s.drained()
			s.inOrder("a", 20)
			s.end()
		})
	}
}

// If the spool is full, frames are refused with 503 and the reason spool-full. When the bus is back,
// frames are accepted again.
func TestFullSpool(t *testing.T) {
	s := newSpooling(t)
	s.begin(func(c *Config) { c.Spool.Headroom = 1 << 60 })
	s.leave(bus.ErrUnreachable)
	w := post(s.Stage, mediaAvro, frames(nil))
	if w.Code != http.StatusServiceUnavailable || w.Header().Get("Retry-After") == "" || decodeProblem(t, w).Type != "urn:oona:problem:spool-full" {
		t.Errorf("answer is %d %s", w.Code, w.Body)
	}
	s.down.Store(nil)
	s.want(http.StatusOK, "digits", 1, 2)
	s.end()
}

// A changed number of partitions is not an outage. The client gets an error, and nothing is spooled.
func TestPartitionsAreNotSpooled(t *testing.T) {
	s := newSpooling(t)
	s.begin(nil)
	s.leave(bus.ErrPartitions)
	s.want(http.StatusServiceUnavailable, "a", 0, 3)
	if n := s.cfg.Spool.Open.Stats(); n.Appended != 0 {
		t.Errorf("%+v", n)
	}
	s.end()
}

// A record that the bus will never accept is set aside, and does not block the records after it.
func TestHopelessRecord(t *testing.T) {
	s := newSpooling(t)
	s.begin(nil)
	s.leave(bus.ErrUnreachable)
	s.want(http.StatusAccepted, "a", 0, 1)
	s.want(http.StatusAccepted, "large", 1, 2)
	s.want(http.StatusAccepted, "a", 1, 2)
	s.end()
	s.bus.before = func(_ string, messages []*message.Message) error {
		for _, m := range messages {
			if string(bus.TargetOf(m).Key) == string(oona.Key("large", "enc.1")) {
				return bus.ErrTooLarge
			}
		}
		return nil
	}
	s.begin(nil)
	s.drained()
	s.inOrder("a", 2)
	if got := s.sequences("large"); len(got) != 0 {
		t.Errorf("the bus has %v", got)
	}
	if n := s.cfg.Spool.Open.Stats(); n.Kept == 0 {
		t.Errorf("the record is not kept: %+v", n)
	}
	s.end()
}

// If a record was already read from the spool when the process has to end, Drain sends it in order.
// It must not count as sent before that.
func TestSpoolIsReadAtTheEnd(t *testing.T) {
	s := newSpooling(t)
	s.configure(nil)
	s.leave(errors.New("the bus does not answer"))
	s.want(http.StatusAccepted, "digits", 0, 5)
	s.down.Store(nil)
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.forward.Run(ended); err != nil {
		t.Fatal(err)
	}
	s.want(http.StatusAccepted, "digits", 5, 6)
	if left := s.forward.Drain(t.Context()); left != 0 {
		t.Errorf("%d records are left", left)
	}
	s.inOrder("digits", 6)
	if err := s.cfg.Spool.Open.Close(); err != nil {
		t.Fatal(err)
	}
}

// A frame in the spool has lapsed if it was recent enough when it was accepted, and is too old now.
func TestLapsed(t *testing.T) {
	cfg := windows.DefaultConfig()
	limits := windows.NewLimits([][]windows.Configuration{{{Config: cfg}}})
	now, hour := oona.MicrosOf(time.Now()), oona.Micros(time.Hour/time.Microsecond)
	delay := oona.Micros(cfg.MaxDelay / time.Microsecond)
	var messages []*message.Message
	for run, at := range map[oona.RunID]oona.Micros{"fresh": now - hour, "lapsed": now - delay - hour, "stale": now - delay - 3*hour} {
		for i := range 2 {
			f := goodFrame(int64(i))
			f.Run, f.ObservedAt = run, at
			messages = append(messages, bus.NewMessage(avro.AppendFrame(nil, f), bus.Target{Key: oona.Key(run, f.Layer)}))
		}
	}
	messages = append(messages, bus.NewMessage([]byte("no frame"), bus.Target{}), bus.NewMessage(avro.AppendEvent(nil, goodEvent(0, oona.Training, oona.Culled)), bus.Target{}))
	j := new(judge)
	if got := j.lapsed(now-2*hour, messages); got != nil {
		t.Errorf("without limits, %v have lapsed", got)
	}
	j.limits.Store(limits)
	if got := j.lapsed(now-2*hour, messages); len(got) != 1 || got["lapsed"] != 2 {
		t.Errorf("%v have lapsed", got)
	}
}

// Frames that become too old in the spool are counted when it is sent.
func TestFramesLapseInTheSpool(t *testing.T) {
	s := newSpooling(t)
	s.configure(nil)
	s.leave(bus.ErrUnreachable)
	s.want(http.StatusAccepted, "a", 0, 3) // observed a moment ago, so within the limits below
	cfg := windows.DefaultConfig()
	s.SetLimits(windows.NewLimits([][]windows.Configuration{{{Config: cfg}}}))
	f := goodFrame(3)
	f.Run, f.ObservedAt = "old", oona.MicrosOf(time.Now().Add(-cfg.MaxDelay-time.Hour))
	m := bus.NewMessage(avro.AppendFrame(nil, f), bus.Target{Key: oona.Key(f.Run, f.Layer)})
	queue, err := s.cfg.Spool.Open.Queue(rawTopics.SeedMetrics)
	if err != nil {
		t.Fatal(err)
	}
	body := spoolentry.Append(nil, &spoolentry.Entry{Spooled: oona.MicrosOf(time.Now().Add(-2 * time.Hour)), Topic: rawTopics.SeedMetrics, Messages: []*message.Message{m}})
	if err := queue.Append(t.Context(), forward.Keys(body), body); err != nil {
		t.Fatal(err)
	}
	s.down.Store(nil)
	if left := s.forward.Drain(t.Context()); left != 0 {
		t.Fatalf("%d records are left", left)
	}
	families, err := s.registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	found := false
	for _, family := range families {
		if family.GetName() == "oona_ingest_spool_stale_frames_total" {
			found = family.GetMetric()[0].GetCounter().GetValue() == 1
		}
	}
	if !found || len(s.sequences("old")) != 1 {
		t.Errorf("counted %t; the bus has %v", found, s.sequences("old"))
	}
	if err := s.cfg.Spool.Open.Close(); err != nil {
		t.Fatal(err)
	}
}

// Each file of a spool is a small part of it, so that space becomes free while the spool is sent.
func TestSegmentsOfASpool(t *testing.T) {
	for _, bytes := range []units.Base2Bytes{leastSpool, 64 << 20, 1 << 30, 1 << 40} {
		s := defaultSpool()
		s.Bytes = bytes
		if err := s.validate(); err != nil || s.segmentBytes() > int64(bytes)/16 || s.segmentBytes() < 1<<20 {
			t.Errorf("a spool of %s has files of %d bytes (%v)", bytes, s.segmentBytes(), err)
		}
	}
	s := defaultSpool()
	s.Bytes = leastSpool - 1
	if _, is := errors.AsType[*oona.FieldError](s.validate()); !is {
		t.Error("a spool may be smaller than its files allow")
	}
}

// The spool and the forwarder get the configured values.
func TestSettingsOfTheSpool(t *testing.T) {
	s := newSpooling(t)
	s.configure(func(c *Config) {
		c.Spool.Bytes, c.Spool.Headroom, c.Spool.After, c.Spool.Rate = 128<<20, 3<<20, 7*time.Second, 5<<20
		c.PublishTimeout = 11 * time.Second
	})
	if of := s.cfg.SpoolOptions(s.logger); of.MaxBytes != 128<<20 || of.Headroom != 3<<20 || of.SegmentBytes != 2<<20 {
		t.Errorf("the spool gets %+v", of)
	}
	if of := s.forwarding(s.logger); of.After != 7*time.Second || of.Timeout != 11*time.Second || of.BytesPerSecond != 5<<20 {
		t.Errorf("the forwarder gets After %s, Timeout %s, %d bytes per second", of.After, of.Timeout, of.BytesPerSecond)
	}
	if err := s.cfg.Spool.Open.Close(); err != nil {
		t.Fatal(err)
	}
}
