package deadletters_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/bus"
	"github.com/morphogenetic/oona/deadletters"
)

// outcome writes a record to the topic of redrives.
func (w *world) outcome(key, value string) {
	w.t.Helper()
	w.publish(w.topics.Redrives, bus.NewMessage([]byte(value), bus.Target{Key: []byte(key), Directed: true}))
}

// A record of the topic of redrives that cannot be read concerns only the letter of its
// key. Nothing is done about that letter until the record is removed.
func TestUnreadableOutcomes(t *testing.T) {
	t.Parallel()
	values := []string{
		"{", "null", "7", `{"version":1}`, `{"version":1,"state":"sent"}`, `{"state":"done"}`, `{"version":2,"state":"done"}`, `{"version":1,"state":"done","at":7}`,
	}
	bad := len(values)
	w := newWorld(t)
	key := func(i int) string { return fmt.Sprintf("%s/1/77/%d", w.topics.SeedMetrics, i) }
	for i := range bad + 1 {
		w.letter(w.topics.Quarantine, frameMessage(frame(int64(i), time.Now())), int64(i), "future")
	}
	for i, value := range values {
		w.outcome(key(i), value)
	}
	w.outcome("nothing of ours", "?")
	var log bytes.Buffer
	if _, err := deadletters.OpenLedger(t.Context(), w.bus, w.topics, slog.New(slog.NewTextHandler(&log, nil))); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(log.String(), "key="+key(0)) || strings.Count(log.String(), "level=WARN") != bad+1 {
		t.Errorf("log: %s", log.String())
	}
	if report := w.run(w.redrive()); report.Redriven != 1 || report.Refused["unreadable"] == nil || report.Refused["unreadable"].Count != bad {
		t.Errorf("redrive: %+v", report)
	}
	for _, undo := range []bool{false, true} {
		if report := w.discard(w.redrive().Box, undo); report.Changed != 0 || report.Unreadable != bad {
			t.Errorf("discard: %+v", report)
		}
	}
	if s := w.states(); s[deadletters.Unreadable] != bad {
		t.Errorf("states %v", s)
	}
	for i := range bad {
		w.outcome(key(i), "") // a tombstone
	}
	if report := w.run(w.redrive()); report.Redriven != bad || report.Done != 1 {
		t.Errorf("afterwards: %+v", report)
	}
}

// discard discards all letters, as a call does that has read the ledger of a box.
func (w *world) discard(box *deadletters.Box, undo bool) deadletters.DiscardReport {
	w.t.Helper()
	return w.discardBy(w.publisher, box, undo)
}

func (w *world) discardBy(publisher bus.Publisher, box *deadletters.Box, undo bool) deadletters.DiscardReport {
	w.t.Helper()
	d := deadletters.Discard{Box: box, Publisher: publisher, Call: "d", By: "bob", Undo: undo}
	report, err := d.Run(w.t.Context())
	if err != nil {
		w.t.Fatal(err)
	}
	return report
}

// interrupted is a publisher that does something before it publishes to a topic the first
// time.
type interrupted struct {
	bus.Publisher
	topic  string
	before func()
}

func (i *interrupted) Publish(ctx context.Context, topic string, messages ...*message.Message) error {
	if before := i.before; before != nil && topic == i.topic {
		i.before = nil
		before()
	}
	return i.Publisher.Publish(ctx, topic, messages...)
}

// A discard does not undo what another call does at the same time, whenever that is.
func TestDiscardDuringRedrive(t *testing.T) {
	t.Parallel()
	redriven := func(w *world) { w.run(w.redrive()) }
	killed := func(w *world) {
		r := w.redrive()
		r.Repair.Epoch = 42
		r.Publisher = &mortal{Publisher: w.publisher, dies: func(topic string, published bool) bool { return topic == w.topics.SeedMetrics && published }}
		if _, err := r.Run(w.t.Context()); !errors.Is(err, errKilled) {
			w.t.Fatal(err)
		}
	}
	for name, tt := range map[string]struct {
		other   func(*world)
		changed int // by discard
		want    deadletters.State
	}{
		"redriven":                      {redriven, 0, deadletters.Done},
		"a redrive that was cut off":    {killed, 1, deadletters.Discarded},
		"discarded":                     {func(w *world) { w.discard(w.redrive().Box, false) }, 0, deadletters.Discarded},
		"an outcome that is unreadable": {func(w *world) { w.outcome(w.topics.SeedMetrics+"/1/77/0", "?") }, 0, deadletters.Unreadable},
	} {
		for _, between := range []bool{false, true} { // reading on and writing
			if between && (tt.want == deadletters.Unreadable || name == "discarded") {
				continue // then it is discarded, by both of them
			}
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				w := newWorld(t)
				w.letter(w.topics.Quarantine, frameMessage(frame(0, time.Now())), 0, "future")
				box, publisher := w.redrive().Box, w.publisher
				if between {
					publisher = &interrupted{publisher, w.topics.Redrives, func() { tt.other(w) }}
				} else {
					tt.other(w)
				}
				if report := w.discardBy(publisher, box, false); report.Changed != tt.changed {
					t.Errorf("%+v", report)
				}
				if s := w.states(); s[tt.want] != 1 {
					t.Errorf("states %v, want %s", s, tt.want)
				}
				if tt.want != deadletters.Discarded || tt.changed == 0 {
					return
				}
				w.discard(w.redrive().Box, true)
				if report := w.run(w.redrive()); report.Finished != 1 { // with the frames of the redrive that was cut off
					t.Errorf("%+v", report)
				}
				for _, f := range w.redriven() {
					if f.Epoch != 42 {
						t.Errorf("a frame has the epoch %d", f.Epoch)
					}
				}
			})
		}
	}
}

