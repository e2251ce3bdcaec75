package top

import (
	"encoding/json"
	"fmt"
	"io"
	"time"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/internal/watch"
	"github.com/morphogenetic/oona/verdict"
)

// WriteJSON writes a snapshot as one line of JSON.
func (s Snapshot) WriteJSON(w io.Writer) error {
	shown := struct {
		At         time.Time   `json:"at"`
		Reading    bool        `json:"reading_older_rollups"`
		Layers     []layer     `json:"layers"`
		Partitions []Partition `json:"partitions"`
		Sides      []Side      `json:"side_topics"`
		Ingests    []Ingest    `json:"ingests"`
		Faults     []string    `json:"faults"`
	}{s.At, s.Reading, []layer{}, list(s.Partitions), list(s.Sides), list(s.Ingests), list(s.Faults)}
	for _, r := range s.Layers {
		shown.Layers = append(shown.Layers, layerOf(r))
	}
	if err := json.NewEncoder(w).Encode(shown); err != nil {
		return fmt.Errorf("print the snapshot: %w", err)
	}
	return nil
}

// list returns a copy of all that is never nil, so that an empty list is not null in JSON.
func list[T any](all []T) []T { return append([]T{}, all...) }

func layerOf(r watch.Row) layer {
	shown := layer{
		Run: r.Run, Layer: r.Layer, WindowEnd: r.End.Time(), Verdict: level(r), Reasons: []reason{},
		Seeds: make(map[string]int64), Seen: r.Seeds.Seen, Active: r.Seeds.Active, FramesPerSecond: r.FramesPerSecond,
	}
	if r.Judged && !r.Verdict.Learning {
		since := r.Verdict.Since.Time()
		shown.Since = &since
	}
	for s, n := range r.Seeds.ByState {
		if n > 0 {
			shown.Seeds[oona.State(s).String()] = n
		}
	}
	for _, why := range r.Verdict.Reasons {
		shown.Reasons = append(shown.Reasons, reason{why.Metric, why.Kind.String(), why.Level.String(), why.Since.Time(), why.String()})
	}
	return shown
}

// level returns the level of the verdict, or "learning".
func level(r watch.Row) string {
	if !r.Judged || r.Verdict.Learning && r.Verdict.Level == verdict.OK {
		return "learning"
	}
	return r.Verdict.Level.String()
}

// WriteLines writes a snapshot as lines of text. Each line begins with the kind of its row. Nothing is
// cut off.
func (s Snapshot) WriteLines(w io.Writer) error {
	for _, t := range tabs() {
		for _, line := range t.plain(s) {
			if _, err := fmt.Fprintln(w, line); err != nil {
				return fmt.Errorf("print the snapshot: %w", err)
			}
		}
	}
	for _, fault := range s.Faults {
		if _, err := fmt.Fprintln(w, "fault: "+fault); err != nil {
			return fmt.Errorf("print the snapshot: %w", err)
		}
	}
	return nil
}
