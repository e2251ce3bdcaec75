package forward_test

import (
	"bytes"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/bus"
)

// large returns a message that is so large that three fill a batch. Its content depends on n.
func large(n int) *message.Message {
	payload := append(fmt.Appendf(nil, "a %04d", n), bytes.Repeat([]byte{byte(n)}, 60<<10)...)
	return bus.NewMessage(payload, bus.Target{Key: oona.Key("a", "l")})
}

// spoolLarge spools count large messages, in one file.
func (w *world) spoolLarge(count int) {
	w.t.Helper()
	w.away = true
	w.opts.MaxBytes, w.opts.SegmentBytes, w.opts.RecordBytes = 16<<20, 16<<20, 1<<20
	w.begin()
	for n := range count {
		if spooled, err := w.Send("frames", []*message.Message{large(n)}, func() {}); err != nil || !spooled {
			w.t.Fatalf("%t, %v", spooled, err)
		}
	}
	w.set(func() { w.away = false })
}

// The messages of a batch do not change while the spool reads further records of the batch.
func TestBatchesOfLargeRecords(t *testing.T) {
	t.Parallel()
	const count = 30
	w := newWorld(t)
	w.spoolLarge(count)
	if left := w.Drain(t.Context()); left != 0 {
		t.Errorf("%d records are left", left)
	}
	for n, got := range w.topics["frames"] {
		if got != string(large(n).Payload) {
			t.Errorf("message %d has %d bytes and begins with %q", n, len(got), got[:6])
		}
	}
	if n := len(w.topics["frames"]); n != count {
		t.Errorf("%d messages, want %d", n, count)
	}
	if err := w.spool.Close(); err != nil {
		t.Fatal(err)
	}
}

// The spool is sent at the configured rate, while ingest runs and when it stops.
func TestRate(t *testing.T) {
	for _, stopping := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			const count = 12
			w := newWorld(t)
			w.rate = 100 << 10
			w.spoolLarge(count)
			began := time.Now()
			if stopping {
				w.Drain(t.Context())
			} else {
				w.run()
				w.until("all is sent", w.spool.Empty)
			}
			took := time.Since(began)
			// The last batch has three messages, and there is no pause after it.
			if least := time.Duration(count-3) * 60 * time.Second / 100; took < least || took > 2*least {
				t.Errorf("stopping %t: it took %s at a rate that needs %s", stopping, took, least)
			}
			if stopping {
				if err := w.spool.Close(); err != nil {
					t.Fatal(err)
				}
			} else {
				w.end()
			}
		})
	}
}
