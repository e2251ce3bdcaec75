package ingest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/bus"
	"github.com/morphogenetic/oona/claimcheck"
)

var rawTopics = func() oona.Topics {
	topics, err := oona.NewTopics(oona.DefaultPrefix)
	if err != nil {
		panic(err)
	}
	return topics
}()

// topicBus is a publisher whose answers are scripted. It keeps what it has
// acknowledged, by topic.
type topicBus struct {
	answer func(topic string, messages []*message.Message) error // nil: everything is acknowledged

	mu    sync.Mutex
	calls map[string]int
	holds map[string][]*message.Message
}

func (*topicBus) Close() error { return nil }

func (b *topicBus) Publish(_ context.Context, topic string, messages ...*message.Message) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.calls == nil {
		b.calls, b.holds = make(map[string]int), make(map[string][]*message.Message)
	}
	if len(messages) == 0 {
		return nil
	}
	b.calls[topic]++
	if b.answer != nil {
		if err := b.answer(topic, messages); err != nil {
			return err
		}
	}
	b.holds[topic] = append(b.holds[topic], messages...)
	return nil
}

func (b *topicBus) on(topic string) []*message.Message {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.holds[topic]
}

// rawFixture is an assignment of partition 3, and what is read from it.
type rawFixture struct {
	*Raw
	stage    *Stage
	t        *testing.T
	about    bus.Assignment
	consumer *rawPartition
	next     int64
}

