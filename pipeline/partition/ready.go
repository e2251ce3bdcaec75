package partition

import (
	"errors"
	"fmt"
	"time"
)

// Why a partition is not ready.
var (
	errCatchingUp = errors.New("catching up")
	errUnheard    = errors.New("the leader does not say where the log ends")
	errStalled    = errors.New("records wait in the log and do not come")
)

const (
	// longSilence makes a worker unready: the leader of a partition has not said
	// where it ends, or records wait there and none has come. To elect another
	// leader takes less.
	longSilence = 30 * time.Second
	// longestWait is how long a partition's outbox may wait for the bus before the
	// worker is not ready.
	longestWait = 30 * time.Second
)

// refused returns how long the outbox has not been empty.
func (p *assignment) refused() time.Duration {
	since := p.unpublished.Load()
	if since == 0 {
		return 0
	}
	return time.Duration(time.Now().UnixNano() - since)
}

// ready returns why the partition is not, or nil.
func (p *assignment) ready() error {
	if p.failed.Load() {
		return fmt.Errorf("%w: partition %d stopped at offset %d; see the log", errFailed, p.about.Partition, p.next.Load())
	}
	if refused := p.refused(); refused > longestWait {
		return fmt.Errorf("what partition %d emits has waited %s for the bus, which has refused it %d times: see the log", p.about.Partition, refused.Round(time.Second), p.failures.Load())
	}
	if next := p.next.Load(); next < p.about.LogEnd {
		return fmt.Errorf("%w: partition %d is at offset %d of %d", errCatchingUp, p.about.Partition, next, p.about.LogEnd)
	}
	now := time.Now().UnixNano()
	if silent := time.Duration(now - p.heard.Load()); silent > longSilence {
		return fmt.Errorf("%w: of partition %d it was last heard %s ago", errUnheard, p.about.Partition, silent.Round(time.Second))
	}
	waited := time.Duration(now - max(p.waiting.Load(), p.lastRead.Load()))
	if next, end := p.next.Load(), p.end.Load(); next < end && waited > longSilence {
		return fmt.Errorf("%w: partition %d is at offset %d of %d, and nothing has come for %s; restart the worker if its leader can be reached", errStalled, p.about.Partition, next, end, waited.Round(time.Second))
	}
	return nil
}
