package partition

import (
	"errors"
	"fmt"
	"time"
)

// Reasons why a partition is not ready. Ready wraps them.
var (
	ErrCatchingUp  = errors.New("reading what the log held when the partition was assigned")
	ErrNoEnd       = errors.New("the leader does not answer where the log ends")
	ErrRetrying    = errors.New("a record cannot be folded now, and is tried again")
	ErrStalled     = errors.New("records wait in the log and are not delivered")
	ErrUnpublished = errors.New("output waits for the bus")
)

const (
	// longSilence is how long the leader of a partition may fail to answer, or records
	// may wait without being delivered, before the worker becomes unready. The election
	// of a leader takes less time.
	longSilence = 30 * time.Second
	// longestWait is how long a record may wait to be folded, or its output may wait for
	// the bus, before the worker becomes unready.
	longestWait = 30 * time.Second
)

// stuckFor returns for how long a record could not be folded, or its output could not
// be published.
func (p *assignment) stuckFor() time.Duration {
	since := p.stuckSince.Load()
	if since == 0 {
		return 0
	}
	return time.Duration(time.Now().UnixNano() - since)
}

// ready returns the reason why the partition is not ready, or nil.
func (p *assignment) ready() error {
	if p.failed.Load() {
		return fmt.Errorf("%w: partition %d stopped at offset %d; see the log", errFailed, p.about.Partition, p.next.Load())
	}
	if waited := p.stuckFor(); waited > longestWait {
		if p.pending.Load() == 0 {
			return fmt.Errorf("%w: partition %d at offset %d, %d attempts; see the log", ErrRetrying, p.about.Partition, p.next.Load(), p.failures.Load())
		}
		return fmt.Errorf("%w: partition %d, for %s, refused %d times; see the log", ErrUnpublished, p.about.Partition, waited.Round(time.Second), p.failures.Load())
	}
	if next := p.next.Load(); next < p.about.LogEnd {
		return fmt.Errorf("%w: partition %d is at offset %d of %d", ErrCatchingUp, p.about.Partition, next, p.about.LogEnd)
	}
	now := time.Now().UnixNano()
	if silent := time.Duration(now - p.heard.Load()); silent > longSilence {
		return fmt.Errorf("%w: partition %d, last answer %s ago", ErrNoEnd, p.about.Partition, silent.Round(time.Second))
	}
	waited := time.Duration(now - max(p.waiting.Load(), p.lastRead.Load()))
	if next, end := p.next.Load(), p.end.Load(); next < end && waited > longSilence {
		return fmt.Errorf("%w: partition %d is at offset %d of %d, and no record has come for %s; if the leader can be reached, restart the worker", ErrStalled, p.about.Partition, next, end, waited.Round(time.Second))
	}
	return nil
}