// claimRaw is to be called in a bubble of synctest.
func claimRaw(t *testing.T, onBus bus.Publisher, change func(*Config)) *rawFixture {
	t.Helper()
	stage := newStage(t, onBus, change)
	raw, err := NewRaw(stage, rawTopics, prometheus.NewRegistry(), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	p := &rawFixture{Raw: raw, stage: stage, t: t, about: bus.Assignment{
		Topic: rawTopics.SeedRaw, Partition: 3, Partitions: 4, LogStart: 10, LogEnd: 10, Committed: bus.Commit{Offset: 10},
	}, next: 10}
	p.consumer = p.assign(p.about)
	return p
}

// assign returns the consumer of an assignment whose reading begins at offset 10.
func (p *rawFixture) assign(a bus.Assignment) *rawPartition {
	p.t.Helper()
	from, consumer, err := p.Assign(p.t.Context(), a)
	if err != nil || from != 10 {
		p.t.Fatalf("it is read from offset %d, want 10 (%v)", from, err)
	}
	return consumer.(*rawPartition)
}

func (p *rawFixture) message(offset int64, value string, headers ...string) *message.Message {
	return messageOf(p.consumer, offset, value, headers...)
}

// messageOf is a record of an assignment.
func messageOf(of *rawPartition, offset int64, value string, headers ...string) *message.Message {
	msg := message.NewMessage("", message.Payload(value))
	msg.SetContext(bus.WithPosition(context.Background(), bus.Position{
		Topic: rawTopics.SeedRaw, Partition: of.assignment.Partition, Offset: offset, Appended: 1790000001500000, Key: []byte("a key"), Consumer: of,
	}))
	for i := 0; i+1 < len(headers); i += 2 {
		msg.Metadata.Set(headers[i], headers[i+1])
	}
	return msg
}

// read hands out the next record, as the bus does.
func (p *rawFixture) read(value string, headers ...string) {
	p.t.Helper()
	if err := p.handle(p.message(p.next, value, headers...)); err != nil {
		p.t.Error(err)
	}
	p.next++
}

// end ends the claim, and waits for what is on its way.
func (p *rawFixture) end() {
	p.consumer.Revoke()
	p.forwarding.Wait()
}

// settledTo asserts what may be committed.
func (p *rawFixture) settledTo(want int64) {
	p.t.Helper()
	synctest.Wait()
	if got, due := p.consumer.Commit(); got.Offset != want || due != (want > 10) {
		p.t.Errorf("commits offset %d, due %v; want %d", got.Offset, due, want)
	}
	p.consumer.End(p.next)
	if lag := testutil.ToFloat64(p.metrics.lag.WithLabelValues("3")); lag != float64(p.next-want) {
		p.t.Errorf("lag is %v, want %d", lag, p.next-want)
	}
	if settled := testutil.ToFloat64(p.metrics.settled.WithLabelValues("3")); settled != float64(want) {
		p.t.Errorf("settled to %v, want %d", settled, want)
	}
}

func TestRawFormsAreForwarded(t *testing.T) {
	const trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
	single := string(frames(nil))
	ofSeed := string(frames(func(f *oona.Frame) {
		f.Seeds, f.States = f.Seeds[:1], f.States[:1]
		for i := range f.Metrics {
			f.Metrics[i].Values = f.Metrics[i].Values[:1]
		}
	}))
	for name, form := range map[string]struct {
		value string
		want  []string
	}{
		"a frame":              {single, []string{single}},
		"a frame of one seed":  {ofSeed, []string{ofSeed}},
		"frames after another": {single + ofSeed, []string{single, ofSeed}},
		"a container":          {string(containerOf(t, []byte(single), []byte(ofSeed))), []string{single, ofSeed}},
		"JSON":                 {"\n " + goodJSON, []string{single}},
		"an array of JSON":     {"[" + goodJSON + "," + goodJSON + "]", []string{single, single}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				onBus := &topicBus{}
				p := claimRaw(t, onBus, nil)
				defer p.end()
				p.read(form.value, "traceparent", trace, "oona-record", "tick/1", "oona-path", "elsewhere", "$key", "x", "other", "x")
				p.settledTo(11)
				got := onBus.on(rawTopics.SeedMetrics)
				if len(got) != len(form.want) || len(onBus.on(rawTopics.SeedRawDead)) != 0 {
					t.Fatalf("%d frames, %d dead letters", len(got), len(onBus.on(rawTopics.SeedRawDead)))
				}
				want := message.Metadata{oona.HeaderPath: "kasmina.telemetry.seed.raw/3", "traceparent": trace}
				for i, m := range got {
					if string(m.Payload) != form.want[i] {
						t.Errorf("frame %d is %q, want %q", i, m.Payload, form.want[i])
					}
					if fmt.Sprint(m.Metadata) != fmt.Sprint(want) || string(bus.TargetOf(m).Key) != string(oona.Key("digits", "enc.1")) {
						t.Errorf("metadata is %q, key %q", m.Metadata, bus.TargetOf(m).Key)
					}
				}
				if c := p.stage.Counts(); c.Frames != int64(len(got)) || c.Requests != 0 {
					t.Errorf("counted: %+v", c)
				}
				if n := testutil.ToFloat64(p.metrics.records.WithLabelValues(rawForwarded)); n != 1 {
					t.Errorf("%v records are counted", n)
				}
			})
		})
	}
}

