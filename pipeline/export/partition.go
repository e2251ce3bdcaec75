package export

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/schemas/avro"
)

// partition is one partition of a rollup topic.
type partition struct {
	group     oona.Group
	highWater int64 // where its log ended when the stage began
	next      atomic.Int64

	// Records come one at a time, but for one that was in hand when a
	// connection was lost: it comes again, perhaps beside itself.
	mu     sync.Mutex
	begun  bool         // latest holds
	latest oona.Trigger // the highest that was taken
	recent recent
}

// errRepeat says that a rollup's trigger is not above the highest seen.
var errRepeat = errors.New("repeat")

// errConflict says that a window of a layer has another content than it had
// before. It cannot happen while all aggregators are of one version and one
// configuration; it is never taken in silence.
var errConflict = errors.New("the rollup contradicts one that was emitted before")

// errTrailing says that a record holds more than one rollup.
var errTrailing = errors.New("bytes follow the rollup")

// take returns the rollup that a record holds, or errRepeat if it was taken
// before, errConflict if another was in its place, or why the record is no
// rollup.
func (p *partition) take(payload []byte) (*oona.Rollup, error) {
	r := new(oona.Rollup)
	rest, err := avro.DecodeRollup(payload, r)
	if err != nil {
		return nil, fmt.Errorf("decode the rollup: %w", err)
	}
	if len(rest) > 0 {
		return nil, fmt.Errorf("%w: %d of %d", errTrailing, len(rest), len(payload))
	}
	if err := checkRollup(r, p.group); err != nil {
		return nil, err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.recent.contradicts(r) {
		return nil, fmt.Errorf("%w: run %s, layer %s, window %s to %s, hash %016x, trigger %+v", errConflict,
			r.Run, r.Layer, r.Start.Time(), r.End.Time(), r.Hash, r.Trigger)
	}
	if p.begun && !r.Trigger.After(p.latest) {
		return nil, errRepeat
	}
	p.begun, p.latest = true, r.Trigger
	return r, nil
}
