package records

import (
	"slices"

	"github.com/morphogenetic/oona"
)

// Selection says which records the user asks for. An empty list selects everything. Rollups are
// selected by run, layer and metric, because they have no seeds. Events are selected by run, layer,
// seed and state. The state is the one that the seed left, or the one that it entered. Ends
// of runs are selected by run only.
type Selection struct {
	Runs    []oona.RunID   `json:"runs,omitempty"`
	Layers  []oona.LayerID `json:"layers,omitempty"`
	Seeds   []oona.SeedID  `json:"seeds,omitempty"`
	Metrics []string       `json:"metrics,omitempty"`
	States  []oona.State   `json:"states,omitempty"`
}

// Narrow removes, in place, the parts of a decoded record that are not selected. It sets Selected,
// Narrowed and Whole. Oona's own records, and records that cannot be decoded, are selected only if the
// Selection selects everything.
func (s *Selection) Narrow(r *Record) {
	switch {
	case r.Frame != nil:
		r.Selected = s.narrowFrame(r)
	case r.Rollup != nil:
		r.Selected = s.narrowRollup(r)
	case r.Event != nil:
		r.Selected = s.wants(r.Event.Run, r.Event.Layer) && chosen(s.Seeds, r.Event.Seed) &&
			(chosen(s.States, r.Event.From) || chosen(s.States, r.Event.To))
	case r.RunEnd != nil:
		r.Selected = chosen(s.Runs, r.RunEnd.Run)
	default:
		r.Selected = s.Everything()
	}
	r.Whole = r.Selected && !r.Narrowed && (r.Parts == 1 || s.Everything())
}

// Everything reports whether nothing is left out.
func (s *Selection) Everything() bool {
	return len(s.Runs)+len(s.Layers)+len(s.Seeds)+len(s.Metrics)+len(s.States) == 0
}

func (s *Selection) wants(run oona.RunID, layer oona.LayerID) bool {
	return chosen(s.Runs, run) && chosen(s.Layers, layer)
}

func chosen[T comparable](from []T, one T) bool { return len(from) == 0 || slices.Contains(from, one) }

// narrowRollup removes metrics that are not selected.
func (s *Selection) narrowRollup(r *Record) bool {
	if !s.wants(r.Rollup.Run, r.Rollup.Layer) {
		return false
	}
	if len(s.Metrics) == 0 {
		return true
	}
	all := len(r.Rollup.Metrics)
	r.Rollup.Metrics = slices.DeleteFunc(r.Rollup.Metrics, func(m oona.MetricSummary) bool { return !slices.Contains(s.Metrics, m.Name) })
	r.Narrowed = len(r.Rollup.Metrics) < all
	return len(r.Rollup.Metrics) > 0
}

// narrowFrame removes seeds and metrics that are not selected.
func (s *Selection) narrowFrame(r *Record) bool {
	f := r.Frame
	if !s.wants(f.Run, f.Layer) {
		return false
	}
	if len(s.Metrics) > 0 {
		all := len(f.Metrics)
		f.Metrics = slices.DeleteFunc(f.Metrics, func(c oona.Column) bool { return !slices.Contains(s.Metrics, c.Name) })
		r.Narrowed = len(f.Metrics) < all
		if len(f.Metrics) == 0 {
			return false
		}
	}
	if len(s.Seeds)+len(s.States) == 0 {
		return true
	}
	return s.narrowSeeds(r)
}

func (s *Selection) narrowSeeds(r *Record) bool {
	f, kept := r.Frame, 0
	for i, seed := range f.Seeds {
		if !chosen(s.Seeds, seed) || !chosen(s.States, f.States[i]) {
			continue
		}
		f.Seeds[kept], f.States[kept] = seed, f.States[i]
		for _, c := range f.Metrics {
			c.Values[kept] = c.Values[i]
		}
		kept++
	}
	if kept == len(f.Seeds) {
		return true
	}
	r.Narrowed = true
	f.Seeds, f.States = f.Seeds[:kept], f.States[:kept]
	for i := range f.Metrics {
		f.Metrics[i].Values = f.Metrics[i].Values[:kept]
	}
	f.Tensors = slices.DeleteFunc(f.Tensors, func(t oona.Tensor) bool { return !slices.Contains(f.Seeds, t.Seed) })
	return kept > 0
}
