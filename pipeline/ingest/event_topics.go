package ingest

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/morphogenetic/oona/bus"
	"github.com/morphogenetic/oona/intake"
	"github.com/morphogenetic/oona/internal/outage"
)

// eventTopics keeps track of the topics of events that cannot be used. Such a state lasts until an
// operator acts, and in the meantime the spool and the senders of events repeat their attempts. So it
// is logged when it begins, when the reason changes and when it ends, and rarely in between.
type eventTopics struct {
	mu       sync.Mutex
	unusable map[string]*outage.Outage
}

// noEventTopic is the warning if nothing can be published to a topic of events.
const noEventTopic = "a topic of events does not exist, or ingest may not write to it, so its events are not accepted; create it with oona topics apply, or allow ingest to write to it (docs/security.md#acls)"

// noForeignTopic is the warning if the topic is none of this installation's.
const noForeignTopic = "the spool has requests for a topic of another --prefix that does not exist, or that ingest may not write to; they stay in the spool; create the topic, grant the access, or start ingest with the --prefix that it had"

// foreign reports whether a topic is none of this installation's. The spool may have requests for such
// topics if ingest had another --prefix before.
func (s *sink) foreign(topic string) bool {
	return topic != s.cfg.Topic && !slices.Contains(s.cfg.Events.AllEvents(), topic)
}

// fails reports whether a failure must be logged, and how many were not logged since the last
// line.
func (t *eventTopics) fails(topic string, err error, now time.Time) (skipped int, say bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	of := t.unusable[topic]
	if of == nil {
		of = new(outage.Outage)
		t.unusable[topic] = of
	}
	reason := "missing"
	if errors.Is(err, bus.ErrDenied) {
		reason = "denied"
	}
	return of.Fails(reason, now)
}

// works records that a topic has accepted events, and reports whether it could not be used before.
func (t *eventTopics) works(topic string) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	of := t.unusable[topic]
	return of != nil && of.Ends()
}

// eventTopicError says that a topic of events does not exist, or that ingest may not write
// to it. Frames do not need it, so ingest runs without it.
type eventTopicError struct {
	topic   string
	why     error
	foreign bool // the topic is none of this installation's; it may also have been one of frames
}

func (e *eventTopicError) Error() string {
	if e.foreign {
		return fmt.Sprintf("the topic %s of another --prefix does not exist, or ingest may not write to it (%v)", e.topic, e.why)
	}
	if errors.Is(e.why, bus.ErrDenied) {
		return fmt.Sprintf("ingest may not write to the topic %s, so events are not accepted; the operator must allow it on the bus", e.topic)
	}
	return fmt.Sprintf("the topic %s does not exist, so events are not accepted; the operator must create it with: oona topics apply", e.topic)
}

func (e *eventTopicError) Unwrap() error { return e.why }

// ofEventTopic reports whether an error is about a single topic of events.
func ofEventTopic(err error) bool {
	_, is := errors.AsType[*eventTopicError](err)
	return is
}

// eventsError says that a request's events for some topics were not accepted, for reasons that do
// not concern the other topics. The events for those are on the bus or in the spool.
type eventsError struct {
	unusable []*eventTopicError
	tooLarge []*tooLargeError
}

// add adds an error, if it concerns a single topic.
func (e *eventsError) add(err error) bool {
	if unusable, ok := errors.AsType[*eventTopicError](err); ok {
		e.unusable = append(e.unusable, unusable)
		return true
	}
	if tooLarge, ok := errors.AsType[*tooLargeError](err); ok {
		e.tooLarge = append(e.tooLarge, tooLarge)
		return true
	}
	return false
}

func (e *eventsError) empty() bool { return len(e.unusable)+len(e.tooLarge) == 0 }

func (e *eventsError) Error() string { return errors.Join(e.Unwrap()...).Error() }

func (e *eventsError) Unwrap() (causes []error) {
	for _, unusable := range e.unusable {
		causes = append(causes, unusable)
	}
	for _, tooLarge := range e.tooLarge {
		causes = append(causes, tooLarge)
	}
	return causes
}

// refusal refuses the batch. That a topic cannot be used comes first: the sender keeps the events
// after that, and after a refusal for their size it would drop them.
func (e *eventsError) refusal(b *intake.Batch) *intake.Refusal {
	var why []string
	if len(e.unusable) > 0 { // publishOnce has logged it
		for _, unusable := range e.unusable {
			why = append(why, unusable.Error())
		}
		return intake.Refuse(reasonNoTopic, "%s; keep the events until then, and send them again", strings.Join(why, "; ")).After(time.Minute)
	}
	first := len(b.Messages)
	for _, tooLarge := range e.tooLarge {
		why = append(why, tooLarge.Error())
		first = min(first, tooLarge.first(b))
	}
	return intake.Refuse(intake.ReasonTooLarge, "%s", strings.Join(why, "; ")).OfEvent(first, "")
}
