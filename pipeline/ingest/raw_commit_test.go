package ingest

import (
	"errors"
	"testing"
	"testing/synctest"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/morphogenetic/oona/bus"
)

// Records that retention has deleted are counted, and the rest is forwarded.
func TestRawOvertaken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		onBus := newBus(t)
		first := startRaw(t, onBus, nil)
		for range 4 {
			first.send(string(frames(nil)))
		}
		first.settledTo(4)
		first.end()
		for range 7 {
			first.send(string(frames(nil)))
		}
		if err := onBus.Trim(rawTopics.SeedRaw, 3, 10); err != nil {
			t.Fatal(err)
		}
		p := startRaw(t, onBus, nil)
		defer p.end()
		// An assignment that ends before anything was read counts nothing.
		_, unread, err := p.Assign(t.Context(), bus.Assignment{Partition: 9, LogStart: 10, LogEnd: 11, Committed: bus.Commit{Offset: 4}})
		if err != nil {
			t.Fatal(err)
		}
		unread.Revoke()
		p.settledTo(11)
		if n := testutil.ToFloat64(p.metrics.lost.WithLabelValues(lostRetention)); n != 6 {
			t.Errorf("%v records are counted as lost, want 6", n)
		}
		if n := len(onBus.on(t, rawTopics.SeedMetrics)); n != 5 {
			t.Errorf("%d frames are forwarded, want 5", n)
		}
	})
}

// A commit that failed is due again. One that succeeded is not.
func TestRawCommitsAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		onBus := newBus(t)
		p := startRaw(t, onBus, nil)
		p.send(string(frames(nil)))
		p.settledTo(1)
		of := p.partition(3)
		if _, due := of.Commit(); due {
			t.Error("a commit is due again after it has succeeded")
		}
		p.send(string(frames(nil)))
		synctest.Wait() // before the next commit
		of.Committed(bus.Commit{Offset: 2}, errors.New("refused"))
		if commit, due := of.Commit(); !due || commit.Offset != 2 {
			t.Errorf("after a refusal offset %d is due: %v", commit.Offset, due)
		}
		p.settledTo(2)
		p.end()
	})
}

// The raw topic has lost its end, and the commit lies beyond it. The commit is replaced at
// once: if the log grew past it, the next owner would begin there.
func TestRawCommitBeyondTheEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := startRaw(t, newBus(t), nil)
		defer p.end()
		_, c, err := p.Assign(t.Context(), bus.Assignment{Partition: 9, LogEnd: 2, Committed: bus.Commit{Offset: 5}, Settled: true})
		if err != nil {
			t.Fatal(err)
		}
		defer c.Revoke()
		commit, due := c.Commit()
		if !due || commit.Offset != 0 {
			t.Errorf("commit %v, due %t; want offset 0", commit, due)
		}
		c.Committed(commit, nil)
		if _, due := c.Commit(); due {
			t.Error("it is due again")
		}
	})
}
