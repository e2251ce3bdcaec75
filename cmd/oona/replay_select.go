package main

import (
	"fmt"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/replay/records"
)

// replaySelection says what of the records is replayed.
type replaySelection struct {
	Run    []oona.RunID   `name:"run" env:"-" placeholder:"ID" help:"Select only these runs. All flags of this group can be repeated."`
	Layer  []oona.LayerID `env:"-" placeholder:"ID" help:"Only these layers."`
	Seed   []oona.SeedID  `env:"-" placeholder:"N" help:"Select only these seeds of frames and events."`
	Metric []string       `env:"-" placeholder:"NAME" help:"Select only these metrics of frames and rollups. A frame or rollup that has none of them is left out."`
	State  []seedState    `env:"-" placeholder:"STATE" help:"Select only seeds in these states, for example TRAINING, and only events with transitions from or to them."`
}

// seedState is a flag for a state.
type seedState oona.State

// UnmarshalText accepts the name of a state.
func (s *seedState) UnmarshalText(text []byte) error {
	state, err := oona.ParseState(string(text))
	*s = seedState(state)
	return err
}

func (s *replaySelection) selection() records.Selection {
	all := records.Selection{Runs: s.Run, Layers: s.Layer, Seeds: s.Seed, Metrics: s.Metric}
	for _, state := range s.State {
		all.States = append(all.States, oona.State(state))
	}
	return all
}

func (s *replaySelection) isEmpty() bool {
	selection := s.selection()
	return selection.Everything()
}

// Validate is called by kong.
func (s *replaySelection) Validate() error {
	for _, seed := range s.Seed {
		if seed < 0 {
			return &oona.FieldError{Field: "--seed", Reason: fmt.Sprintf("is %d; seeds count from 0", seed)}
		}
	}
	return nil
}
