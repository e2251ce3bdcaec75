package ingest

import (
	"bytes"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/bus"
	"github.com/morphogenetic/oona/internal/outage"
	"github.com/morphogenetic/oona/schemas/avro"
)

// TestEventsWithoutTopics: frames need no topics of events, and events are refused with what
// to do, also if there is a spool.
func TestEventsWithoutTopics(t *testing.T) {
	spooled := newSpooling(t)
	spooled.begin(takesEvents)
	defer spooled.end()
	for name, s := range map[string]*Stage{"": newStage(t, newBus(t), takesEvents), "with a spool": spooled.Stage} {
		w := postEvents(s, mediaAvro, events(life()...))
		got := problem{}
		if err := json.Unmarshal(w.Body.Bytes(), &got); err != nil || w.Code != http.StatusServiceUnavailable || got.Type != "urn:oona:problem:no-topic" || w.Header().Get("Retry-After") == "" {
			t.Errorf("%s: answer is %d %s", name, w.Code, w.Body)
		}
		if w := post(s, mediaAvro, frames(nil)); w.Code != http.StatusOK {
			t.Errorf("%s: frames are answered %d %s", name, w.Code, w.Body)
		}
	}
	if !spooled.cfg.Spool.Open.Empty() {
		t.Error("something is in the spool")
	}
}

// TestEventTopicIsLoggedOnce: that a topic of events cannot be used is logged once, with its
// name, and again when the reason changes, after some minutes, and when it works. Before, it was
// logged every ten seconds as long as the topic was missing, and a second topic was not.
func TestEventTopicIsLoggedOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		onBus := withEvents(t, newBus(t))
		fault := bus.ErrNoTopic
		onBus.before = func(string, []*message.Message) error { return fault }
		var log bytes.Buffer
		s := newStage(t, onBus, takesEvents)
		s.logger = slog.New(slog.NewTextHandler(&log, nil))
		attempts := func(want int, topics ...string) {
			t.Helper()
			log.Reset()
			for range 3 {
				for _, topic := range topics {
					if err := s.publishTo(t.Context(), topic, []*message.Message{bus.NewMessage([]byte("an event"), bus.Target{Key: []byte("k")})}); !errors.Is(err, fault) || ofEventTopic(err) != (fault != nil) {
						t.Fatalf("%s: %v", topic, err)
					}
				}
				time.Sleep(20 * time.Second)
			}
			if n := strings.Count(log.String(), "topic="); n != want {
				t.Errorf("%d lines, want %d: %s", n, want, &log)
			}
		}
		attempts(1, rawTopics.Culled)
		attempts(1, rawTopics.Culled, rawTopics.Grafted) // of grafted
		time.Sleep(outage.Again)
		attempts(2, rawTopics.Culled, rawTopics.Grafted)
		fault = bus.ErrDenied
		attempts(1, rawTopics.Culled)
		fault = nil
		attempts(1, rawTopics.Culled)
		attempts(0, rawTopics.Culled)
		fault = bus.ErrNoTopic
		attempts(1, rawTopics.Culled)
	})
}

// TestEventTopicGoesBetweenAttempts: the error of a topic that cannot be used is the same if this is
// noticed only when the events of a batch that is too large are published one by one.
func TestEventTopicGoesBetweenAttempts(t *testing.T) {
	for _, fault := range []error{bus.ErrNoTopic, bus.ErrDenied} {
		onBus := withEvents(t, newBus(t))
		onBus.before = func(_ string, messages []*message.Message) error {
			if len(messages) > 1 {
				return bus.ErrTooLarge
			}
			return fault
		}
		s := newStage(t, onBus, takesEvents)
		var batch []*message.Message
		for range 2 {
			batch = append(batch, bus.NewMessage([]byte("an event"), bus.Target{Key: []byte("k")}))
		}
		err := s.publishTo(t.Context(), rawTopics.Culled, batch)
		if of, is := errors.AsType[*eventTopicError](err); !is || of.topic != rawTopics.Culled || !errors.Is(err, fault) {
			t.Errorf("%v became %v", fault, err)
		}
		if calls, _ := onBus.count(rawTopics.Culled); calls != 2 {
			t.Errorf("%d attempts", calls)
		}
	}
}