// A bad record is a dead letter, whole; what is around it goes on.
func TestRawDeadLetters(t *testing.T) {
	good := string(frames(nil))
	body := good[10:]
	for name, bad := range map[string]struct {
		value   string
		headers []string
		reason  reason
		detail  string
	}{
		"nothing":            {"", nil, reasonUndecodable, "the value is empty"},
		"white space":        {" \n", nil, reasonUndecodable, "the value is empty"},
		"registry framing":   {"\x00\x00\x00\x00\x07" + body, nil, reasonUndecodable, "ingest has no registry; send single-object encoding"},
		"registry in header": {body, []string{registrySchema, "\x01 0123456789abcdef"}, reasonUndecodable, "ingest has no registry"},
		"gzip":               {"\x1f\x8b\x08\x00\x00", nil, reasonUndecodable, "begins with 1f 8b 08 00"},
		"text":               {"hello", nil, reasonUndecodable, "begins with 68 65 6c 6c"},
		"not JSON":           {`{"run_id":`, nil, reasonUndecodable, "the body is not JSON"},
		"no frames":          {"[]", nil, reasonUndecodable, "the array is empty"},
		"cut off":            {good[:len(good)-3], nil, reasonUndecodable, "frame 0"},
		"unknown schema":     {good[:2] + "12345678" + body, nil, reasonUndecodable, "frame 0"},
		"a bad second frame": {string(frames(nil, func(f *oona.Frame) { f.Layer = "a b" })), nil, reasonInvalid, "frame 1: layer_id: has ' ' at position 1"},
		"junk behind":        {good + "x", nil, reasonUndecodable, "frame 1"},
		"a claim, no store":  {string(frames(withTensors(claimed(oona.TensorClaim{Bucket: "b", Key: "k", Size: 4})))), nil, reasonInvalid, "this ingest has no tensor store"},
		"many readings":      {strings.Replace(goodJSON, `"seed_ids":[0,1,2,3]`, `"seed_ids":[0,1,2,3,4]`, 1), nil, reasonTooLarge, "has more than 4 entries"},
		"many bytes":         {goodJSON + strings.Repeat(" ", 64<<10), nil, reasonTooLarge, "more than 65536 (--max-body-bytes)"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				onBus := &topicBus{}
				p := claimRaw(t, onBus, func(c *Config) { c.MaxReadings, c.MaxBodyBytes = 4, 64<<10 })
				defer p.end()
				p.read(good)
				p.read(bad.value, append(bad.headers, "of", "the producer", "$key", "x")...)
				p.read(good)
				p.settledTo(13)
				if got := onBus.on(rawTopics.SeedMetrics); len(got) != 2 {
					t.Errorf("%d frames are forwarded", len(got))
				}
				dead := onBus.on(rawTopics.SeedRawDead)
				if len(dead) != 1 {
					t.Fatalf("%d dead letters", len(dead))
				}
				m, to := dead[0].Metadata, bus.TargetOf(dead[0])
				if string(dead[0].Payload) != bad.value || string(to.Key) != "a key" || to.Time != 1790000001500000 || m["of"] != "the producer" || m["$key"] != "x" {
					t.Errorf("the record is not as it was: %q %q", dead[0].Payload, m)
				}
				if m[oona.HeaderErrorException] != string(bad.reason) || !strings.Contains(m[oona.HeaderErrorMessage], bad.detail) {
					t.Errorf("it is there for %s: %s", m[oona.HeaderErrorException], m[oona.HeaderErrorMessage])
				}
				if m[oona.HeaderErrorTopic] != rawTopics.SeedRaw || m[oona.HeaderErrorPartition] != "3" || m[oona.HeaderErrorOffset] != "11" || m[oona.HeaderErrorStage] != "ingest" {
					t.Errorf("it was at %q", m)
				}
				if n := testutil.ToFloat64(p.metrics.dead.WithLabelValues(string(bad.reason))); n != 1 {
					t.Errorf("%v are counted for %s", n, bad.reason)
				}
			})
		})
	}
}

// While the bus is down nothing is committed, and nothing overtakes; the records
// that come meanwhile are the next batch.
func TestRawWaitsForTheBus(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		down := true
		onBus := &topicBus{}
		onBus.answer = func(string, []*message.Message) error {
			if down {
				return errors.New("no broker")
			}
			return nil
		}
		p := claimRaw(t, onBus, nil)
		defer p.end()
		for i := range 50 {
			p.read(string(frames(func(f *oona.Frame) { f.Sequence = int64(i) })))
			synctest.Wait()
		}
		time.Sleep(time.Minute)
		p.settledTo(10)
		if n := testutil.ToFloat64(p.metrics.retries.WithLabelValues("frames")); n < 12 || n > 20 {
			t.Errorf("tried again %v times in a minute", n)
		}
		if p.handle(p.message(11, string(frames(nil)))) != nil { // delivered again
			t.Error("a repeat is refused")
		}
		onBus.mu.Lock()
		down, onBus.calls = false, make(map[string]int)
		onBus.mu.Unlock()
		time.Sleep(longestRawPause)
		p.settledTo(60)
		got := onBus.on(rawTopics.SeedMetrics)
		if len(got) != 50 || onBus.calls[rawTopics.SeedMetrics] != 2 {
			t.Fatalf("%d frames in %d calls", len(got), onBus.calls[rawTopics.SeedMetrics])
		}
		for i, m := range got {
			if want := frames(func(f *oona.Frame) { f.Sequence = int64(i) }); !bytes.Equal(m.Payload, want) {
				t.Fatalf("record %d is out of its order", i)
			}
		}
	})
}