// A side topic may have a letter several times. It is one letter for discard, too.
func TestRepeatsAreDiscardedOnce(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	msg := frameMessage(frame(0, time.Now()))
	w.letter(w.topics.Overflow, msg, 0, "layers")
	w.letter(w.topics.Overflow, msg, 0, "layers")
	if report := w.discard(w.redrive().Box, false); report.Selected != 2 || report.Changed != 1 {
		t.Errorf("%+v", report)
	}
}

// narrow is a publisher for a topic that refuses large messages, one by one.
type narrow struct {
	bus.Publisher
	topic string
	most  int
}

func (n *narrow) Publish(ctx context.Context, topic string, messages ...*message.Message) error {
	var taken []*message.Message
	refused := &bus.PublishError{Topic: topic, Messages: len(messages)}
	for i, m := range messages {
		if topic == n.topic && len(m.Payload) > n.most {
			refused.Failed = append(refused.Failed, bus.FailedMessage{Index: i, Err: bus.ErrTooLarge})
			continue
		}
		taken = append(taken, m)
	}
	if len(taken) > 0 {
		if err := n.Publisher.Publish(ctx, topic, taken...); err != nil || len(refused.Failed) == 0 {
			return err
		}
	}
	return refused
}

// wide is a frame that is larger than others.
func wide(sequence int64, at time.Time) *oona.Frame {
	f := frame(sequence, at)
	for i := range 100 {
		f.Seeds = append(f.Seeds, oona.SeedID(10+i))
		f.States = append(f.States, oona.Training)
		f.Metrics[0].Values = append(f.Metrics[0].Values, 1)
	}
	return f
}

// A letter of which the topic takes some frames stays pending, so that they are never sent
// with another identity. One of which it takes none is open again.
func TestFramesThatAreTooLarge(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	counts := w.aggregate()
	at := time.Now()
	raw := func(offset int64, frames ...*oona.Frame) {
		var value []byte
		for _, f := range frames {
			value = append(value, frameMessage(f).Payload...)
		}
		w.letter(w.topics.SeedRawDead, bus.NewMessage(value, bus.Target{Key: []byte("any")}), offset, "tensors")
	}
	raw(0, frame(0, at), wide(1, at), frame(2, at))
	raw(1, wide(3, at))
	raw(2, frame(4, at), frame(5, at))
	first := w.redrive()
	first.Publisher = &narrow{w.publisher, w.topics.SeedMetrics, 400}
	if report := w.run(first); report.Redriven != 1 || report.Refused["too-large"] == nil || report.Refused["too-large"].Count != 2 {
		t.Errorf("%+v", report)
	}
	if s := w.states(); s[deadletters.Pending] != 1 || s[deadletters.Open] != 1 || s[deadletters.Done] != 1 {
		t.Errorf("states %v", s)
	}
	second := w.redrive() // the topic takes them now
	second.Repair.Epoch = 42
	if report := w.run(second); report.Redriven != 2 || report.Finished != 1 {
		t.Errorf("%+v", report)
	}
	for _, f := range w.redriven() {
		if (f.Epoch == 42) != (f.Sequence == 3) {
			t.Errorf("frame %d has the epoch %d", f.Sequence, f.Epoch)
		}
	}
	sent := int64(len(w.redriven()))
	if c := counts(sent); c.Folded != 6 || c.Duplicate != sent-6 {
		t.Errorf("%+v, sent %d", c, sent)
	}
}

// A frame that conflicts with another one is not sent again as it is.
func TestConflictsNeedAnIdentity(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		repair deadletters.Repair
		sent   int
	}{
		"as it is":          {deadletters.Repair{}, 0},
		"with other values": {deadletters.Repair{Filter: `sed 's/3\.25/3.5/'`}, 0},
		"another epoch":     {deadletters.Repair{Epoch: 42}, 1},
		"another sequence":  {deadletters.Repair{Filter: `sed 's/"sequence":0/"sequence":9/'`}, 1},
		"another time":      {deadletters.Repair{Shift: time.Hour}, 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			w.letter(w.topics.Quarantine, frameMessage(frame(0, time.Now())), 0, "conflict")
			r := w.redrive()
			r.Repair = tt.repair
			if report := w.run(r); report.Redriven != tt.sent || (report.Refused["conflict"] == nil) != (tt.sent == 1) {
				t.Errorf("%+v", report)
			}
		})
	}
}