// TestTopicOfAnotherPrefix: the spool may have frames for a topic of an earlier --prefix. If it is
// missing, it is not called a topic of events. It delays no other topic.
func TestTopicOfAnotherPrefix(t *testing.T) {
	onBus := withEvents(t, newBus(t))
	onBus.before = func(string, []*message.Message) error { return bus.ErrNoTopic }
	s := newStage(t, onBus, takesEvents)
	for topic, foreign := range map[string]bool{rawTopics.Culled: false, "earlier.telemetry.seed.metrics": true} {
		err := s.publishTo(t.Context(), topic, []*message.Message{bus.NewMessage([]byte("a frame"), bus.Target{Key: []byte("k")})})
		if of, is := errors.AsType[*eventTopicError](err); !is || of.foreign != foreign || !ofEventTopic(err) || !errors.Is(err, bus.ErrNoTopic) {
			t.Errorf("%s: %#v", topic, err)
		}
	}
}

// TestEventsSpooled: events go through the spool while the bus does not answer, in order with the
// frames of their run, to the topics and the partition that they would have gone to.
func TestEventsSpooled(t *testing.T) {
	s := newSpooling(t)
	withEvents(t, s.bus)
	s.begin(takesEvents)
	s.leave(errors.New("the bus does not answer"))
	want := map[string]int{}
	for sequence := range int64(8) {
		for i, e := range life() {
			e.Sequence = sequence
			want[lifeTopics()[i]]++
		}
		all := life()
		for _, e := range all {
			e.Sequence = sequence
		}
		if w := postEvents(s.Stage, mediaAvro, events(all...)); w.Code != http.StatusAccepted {
			t.Fatalf("answer is %d %s", w.Code, w.Body)
		}
		s.want(http.StatusAccepted, "digits", int(sequence), int(sequence)+1)
	}
	s.end()
	s.down.Store(nil)
	s.begin(takesEvents) // another process
	s.drained()
	found := s.bus.events(t)
	for topic, n := range want {
		if len(found[topic]) != n {
			t.Fatalf("%s has %d events, want %d", topic, len(found[topic]), n)
		}
		for i, m := range found[topic] {
			var e oona.SeedEvent
			if _, err := avro.DecodeEvent(m.Payload, &e); err != nil || e.Sequence != int64(i) {
				t.Errorf("%s: event %d has sequence %d (%v)", topic, i, e.Sequence, err)
			}
			at, err := bus.PositionOf(m)
			if err != nil || at.Partition != bus.PartitionOf([]byte("digits"), eventPartitions) || m.Metadata[oona.HeaderEventType] != topic {
				t.Errorf("%s: event %d is in partition %d (%v)", topic, i, at.Partition, err)
			}
		}
	}
	s.end()
}

// TestEventsDoNotHoldUpTheSpool: events whose topics cannot be used let the frames behind them
// pass, also when the process ends, and come in order when their topics can be used.
func TestEventsDoNotHoldUpTheSpool(t *testing.T) {
	for name, denied := range map[string]error{"missing": bus.ErrNoTopic, "denied": bus.ErrDenied} {
		s := newSpooling(t)
		withEvents(t, s.bus)
		var unusable atomic.Bool
		down := s.bus.before
		s.bus.before = func(topic string, messages []*message.Message) error {
			if topic != rawTopics.SeedMetrics && unusable.Load() {
				return denied
			}
			return down(topic, messages)
		}
		unusable.Store(true)
		s.begin(takesEvents)
		if w := postEvents(s.Stage, mediaAvro, events(life()...)); w.Code != http.StatusServiceUnavailable || !s.cfg.Spool.Open.Empty() {
			t.Fatalf("%s: answer is %d %s", name, w.Code, w.Body)
		}
		unusable.Store(false)
		s.leave(errors.New("the bus does not answer"))
		for sequence := range int64(2) {
			if w := postEvents(s.Stage, mediaAvro, events(goodEvent(sequence, oona.Training, oona.Culled))); w.Code != http.StatusAccepted {
				t.Fatalf("%s: answer is %d %s", name, w.Code, w.Body)
			}
		}
		s.want(http.StatusAccepted, "digits", 0, 3)
		unusable.Store(true)
		s.down.Store(nil)
		for deadline := time.Now().Add(5 * time.Minute); len(s.sequences("digits")) < 3; time.Sleep(time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("%s: the events hold up the frames", name)
			}
		}
		s.want(http.StatusOK, "another", 0, 1)
		s.end()
		unusable.Store(false)
		s.begin(takesEvents)
		s.drained()
		s.inOrder("digits", 3)
		found := s.bus.events(t)[rawTopics.Culled]
		if len(found) != 2 {
			t.Fatalf("%s: %d events are on the bus", name, len(found))
		}
		for i, m := range found {
			var e oona.SeedEvent
			if _, err := avro.DecodeEvent(m.Payload, &e); err != nil || e.Sequence != int64(i) {
				t.Errorf("%s: event %d has sequence %d (%v)", name, i, e.Sequence, err)
			}
		}
		s.end()
	}
}