// What waits is bounded, and a claim that ends lets go of who waits for room.
func TestRawIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		onBus := &topicBus{answer: func(string, []*message.Message) error { return errors.New("no broker") }}
		p := claimRaw(t, onBus, nil)
		large := string(frames(withTensors(inline(tensorBytes(1, 800_000)))))
		reading := make(chan struct{})
		go func() {
			defer close(reading)
			for range 100 {
				p.read(large)
			}
		}()
		time.Sleep(time.Hour)
		synctest.Wait()
		c := p.consumer
		c.mu.Lock()
		if most := int64(rawBatchBytes + len(large) + 2*messageBytes); c.bytes < rawBatchBytes || c.bytes > most {
			t.Errorf("%d bytes wait, at most %d may", c.bytes, most)
		}
		c.mu.Unlock()
		p.settledTo(10)
		p.end()
		<-reading
		if err := p.handle(p.message(200, large)); err != nil {
			t.Errorf("a record of a claim that has ended: %v", err)
		}
	})
}

// A record that waits for room does not outlive the bus's session, which waits
// for it: the claim ends only after that. It is not committed.
func TestRawRecordEndsWithItsSession(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		onBus := &topicBus{answer: func(string, []*message.Message) error { return errors.New("no broker") }}
		p := claimRaw(t, onBus, nil)
		session, end := context.WithCancel(t.Context())
		defer end()
		large := string(frames(withTensors(inline(tensorBytes(1, 800_000)))))
		read := make(chan int64)
		go func() {
			offset := p.next
			for ; session.Err() == nil; offset++ {
				msg := p.message(offset, large)
				at, err := bus.PositionOf(msg)
				if err != nil {
					t.Error(err)
					break
				}
				msg.SetContext(bus.WithPosition(session, at))
				if err := p.handle(msg); err != nil {
					t.Error(err)
				}
			}
			read <- offset
		}()
		time.Sleep(time.Minute)
		ended := time.Now()
		end()
		select {
		case p.next = <-read:
			p.settledTo(10)
			p.end()
		case <-time.After(time.Hour):
			t.Errorf("the record was held for %s after its session had ended", time.Since(ended))
			p.end()
			<-read
		}
	})
}

// The record waits while the store is down, and is a dead letter where the store
// will never take it.
func TestRawTensors(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newStore(t)
		var fault atomic.Pointer[error]
		store.fault = func(context.Context) error { return *fault.Load() }
		breaks := func(err error) { fault.Store(&err) }
		breaks(errors.New("no store"))
		onBus := &topicBus{}
		p := claimRaw(t, onBus, func(c *Config) { c.Tensors = store })
		defer p.end()
		p.read(string(frames(withTensors(inline(larger)))))
		time.Sleep(time.Minute)
		p.settledTo(10)
		if store.fired.Load() == 0 || len(onBus.on(rawTopics.SeedMetrics)) != 0 {
			t.Fatalf("the store failed %d times, the bus has %d frames", store.fired.Load(), len(onBus.on(rawTopics.SeedMetrics)))
		}
		breaks(nil)
		time.Sleep(longestRawPause)
		p.settledTo(11)
		got := onBus.on(rawTopics.SeedMetrics)
		if len(got) != 1 || !bytes.Equal(got[0].Payload, frames(withTensors(claimed(store.Claim(larger))))) || !store.has(t, larger) {
			t.Errorf("%d frames; stored: %v", len(got), store.has(t, larger))
		}

		dangling := string(frames(withTensors(claimed(store.Claim(aboveIt)))))
		p.read(dangling)
		p.settledTo(12)
		breaks(claimcheck.ErrMismatch)
		p.read(string(frames(withTensors(inline(aboveIt)))))
		p.settledTo(13)
		dead := onBus.on(rawTopics.SeedRawDead)
		if len(dead) != 2 || string(dead[0].Payload) != dangling ||
			dead[0].Metadata[oona.HeaderErrorException] != "dangling" || dead[1].Metadata[oona.HeaderErrorException] != "mismatch" {
			t.Errorf("dead letters: %v", dead)
		}
	})
}

