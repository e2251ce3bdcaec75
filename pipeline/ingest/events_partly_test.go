package ingest

import (
	"errors"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/morphogenetic/oona/bus"
	"github.com/morphogenetic/oona/intake"
)

// TestEventsForSomeTopicsFail: a topic that cannot be used, or that fails for another reason, does not
// keep the events for other topics from the bus.
func TestEventsForSomeTopicsFail(t *testing.T) {
	outage := errors.New("no brokers")
	for name, c := range map[string]struct {
		faults map[string]error // by topic
		reason intake.Reason
		event  int // the index in the answer; -1 if there is none
		sent   []string
		named  []string // topics in the answer
	}{
		"two are missing, one is denied": {
			map[string]error{rawTopics.Germinated: bus.ErrNoTopic, rawTopics.Grafted: bus.ErrDenied, rawTopics.Culled: bus.ErrNoTopic},
			reasonNoTopic, -1, []string{rawTopics.Fossilized, rawTopics.Transitioned},
			[]string{rawTopics.Germinated, rawTopics.Grafted, rawTopics.Culled}},
		"too large for two, and the later one has the earlier event": {
			map[string]error{rawTopics.Fossilized: bus.ErrTooLarge, rawTopics.Transitioned: bus.ErrTooLarge},
			intake.ReasonTooLarge, 1, []string{rawTopics.Germinated, rawTopics.Grafted, rawTopics.Culled},
			[]string{rawTopics.Fossilized, rawTopics.Transitioned}},
		"too large for one, and a later one is missing": {
			map[string]error{rawTopics.Germinated: bus.ErrTooLarge, rawTopics.Transitioned: bus.ErrNoTopic},
			reasonNoTopic, -1, []string{rawTopics.Grafted, rawTopics.Fossilized, rawTopics.Culled},
			[]string{rawTopics.Transitioned}},
		"one does not answer": {
			map[string]error{rawTopics.Fossilized: outage},
			reasonPublish, -1, []string{rawTopics.Germinated, rawTopics.Grafted, rawTopics.Culled, rawTopics.Transitioned}, nil},
		"one is missing, and another does not answer": {
			map[string]error{rawTopics.Germinated: bus.ErrNoTopic, rawTopics.Fossilized: outage},
			reasonPublish, -1, []string{rawTopics.Grafted, rawTopics.Culled, rawTopics.Transitioned}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			onBus := withEvents(t, newBus(t))
			onBus.before = func(topic string, _ []*message.Message) error { return c.faults[topic] }
			s := newStage(t, onBus, takesEvents)
			w := postEvents(s, mediaAvro, events(life()...))
			got := decodeProblem(t, w)
			if w.Code != answers[c.reason].status || got.Type != "urn:oona:problem:"+string(c.reason) {
				t.Errorf("answer is %d %s", w.Code, w.Body)
			}
			if event := got.Event; (event != nil) != (c.event >= 0) || event != nil && *event != c.event {
				t.Errorf("the answer does not have event %d: %s", c.event, w.Body)
			}
			for _, topic := range rawTopics.Events() {
				if strings.Contains(got.Detail, topic) != slices.Contains(c.named, topic) {
					t.Errorf("the answer should name %v: %s", c.named, got.Detail)
				}
			}
			slices.Sort(c.sent)
			if on := slices.Sorted(maps.Keys(onBus.events(t))); !slices.Equal(on, c.sent) {
				t.Errorf("events are on %v, want %v", on, c.sent)
			}
			if n := s.Counts(); int(n.Unconfirmed) != len(life())-len(c.sent) || n.Events != 0 {
				t.Errorf("%d events are on the bus, and the counts are %+v", len(c.sent), n)
			}
			c.faults = nil
			if w := postEvents(s, mediaAvro, events(life()...)); w.Code != http.StatusOK {
				t.Errorf("the repeat is answered %d %s", w.Code, w.Body)
			}
		})
	}
}

// TestEventsWaitOnce: a request with events for several topics waits for the bus once, and not once for
// each topic.
func TestEventsWaitOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		onBus := withEvents(t, newBus(t))
		onBus.before = func(string, []*message.Message) error {
			time.Sleep(time.Second)
			return bus.ErrNoTopic
		}
		s := newStage(t, onBus, takesEvents)
		began := time.Now()
		w := postEvents(s, mediaAvro, events(life()...))
		if took := time.Since(began); took != time.Second || w.Code != http.StatusServiceUnavailable {
			t.Errorf("the answer came after %s: %d %s", took, w.Code, w.Body)
		}
		for _, topic := range lifeTopics() {
			if calls, _ := onBus.count(topic); calls != 1 {
				t.Errorf("%d attempts for %s", calls, topic)
			}
		}
	})
}

// TestEventsPartlySpooled: if a topic does not exist and the bus fails the others, those events
// are in the spool, and the answer does not say that all are.
func TestEventsPartlySpooled(t *testing.T) {
	s := newSpooling(t)
	withEvents(t, s.bus)
	down, tried := s.bus.before, make(chan struct{})
	s.bus.before = func(topic string, messages []*message.Message) error {
		if topic == rawTopics.Germinated {
			close(tried)
			return bus.ErrNoTopic
		}
		<-tried // once the bus is known to be unavailable, nothing is tried
		return down(topic, messages)
	}
	s.begin(takesEvents)
	s.leave(errors.New("the bus does not answer"))
	w := postEvents(s.Stage, mediaAvro, events(life()...))
	if got := decodeProblem(t, w); got.Type != "urn:oona:problem:no-topic" || !strings.Contains(got.Detail, rawTopics.Germinated) {
		t.Errorf("answer is %d %s", w.Code, w.Body)
	}
	if n := s.Counts().Unconfirmed; n != 1 {
		t.Errorf("%d events are unconfirmed, want 1", n)
	}
	s.down.Store(nil)
	s.drained()
	s.end()
	if found := s.bus.events(t); len(found) != len(life())-1 || len(found[rawTopics.Germinated]) > 0 {
		t.Errorf("events are on %v", slices.Collect(maps.Keys(found)))
	}
}
