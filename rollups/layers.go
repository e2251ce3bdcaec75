package rollups

import (
	"iter"
	"time"

	"github.com/morphogenetic/oona"
)

// Other is the run or the layer that stands for all that are beyond a limit. A
// run or layer of this very name is merged there, too.
const Other = "other"

// Limits bound the number of layers that a reader keeps, and how long it keeps them.
type Limits struct {
	Runs   int // maximum number of runs whose layers are not merged
	Layers int // maximum number of layers of one run
	Total  int // layers of all runs together
	// SilentAfter is how long a layer is kept after its last rollup has arrived.
	SilentAfter time.Duration
	// EndedAfter is how long a layer is kept after the end of its latest window.
	// 0 means for ever.
	EndedAfter time.Duration
}

// Limit is one of the Limits on the number of layers.
type Limit uint8

// The limits that a rollup can be beyond.
const (
	Within Limit = iota
	BeyondRuns
	BeyondLayers
)

// Layers keeps a V for each layer that rollups name. Its limits bound its memory: rollups
// of further layers share the layer Other of their run, or of the run Other. The caller passes
// the time to its methods. Layers is not safe for concurrent use.
type Layers[V any] struct {
	limits  Limits
	dropped func(*Layer[V])
	runs    map[oona.RunID]map[oona.LayerID]*Layer[V]
	count   int // layers that are not merged
	sweepAt time.Time
}

// Layer is a layer of a run. Timelines of the run that report the same layer
// share it.
type Layer[V any] struct {
	Run     oona.RunID
	ID      oona.LayerID
	Merged  bool        // it stands for layers beyond a limit
	Created time.Time   // when its first rollup came
	Seen    time.Time   // when its last rollup came
	End     oona.Micros // end of its latest window
	Value   V
}

// NewLayers returns an empty Layers. It calls dropped, unless that is nil, with
// each layer that it no longer holds.
func NewLayers[V any](limits Limits, dropped func(*Layer[V])) *Layers[V] {
	return &Layers[V]{limits: limits, dropped: dropped, runs: make(map[oona.RunID]map[oona.LayerID]*Layer[V])}
}

// Of returns the layer of a rollup that came now. If that is a merged layer, Of also
// returns the limit that the rollup is beyond. Of returns nil if the layer is not held
// and the window ended longer ago than EndedAfter.
func (l *Layers[V]) Of(r *oona.Rollup, now time.Time) (*Layer[V], Limit) {
	if !now.Before(l.sweepAt) {
		l.sweep(now)
	}
	if l.ended(r.End, now) && l.runs[r.Run][r.Layer] == nil {
		return nil, Within
	}
	y, beyond := l.layer(r.Run, r.Layer, now)
	y.Seen, y.End = now, max(y.End, r.End)
	return y, beyond
}

func (l *Layers[V]) ended(end oona.Micros, now time.Time) bool {
	return l.limits.EndedAfter > 0 && now.Sub(end.Time()) > l.limits.EndedAfter
}

func (l *Layers[V]) layer(run oona.RunID, id oona.LayerID, now time.Time) (_ *Layer[V], beyond Limit) {
	layers := l.runs[run]
	switch {
	case run == Other || layers == nil && full(l.runs, l.limits.Runs):
		run, id, beyond = Other, Other, BeyondRuns
	case id == Other || layers[id] == nil && (l.count >= l.limits.Total || full(layers, l.limits.Layers)):
		id, beyond = Other, BeyondLayers
	}
	if l.runs[run] == nil {
		l.runs[run] = make(map[oona.LayerID]*Layer[V])
	}
	y := l.runs[run][id]
	if y == nil {
		y = &Layer[V]{Run: run, ID: id, Merged: id == Other, Created: now}
		l.runs[run][id] = y
		if !y.Merged {
			l.count++
		}
	}
	return y, beyond
}

// full reports whether there are limit places, not counting the merged one.
func full[K ~string, V any](places map[K]V, limit int) bool {
	n := len(places)
	if _, merged := places[Other]; merged {
		n--
	}
	return n >= limit
}

// sweep drops the layers that are silent, which makes room for others. It looks
// at all of them, so it is called only now and then.
func (l *Layers[V]) sweep(now time.Time) {
	l.sweepAt = now.Add(l.limits.SilentAfter / 16)
	for run, layers := range l.runs {
		for id, y := range layers {
			if now.Sub(y.Seen) > l.limits.SilentAfter || l.ended(y.End, now) {
				delete(layers, id)
				l.release(y)
			}
		}
		if len(layers) == 0 {
			delete(l.runs, run)
		}
	}
}

func (l *Layers[V]) release(y *Layer[V]) {
	if !y.Merged {
		l.count--
	}
	if l.dropped != nil {
		l.dropped(y)
	}
}

// Len returns the number of layers that are held, merged ones among them.
func (l *Layers[V]) Len() (n int) {
	for _, layers := range l.runs {
		n += len(layers)
	}
	return n
}

// All returns the layers that are kept at the time now, in no particular order.
func (l *Layers[V]) All(now time.Time) iter.Seq[*Layer[V]] {
	l.sweep(now)
	return func(yield func(*Layer[V]) bool) {
		for _, layers := range l.runs {
			for _, y := range layers {
				if !yield(y) {
					return
				}
			}
		}
	}
}
