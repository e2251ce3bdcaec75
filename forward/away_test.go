package forward_test

import (
	"bytes"
	"errors"
	"testing"

	"github.com/morphogenetic/oona/bus"
)

// An earlier process has left a record in the spool, and the bus does not accept it. That is logged
// once, with the reason. So is the end of the outage. Requests that go to the spool in the meantime are
// not logged.
func TestAwayIsLogged(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.away = true
	w.begin()
	if spooled, err := w.send("frames", "a", 0); err != nil || !spooled {
		t.Fatalf("%t, %v", spooled, err)
	}
	if err := w.spool.Close(); err != nil {
		t.Fatal(err)
	}
	w.log.Reset()
	w.begin()
	attempts := 0
	w.attempted = func() { attempts++ }
	w.run()
	w.until("there were several attempts", func() bool { return attempts >= 3 })
	for n := 1; n < 4; n++ {
		if spooled, err := w.send("frames", "b", n-1); err != nil || !spooled {
			t.Fatalf("%t, %v", spooled, err)
		}
	}
	w.set(func() { w.away = false })
	w.until("all is sent", w.spool.Empty)
	w.end()
	if away, back := bytes.Count(w.log.Bytes(), []byte("level=WARN")), bytes.Count(w.log.Bytes(), []byte("level=INFO")); away != 1 || back != 1 || !bytes.Contains(w.log.Bytes(), []byte(errAway.Error()+`"`)) {
		t.Errorf("%d warnings and %d notes:\n%s", away, back, &w.log)
	}
}

// After a failed attempt, requests of other runs go to the spool without an attempt, until the spool
// can be sent. Otherwise each would wait until its own attempt fails.
func TestAwayIsNotTriedAgain(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.away = true
	w.begin()
	attempts := 0
	w.attempted = func() { attempts++ }
	for _, run := range []string{"a", "b", "c"} {
		if spooled, err := w.send("frames", run, 0); err != nil || !spooled {
			t.Fatalf("%t, %v", spooled, err)
		}
	}
	if attempts != 1 {
		t.Errorf("%d attempts, want 1", attempts)
	}
	if err := w.spool.Close(); err != nil {
		t.Fatal(err)
	}
}

// If the bus answers that the topic of frames does not exist, frames are kept in the spool, and the log
// names the topic.
func TestMissingTopicIsNamed(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.noTopic["frames"] = true
	w.begin()
	if spooled, err := w.send("frames", "a", 0); err != nil || !spooled {
		t.Fatalf("%t, %v", spooled, err)
	}
	for _, field := range []string{"level=WARN", "topic=frames", bus.ErrNoTopic.Error()} {
		if !bytes.Contains(w.log.Bytes(), []byte(field)) {
			t.Errorf("the log lacks %q:\n%s", field, &w.log)
		}
	}
	w.noTopic["frames"] = false
	if left := w.Drain(t.Context()); left != 0 {
		t.Errorf("%d are left", left)
	}
}

// The topic of frames and a topic of events are missing together. The bus answers for the one topic as
// long as it does for the other, but requests do not try again what the lane of their topic tries
// already. Other topics are not affected.
func TestTwoTopicsAreMissing(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.away = true
	w.begin()
	if spooled, err := w.send("events", "a", 0); err != nil || !spooled {
		t.Fatalf("%t, %v", spooled, err)
	}
	w.away, w.missing["events"], w.noTopic["frames"] = false, true, true
	if spooled, err := w.send("other", "a", 0); err != nil || !spooled { // the bus is not known to be back
		t.Fatalf("%t, %v", spooled, err)
	}
	w.run()
	w.until("the bus is known to answer", func() bool { return len(w.topics["other"]) == 1 && w.refused["events"] > 0 })
	w.until("that is noted", func() bool { return w.spool.Stats().Records == 1 })
	if spooled, err := w.send("frames", "b", 0); err != nil || !spooled {
		t.Fatalf("%t, %v", spooled, err)
	}
	refused := 0
	w.set(func() { refused = w.refused["events"] })
	w.until("the request and the lane have tried to send the frame, and the events were refused again", func() bool {
		return w.attempts["b 0000"] >= 2 && w.refused["events"] >= refused+2
	})
	if spooled, err := w.send("frames", "c", 0); err != nil || !spooled {
		t.Errorf("frames: %t, %v", spooled, err)
	}
	if spooled, err := w.send("events", "d", 0); !errors.Is(err, errMissing) || spooled {
		t.Errorf("events: %t, %v", spooled, err)
	}
	if spooled, err := w.send("other", "a", 1); err != nil || spooled {
		t.Errorf("events of another topic: %t, %v", spooled, err)
	}
	w.set(func() {
		if c, d := w.attempts["c 0000"], w.attempts["d 0000"]; c > 0 || d > 0 {
			t.Errorf("messages for topics that are known to be missing were tried %d and %d times", c, d)
		}
		w.missing["events"], w.noTopic["frames"] = false, false
	})
	w.until("all is sent", w.spool.Empty)
	w.has("frames", "b", 1)
	w.has("frames", "c", 1)
	w.has("events", "a", 1)
	w.end()
}
