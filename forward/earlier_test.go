package forward_test

import (
	"bytes"
	"errors"
	"testing"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/morphogenetic/oona/spool"
	"github.com/morphogenetic/oona/spool/entry"
)

// earlier is the queue without a name, in which an earlier version kept the messages of all topics.
type earlier struct {
	*spool.Spool
	t *testing.T
}

func (w *world) earlier() earlier {
	w.t.Helper()
	queue, err := w.spool.Queue("")
	if err != nil {
		w.t.Fatal(err)
	}
	return earlier{queue, w.t}
}

// keep appends message n of a run for a topic.
func (e earlier) keep(topic, run string, n int) error {
	m := messagesOf(run, n)
	return e.Append(e.t.Context(), entry.Runs(m), entry.Append(nil, &entry.Entry{Topic: topic, Messages: m}))
}

// both appends n messages of a run to each of two topics, in turn.
func (e earlier) both(run string, n int) {
	e.t.Helper()
	for i := range n {
		for _, topic := range []string{"events", "frames"} {
			if err := e.keep(topic, run, i); err != nil {
				e.t.Fatal(err)
			}
		}
	}
}

// A spool of an earlier version has one queue for all topics. The queue is sent in order. New messages
// of its runs are appended to it. Messages for a missing topic are moved to a queue of their own.
func TestSpoolOfAnEarlierVersion(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.away = true
	w.begin()
	old := w.earlier()
	old.both("a", 5)
	if err := old.Append(t.Context(), nil, []byte("no entry")); err != nil {
		t.Fatal(err)
	}
	if spooled, err := w.send("frames", "a", 5); err != nil || !spooled || old.Stats().Records != 12 {
		t.Fatalf("%t, %v: %+v", spooled, err, old.Stats())
	}
	w.missing["events"] = true
	w.run()
	w.set(func() { w.away = false })
	w.until("the frames are sent", func() bool { return len(w.topics["frames"]) == 6 && old.Empty() })
	w.has("frames", "a", 6)
	w.until("the events wait in their own queue", func() bool { return w.refused["events"] >= 2 && w.spool.Stats().Records == 5 })
	w.set(func() { w.missing["events"] = false })
	w.until("the events are sent", w.spool.Empty)
	w.has("events", "a", 5)
	w.end()
	w.counts(map[string]float64{"frames_total": 1, "sent_frames_total": 11, "set_aside_total": 1, "quarantine_bytes": float64(len("no entry"))})
}

// counts checks metrics of the spool.
func (w *world) counts(want map[string]float64) {
	w.t.Helper()
	for name, value := range want {
		if n := testutil.ToFloat64(collected(w.t, w.registry, "oona_ingest_spool_"+name)); n != value {
			w.t.Errorf("oona_ingest_spool_%s is %v, want %v", name, n, value)
		}
	}
}

// Messages stay in order when some are moved out of the queue of an earlier version: the moved ones are
// sent before those that came after them, even if the topic exists again a moment later.
func TestMovedStaysInOrder(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.begin()
	w.earlier().both("a", 5)
	w.missing["events"], w.once = true, true
	if left := w.Drain(t.Context()); left != 0 || w.refused["events"] != 1 {
		t.Errorf("%d records are left, and the topic was missing %d times", left, w.refused["events"])
	}
	w.has("events", "a", 5)
	w.has("frames", "a", 5)
	if err := w.spool.Close(); err != nil {
		t.Fatal(err)
	}
}

// The spool of an earlier version is full, and its next records are for a missing topic. They are moved
// although the spool is full, the records after them are sent, and the spool has room again. In the
// meantime, the spool exceeds its limit by a few files at most. No record is set aside.
func TestFullSpoolOfAnEarlierVersion(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.away = true
	w.begin()
	old := w.earlier()
	events, frames := 0, 0
	var err error
	for err == nil {
		if err = old.keep("events", "a", events); err == nil {
			events++
		}
		if events%7 == 0 && err == nil { // another topic ends a batch, so batches are small
			if err = old.keep("frames", "b", frames); err == nil {
				frames++
			}
		}
	}
	if full := w.spool.Stats(); !errors.Is(err, spool.ErrFull) || events < 100 || frames < 10 {
		t.Fatalf("%d events, %d frames, %v: %+v", events, frames, err, full)
	}
	var most int64
	w.mu.Lock()
	w.away, w.missing["events"] = false, true
	w.mu.Unlock()
	w.run()
	w.until("the frames are sent and the events wait in their own queue", func() bool {
		most = max(most, w.spool.Stats().Bytes)
		return len(w.topics["frames"]) == frames && old.Empty() && w.refused["events"] >= 3
	})
	w.has("frames", "b", frames)
	// A file may exceed SegmentBytes by one record, and the records of at most two files may be in both queues.
	if left := w.spool.Stats(); left.Records != int64(events) || most > w.opts.MaxBytes+3*w.opts.SegmentBytes || left.Bytes > w.opts.MaxBytes {
		t.Errorf("the spool had up to %d bytes, and then %+v", most, left)
	}
	w.set(func() { w.missing["events"] = false })
	w.until("all is sent", w.spool.Empty)
	w.has("events", "a", events)
	if n := testutil.ToFloat64(collected(t, w.registry, "oona_ingest_spool_set_aside_total")); n != 0 {
		t.Errorf("%v records are set aside", n)
	}
	w.end()
}

// If the file system has no room to move the records for a missing topic, this is logged once and not
// with each attempt.
func TestNoRoomToMove(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.away = true
	w.begin()
	if err := w.earlier().keep("events", "a", 0); err != nil {
		t.Fatal(err)
	}
	if err := w.spool.Close(); err != nil {
		t.Fatal(err)
	}
	w.opts.Headroom = 1 << 62
	w.begin()
	w.away, w.missing["events"] = false, true
	w.run()
	w.until("there were several attempts", func() bool { return w.refused["events"] >= 3 })
	w.end()
	if n := bytes.Count(w.log.Bytes(), []byte("topic=events")); n != 1 || w.refused["events"] < 3 {
		t.Errorf("%d attempts have logged %d lines:\n%s", w.refused["events"], n, &w.log)
	}
}
