package partition_test

import (
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/bus"
	"github.com/morphogenetic/oona/pipeline/partition"
)

// handle passes a record to the runtime, as the router does. It reports whether the record must be
// acknowledged.
func (w *world) handle(c bus.Consumer, offset int64, payload string) (bool, error) {
	msg := message.NewMessage("", []byte(payload))
	msg.SetContext(bus.WithPosition(w.t.Context(), bus.Position{Topic: "numbers", Partition: owned, Offset: offset, Appended: oona.MicrosOf(time.Now()), Consumer: c}))
	err := partition.Handle(w.runtime, msg)
	select {
	case <-msg.Nacked():
		return false, err
	default:
		return err == nil, err
	}
}

// After a machine has failed or panicked, it is neither committed nor used again. Its
// successor starts from the last commit and folds the record again. The test makes the assignment
// itself, because a member would revoke it after the failure.
func TestFailedMachineIsNotUsedAgain(t *testing.T) {
	for _, how := range []string{"late error", "late panic"} {
		t.Run(how, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, newBus(t))
				a := bus.Assignment{Topic: "numbers", Partition: owned, Partitions: 4, Committed: noCommit}
				_, c, err := w.Assign(t.Context(), a)
				if err != nil {
					t.Fatal(err)
				}
				if acked, err := w.handle(c, 0, "1"); !acked {
					t.Fatal(err)
				}
				commit, _ := c.Commit()
				c.Committed(commit, nil)
				acked, err := w.handle(c, 1, how)
				if acked || errors.Is(err, partition.ErrPanic) != (how == "late panic") {
					t.Errorf("acked: %t, %v", acked, err)
				}
				if err := partition.ReadyOf(c); !errors.Is(err, partition.ErrFailed) {
					t.Errorf("Ready: %v", err)
				}
				w.change(func(*adder) { t.Error("Each still uses the machine") })
				// The record is delivered once more while the worker ends.
				if acked, err := w.handle(c, 1, "1"); acked || err != nil || w.machine.folds != 2 || !slices.Equal(w.sums(), []string{"1"}) {
					t.Errorf("another record: acked %t, %v; folded %d, published %v", acked, err, w.machine.folds, w.sums())
				}
				if c, due := c.Commit(); due {
					t.Errorf("%+v is committed, and the output is not on the bus", c)
				}
				w.run()
				if got := <-w.ended; got == nil || errors.Is(got, partition.ErrPanic) != (how == "late panic") {
					t.Errorf("Run: %v, want %v", got, err)
				}

				next := newWorld(t, w.bus)
				a.Committed, a.LogEnd = commit, 2
				from, c, err := next.Assign(t.Context(), a)
				if err != nil || from != 1 {
					t.Fatalf("from %d, %v", from, err)
				}
				if acked, err := next.handle(c, 1, "2"); !acked || !slices.Equal(w.sums(), []string{"1", "3"}) {
					t.Errorf("the successor: acked %t, %v, published %v", acked, err, w.sums())
				}
			})
		})
	}
}

// A machine that asks for a record again must not have emitted or counted anything for it, because the
// redelivery would do this a second time.
func TestRetryAfterAnEffect(t *testing.T) {
	for _, how := range []string{"retry after emit", "retry after count"} {
		t.Run(how, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := start(t, newBus(t))
				w.write(how)
				if err := <-w.ended; err == nil || errors.Is(err, partition.ErrRetry) {
					t.Errorf("Run: %v", err)
				}
				if c := w.committed(); c != noCommit {
					t.Errorf("%+v is committed", c)
				}
				if got := w.sums(); len(got) > 0 {
					t.Errorf("published %v", got)
				}
			})
		})
	}
}
