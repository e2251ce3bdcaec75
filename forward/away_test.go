package forward_test

import (
	"bytes"
	"fmt"
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
	w.why = fmt.Errorf("publish: %w", bus.ErrNoTopic)
	w.begin()
	if spooled, err := w.send("frames", "a", 0); err != nil || !spooled {
		t.Fatalf("%t, %v", spooled, err)
	}
	for _, field := range []string{"level=WARN", "topic=frames", bus.ErrNoTopic.Error()} {
		if !bytes.Contains(w.log.Bytes(), []byte(field)) {
			t.Errorf("the log lacks %q:\n%s", field, &w.log)
		}
	}
	w.why = nil
	if left := w.Drain(t.Context()); left != 0 {
		t.Errorf("%d are left", left)
	}
}