// One record that the bus never takes does not hold up the others of its batch;
// a dead letter that its topic does not take is there without its value.
func TestRawTooLargeForTheBus(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		onBus := &topicBus{answer: func(_ string, messages []*message.Message) error {
			for _, m := range messages {
				if len(m.Payload) > 50_000 {
					return bus.ErrTooLarge
				}
			}
			return nil
		}}
		p := claimRaw(t, onBus, nil)
		defer p.end()
		for range 3 {
			p.read(string(frames(nil)))
		}
		p.read(string(frames(withTensors(inline(larger)))))
		p.read(string(frames(nil)))
		p.settledTo(15)
		dead := onBus.on(rawTopics.SeedRawDead)
		if got := onBus.on(rawTopics.SeedMetrics); len(got) != 4 || len(dead) != 1 {
			t.Fatalf("%d frames, %d dead letters", len(got), len(dead))
		}
		m := dead[0].Metadata
		if m[oona.HeaderErrorException] != "too-large" || m[oona.HeaderErrorOffset] != "13" || len(dead[0].Payload) != 0 || !strings.Contains(m[oona.HeaderErrorMessage], "left out") {
			t.Errorf("the dead letter is %q", m)
		}
	})
}

// What the bus refuses of several frames may be their batch. Of a record of which
// one frame is too large the dead letter says so, and that the bus has the others.
func TestRawFramesTooLargeTogether(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		onBus := &topicBus{answer: func(topic string, messages []*message.Message) error {
			if topic == rawTopics.SeedMetrics && (len(messages) > 1 || len(messages[0].Payload) > 50_000) {
				return bus.ErrTooLarge
			}
			return nil
		}}
		p := claimRaw(t, onBus, nil)
		defer p.end()
		p.read(string(frames(nil, nil, nil)))
		p.settledTo(11)
		if got, dead := onBus.on(rawTopics.SeedMetrics), onBus.on(rawTopics.SeedRawDead); len(got) != 3 || len(dead) != 0 {
			t.Fatalf("of a good record there are %d frames, %d dead letters", len(got), len(dead))
		}
		bad := string(frames(nil, withTensors(inline(larger)), nil))
		p.read(bad)
		p.settledTo(12)
		got, dead := onBus.on(rawTopics.SeedMetrics), onBus.on(rawTopics.SeedRawDead)
		if len(got) != 5 || len(dead) != 1 {
			t.Fatalf("%d frames, %d dead letters", len(got), len(dead))
		}
		m := dead[0].Metadata
		if string(dead[0].Payload) != bad || m[oona.HeaderErrorException] != "too-large" ||
			!strings.Contains(m[oona.HeaderErrorMessage], "refused 1 of the 3 frames as too large, the first of them frame 1, and has the other 2") {
			t.Errorf("the dead letter is %q", m)
		}
	})
}

// Records that retention has deleted are counted, and the rest is taken.
func TestRawOvertaken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := claimRaw(t, &topicBus{}, nil)
		p.end()
		p.about.Committed.Offset = 4
		p.assign(p.about).Revoke() // the session ended before anything was read
		p.consumer = p.assign(p.about)
		defer p.end()
		commit, _ := p.consumer.Commit()
		p.consumer.Committed(commit, nil)
		if n := testutil.ToFloat64(p.metrics.lost.WithLabelValues(lostRetention)); n != 6 {
			t.Errorf("%v records are counted as lost, want 6", n)
		}
		p.read(string(frames(nil)))
		p.settledTo(11)
		p.consumer.Committed(bus.Commit{Offset: 11}, errors.New("refused"))
		p.settledTo(11)
		p.consumer.Committed(bus.Commit{Offset: 11}, nil)
		if _, due := p.consumer.Commit(); due {
			t.Error("what is committed is committed again")
		}
	})
}
