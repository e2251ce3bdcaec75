package partition_test

import (
	"errors"
	"testing"
	"testing/synctest"

	"github.com/morphogenetic/oona/pipeline/partition"
)

// After a machine has failed or panicked it is neither committed nor used again. Its
// successor folds the record again, from the last commit.
func TestFailedMachineIsNotUsedAgain(t *testing.T) {
	for _, how := range []string{"late error", "late panic"} {
		t.Run(how, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := start(t)
				w.assign(fresh)
				w.fold("1")
				commit, _ := w.consumer.Commit()
				w.consumer.Committed(commit, nil)
				if w.deliver(how) {
					t.Error("the record was acked")
				}
				if c, due := w.consumer.Commit(); due {
					t.Errorf("%+v is committed, and the output is not on the bus", c)
				}
				w.runtime.Each(func(int32, partition.Machine) { t.Error("Each still uses the machine") })
				if err := w.runtime.Ready(); !errors.Is(err, partition.ErrFailed) {
					t.Errorf("Ready: %v", err)
				}
				err := <-w.ended
				if err == nil || errors.Is(err, partition.ErrPanic) != (how == "late panic") {
					t.Errorf("Run: %v", err)
				}
				// The record is delivered once more while the worker ends.
				again := w.message("1")
				err = partition.Handle(w.runtime, again)
				synctest.Wait()
				select {
				case <-again.Nacked():
				default:
					t.Error("another record was acked")
				}
				if err != nil || w.machine.folds != 2 || len(w.out.payloads("sums")) != 1 {
					t.Errorf("%v; folded %d records, published %v", err, w.machine.folds, w.out.payloads("sums"))
				}
				if _, due := w.consumer.Commit(); due {
					t.Error("the machine is committed after all")
				}
				w.consumer.Revoke()

				next := start(t)
				next.assign(assigned(commit, 2))
				next.fold("2")
				if got := next.out.payloads("sums"); len(got) != 1 || got[0] != "3" {
					t.Errorf("the successor emits %v", got)
				}
			})
		})
	}
}

// A machine that asks for a record again must not have emitted or counted it: the
// redelivery would do that twice.
func TestRetryAfterAnEffect(t *testing.T) {
	for _, how := range []string{"retry after emit", "retry after count"} {
		t.Run(how, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := start(t)
				w.assign(fresh)
				if w.deliver(how) {
					t.Error("the record was acked")
				}
				synctest.Wait()
				select {
				case err := <-w.ended:
					if err == nil || errors.Is(err, partition.ErrRetry) {
						t.Errorf("Run: %v", err)
					}
				default:
					t.Error("the worker does not end")
				}
				if c, due := w.consumer.Commit(); due {
					t.Errorf("%+v is committed", c)
				}
				if got := w.out.payloads("sums"); len(got) > 0 {
					t.Errorf("published %v", got)
				}
			})
		})
	}
}
