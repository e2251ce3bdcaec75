package simulate

import (
	"errors"
	"fmt"
	"slices"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/windows"
	"github.com/morphogenetic/oona/windows/model"
)

// owner is a worker that owns the partition, or a zombie.
type owner struct {
	p        *partition
	flags    windows.Config // the configuration before the first record
	engine   *windows.Engine
	next     int   // index of the next record of the log
	liveFrom int64 // offset from which on it emits
	outbox   []publication
	sent     int // number of publications that have left the outbox
	covered  []covered
}

// covered is a commit that may be sent when so many publications have left the outbox.
type covered struct {
	committed
	after int
}

// processedTo returns the offset after the last record that was processed by this owner or an earlier
// one.
func (o *owner) processedTo() int64 {
	if o.next == 0 {
		return o.liveFrom
	}
	return max(o.liveFrom, o.p.log.Accounts[o.next-1].Record.Offset+1)
}

// replaying reports whether the next record was processed before the owner's commit.
func (o *owner) replaying() bool {
	return o.next < len(o.p.log.Accounts) && o.p.log.Accounts[o.next].Record.Offset < o.liveFrom
}

// mayTick reports whether the owner may write a tick: it has read the whole log, no record
// has come for a tick interval, and a window is open.
func (o *owner) mayTick() bool {
	return o.next == len(o.p.log.Accounts) && o.p.now-o.p.touched >= oona.Micros(o.engine.Config().TickInterval.Microseconds()) && o.engine.OpenWindows() > 0
}

// fold folds the next n records.
func (o *owner) fold(n int) error {
	for ; n > 0 && o.next < len(o.p.log.Accounts); n-- {
		a := &o.p.log.Accounts[o.next]
		live := !o.replaying()
		emitted := 0
		var wrong error
		got := o.engine.Fold(a.Record, func(r *oona.Rollup) {
			if wrong == nil {
				wrong = o.take(r, a, emitted)
			}
			emitted++
		})
		o.next++
		if err := errors.Join(wrong, o.check(a, got, emitted, live)); err != nil {
			return fmt.Errorf("offset %d (%s, appended at %s): %w", a.Record.Offset, describe(a.Record), seconds(a.Record.AppendedAt), err)
		}
		if live && a.Outcome.Verdict != windows.Folded && a.Outcome.Verdict != windows.Passed && a.Outcome.Verdict != windows.Duplicate {
			o.outbox = append(o.outbox, publication{side: true, origin: a.Record.Offset, reason: got.Reason})
		}
	}
	return nil
}

// check compares the outcome of the engine for a record with that of the model.
func (o *owner) check(a *model.Account, got windows.Outcome, emitted int, live bool) error {
	verdict, reason, rollups := a.Outcome.Verdict, a.Outcome.Reason, len(a.Rollups)
	if !live {
		o.p.counts.replayed++
		verdict, reason, rollups = windows.Replayed, windows.ReasonNone, 0
	}
	switch open := o.engine.OpenWindows(); {
	case got.Verdict != verdict || got.Reason != reason:
		return fmt.Errorf("is %s (%s: %s), want %s (%s)", got.Verdict, got.Reason, got.Detail, verdict, reason)
	case emitted != rollups:
		return fmt.Errorf("closes %d rollups, want %d", emitted, rollups)
	case open != a.Open && !o.replaying():
		return fmt.Errorf("leaves %d windows open, want %d", open, a.Open)
	}
	return nil
}

// take puts a rollup into the outbox. It is the i-th rollup of the record.
func (o *owner) take(r *oona.Rollup, a *model.Account, i int) error {
	place := rollupPlace{r.Trigger, r.Group}
	if i >= len(a.Rollups) {
		return fmt.Errorf("closes %s %s/%s of the window at %s, which the model does not", r.Run, r.Timeline, r.Layer, seconds(r.Start))
	}
	if first, known := o.p.hashes[place]; !known {
		if err := a.Rollups[i].Compare(r); err != nil {
			return fmt.Errorf("rollup %d of %s %s/%s: %w", i, r.Run, r.Timeline, r.Layer, err)
		}
		if r.Hash != r.ContentHash() {
			return fmt.Errorf("rollup %d of %s %s/%s has hash %x, its content %x", i, r.Run, r.Timeline, r.Layer, r.Hash, r.ContentHash())
		}
		o.p.hashes[place] = r.Hash
	} else if first != r.Hash {
		return fmt.Errorf("rollup %d of %s %s/%s had another content before: %w", i, r.Run, r.Timeline, r.Layer, a.Rollups[i].Compare(r))
	}
	o.outbox = append(o.outbox, publication{rollup: place, key: keyOf(r), hash: r.Hash, end: r.End, frames: r.Frames})
	return nil
}

// foldAgain gives the engine the last record again, as after a Nack.
func (o *owner) foldAgain() error {
	if o.next == 0 {
		return nil
	}
	a := &o.p.log.Accounts[o.next-1]
	got := o.engine.Fold(a.Record, func(r *oona.Rollup) {})
	o.p.counts.redelivered++
	if o.engine.ProcessedTo() <= a.Record.Offset || got.Verdict != windows.Passed {
		return fmt.Errorf("offset %d, redelivered, is %s (%s)", a.Record.Offset, got.Verdict, got.Reason)
	}
	return nil
}

// publish moves up to n publications from the outbox to the topics, and returns how many.
func (o *owner) publish(n int) int {
	n = min(n, len(o.outbox))
	o.p.published = append(o.p.published, o.outbox[:n]...)
	o.outbox, o.sent = o.outbox[n:], o.sent+n
	return n
}

// snapshot makes a commit. It may be sent when everything that is in the outbox now was published. A
// commit that is too long is not sent.
func (o *owner) snapshot() error {
	if o.replaying() {
		return nil // there is no change
	}
	c, err := o.engine.Commit()
	switch {
	case errors.Is(err, windows.ErrMetadata):
		o.p.counts.tooLong++
		return nil
	case err != nil:
		return fmt.Errorf("commit: %w", err)
	case c.Offset > o.processedTo():
		return fmt.Errorf("commit of offset %d beyond %d, up to which all is processed", c.Offset, o.processedTo())
	case len(c.Metadata) > 4096:
		return fmt.Errorf("commit metadata of %d bytes", len(c.Metadata))
	}
	o.covered = append(o.covered, covered{committed{c, o.processedTo(), o.flags}, o.sent + len(o.outbox)})
	return nil
}

// commit sends the n-th last of the commits that may be sent.
func (o *owner) commit(n int) bool {
	ready := 0
	for ready < len(o.covered) && o.covered[ready].after <= o.sent {
		ready++
	}
	if ready == 0 {
		return false
	}
	n = min(n, ready-1)
	if n > 0 {
		o.p.counts.agedCommits++
	}
	o.p.committed = &o.covered[ready-1-n].committed
	if o != o.p.owners[0] && slices.ContainsFunc(o.p.configured, func(offset int64) bool { return offset >= o.processedTo() }) {
		o.p.counts.unreadCommits++
	}
	return true
}
