package main

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/replay/records"
)

// seen is what the records of a range have, as far as a selection asks for it. It explains
// why nothing was selected.
type seen struct {
	asked  *replaySelection
	any    bool // there was a frame, a rollup or an event
	run    someNames
	layer  someNames
	metric someNames
	state  someNames
	seed   struct{ least, most oona.SeedID }
	seeds  bool // there was a seed
}

// someNames are some of the names that were seen.
type someNames map[string]bool

// Limits of the names that are kept, and of those that are shown.
const (
	keptNames  = 1000
	shownNames = 10
)

func (n someNames) add(name string) {
	if len(n) < keptNames {
		n[name] = true
	}
}

// seen returns a seen, or nil if everything is selected.
func (s *replaySelection) seen() *seen {
	if s.isEmpty() {
		return nil
	}
	return &seen{asked: s, run: someNames{}, layer: someNames{}, metric: someNames{}, state: someNames{}}
}

// add notes what a record has.
func (s *seen) add(r *records.Record) {
	switch {
	case r.Frame != nil:
		s.any = true
		s.place(r.Frame.Run, r.Frame.Layer)
		if len(s.asked.Metric) > 0 {
			for i := range r.Frame.Metrics {
				s.metric.add(r.Frame.Metrics[i].Name)
			}
		}
		if len(s.asked.Seed)+len(s.asked.State) > 0 {
			for i, seed := range r.Frame.Seeds {
				s.reading(seed, r.Frame.States[i])
			}
		}
	case r.Rollup != nil:
		s.any = true
		s.place(r.Rollup.Run, r.Rollup.Layer)
		if len(s.asked.Metric) > 0 {
			for i := range r.Rollup.Metrics {
				s.metric.add(r.Rollup.Metrics[i].Name)
			}
		}
	case r.Event != nil:
		s.any = true
		s.place(r.Event.Run, r.Event.Layer)
		s.reading(r.Event.Seed, r.Event.From)
		s.reading(r.Event.Seed, r.Event.To)
	case r.RunEnd != nil:
		s.any = true
		s.run.add(string(r.RunEnd.Run))
	}
}

func (s *seen) place(run oona.RunID, layer oona.LayerID) {
	s.run.add(string(run))
	s.layer.add(string(layer))
}

func (s *seen) reading(seed oona.SeedID, state oona.State) {
	if !s.seeds {
		s.seeds, s.seed.least, s.seed.most = true, seed, seed
	}
	s.seed.least, s.seed.most = min(s.seed.least, seed), max(s.seed.most, seed)
	s.state.add(state.String())
}

// why says which of what was asked for is not there.
func (s *seen) why() string {
	if !s.any {
		return "the range has no frames, rollups or events that can be decoded"
	}
	var why []string
	note := func(flag string, asked []string, have someNames) {
		if len(asked) == 0 || len(have) == keptNames || slices.ContainsFunc(asked, func(name string) bool { return have[name] }) {
			return
		}
		why = append(why, fmt.Sprintf("%s %s is not there (there is %s)", flag, strings.Join(asked, ", "), have))
	}
	note("--run", textsOf(s.asked.Run), s.run)
	note("--layer", textsOf(s.asked.Layer), s.layer)
	note("--metric", s.asked.Metric, s.metric)
	var states []string
	for _, state := range s.asked.State {
		states = append(states, oona.State(state).String())
	}
	note("--state", states, s.state)
	outside := func(seed oona.SeedID) bool { return seed < s.seed.least || seed > s.seed.most }
	if len(s.asked.Seed) > 0 && s.seeds && !slices.ContainsFunc(s.asked.Seed, func(seed oona.SeedID) bool { return !outside(seed) }) {
		why = append(why, fmt.Sprintf("--seed is not there (there are seeds from %d to %d)", s.seed.least, s.seed.most))
	}
	if len(why) == 0 {
		why = []string{"what is asked for is not there together, in one record"}
	}
	return strings.Join(why, "; ")
}

// String lists some names.
func (n someNames) String() string {
	all := slices.Sorted(maps.Keys(n))
	if len(all) == 0 {
		return "none"
	}
	more := ""
	if len(all) > shownNames {
		all, more = all[:shownNames], " and "+strconv.Itoa(len(all)-shownNames)+" more"
	}
	return strings.Join(all, ", ") + more
}

func textsOf[T ~string](all []T) (texts []string) {
	for _, t := range all {
		texts = append(texts, string(t))
	}
	return texts
}
