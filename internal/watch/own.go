package watch

import (
	"time"

	"github.com/morphogenetic/oona"
)

type tick struct {
	Worker    string    `json:"worker"`
	WrittenAt time.Time `json:"written_at"`
}

// configuration is a WindowConfiguration with the field names of its schema.
type configuration struct {
	Generation int32          `json:"generation"`
	From       time.Time      `json:"from"`
	Durations  map[string]any `json:"durations"`
	Limits     map[string]any `json:"limits"`
	Reducer    int32          `json:"reducer"`
	Catalogue  string         `json:"catalogue,omitempty"`   // the hash of the catalogue, if the configuration names one
	Kind       string         `json:"window_kind,omitempty"` // empty for tumbling windows
}

func configurationOf(c *oona.WindowConfiguration) *configuration {
	span := func(m oona.Micros) string { return (time.Duration(m) * time.Microsecond).String() }
	out := &configuration{
		Generation: c.Generation, From: c.From.Time(), Reducer: c.Reducer,
		Durations: map[string]any{
			"length": span(c.Length), "out_of_orderness": span(c.OutOfOrderness), "allowed_lateness": span(c.AllowedLateness),
			"tick_interval": span(c.TickInterval), "idle_horizon": span(c.IdleHorizon), "max_skew": span(c.MaxSkew), "max_delay": span(c.MaxDelay),
		},
		Limits: map[string]any{
			"max_timelines": c.MaxTimelines, "max_accumulators": c.MaxAccumulators, "max_timeline_accumulators": c.MaxTimelineAccumulators,
			"max_layers": c.MaxLayers, "max_metrics": c.MaxMetrics, "max_seeds": c.MaxSeeds,
			"frontier_slots": c.FrontierSlots, "worst_seeds": c.WorstSeeds,
		},
	}
	if c.Catalogue != (oona.CatalogueHash{}) {
		out.Catalogue = c.Catalogue.String()
	}
	if c.Kind != oona.Tumbling {
		out.Kind, out.Durations["hop"], out.Durations["gap"] = c.Kind.String(), span(c.Hop), span(c.Gap)
	}
	return out
}

type incarnation struct {
	Number      oona.Incarnation `json:"number"`
	PreviousEnd *int64           `json:"previous_end,omitempty"` // nil if there was no log before
	Reason      string           `json:"reason"`
	Worker      string           `json:"worker"`
	WrittenAt   time.Time        `json:"written_at"`
}

func incarnationOf(s *oona.IncarnationStart) *incarnation {
	out := &incarnation{Number: s.Number, Reason: s.Reason, Worker: s.Worker, WrittenAt: s.WrittenAt.Time()}
	if s.PreviousEnd != oona.NoOffset {
		end := s.PreviousEnd
		out.PreviousEnd = &end
	}
	return out
}

// setting is a record of the settings topic. The last record of a key is valid.
type setting struct {
	Key     string `json:"key"`
	Text    string `json:"text,omitempty"` // the value, if it is text such as YAML
	Deleted bool   `json:"deleted,omitempty"`
}
