package watch

import (
	"fmt"
	"time"

	"github.com/morphogenetic/oona"
)

type rollup struct {
	Group       string           `json:"group"`
	Run         oona.RunID       `json:"run_id"`
	Layer       oona.LayerID     `json:"layer_id"`
	Timeline    oona.TimelineID  `json:"timeline,omitempty"`
	Start       time.Time        `json:"window_start"`
	End         time.Time        `json:"window_end"`
	Incarnation oona.Incarnation `json:"incarnation,omitempty"`
	Offset      int64            `json:"trigger_offset"`
	Index       int32            `json:"trigger_index"`
	Watermark   time.Time        `json:"watermark"`
	First       int64            `json:"first_offset"`
	Last        int64            `json:"last_offset"`
	Frames      int64            `json:"frames"`
	Readings    int64            `json:"readings"`
	Duplicates  int64            `json:"duplicates"`
	Generation  int32            `json:"generation"`
	Reducer     int32            `json:"reducer"`
	Catalogue   string           `json:"catalogue,omitempty"`   // the hash of the catalogue, if the log names one
	Kind        string           `json:"window_kind,omitempty"` // empty for tumbling windows
	Hop         number           `json:"window_hop_seconds,omitempty"`
	Seeds       *census          `json:"seeds,omitempty"`
	Rates       *rates           `json:"rates,omitempty"`
	Metrics     []metric         `json:"metrics"`
	Hash        string           `json:"content_hash"`
}

type census struct {
	Seen    int64            `json:"seen"`
	Active  int64            `json:"active"`
	ByState map[string]int64 `json:"by_state"`
}

type rates struct {
	Frames   number  `json:"frames_per_second"`
	Readings number  `json:"readings_per_second"`
	Speed    *number `json:"steps_per_second,omitempty"` // nil if it is not known
	Steps    *int64  `json:"steps,omitempty"`            // nil below reducer 2
	StepTime *number `json:"step_seconds,omitempty"`     // nil below reducer 2
	Delay    number  `json:"delay_seconds"`
}

type metric struct {
	Name        string    `json:"name"`
	Count       int64     `json:"count"`
	NotMeasured int64     `json:"not_measured"`
	Active      *int64    `json:"not_measured_active,omitempty"` // nil below reducer 2
	Infinite    int64     `json:"infinite"`
	Sum         number    `json:"sum"`
	Min         number    `json:"min"`
	Max         number    `json:"max"`
	Mean        number    `json:"mean"`
	StdDev      number    `json:"stddev"`
	Histogram   histogram `json:"histogram"` // in Prometheus' native schema 5
	Worst       []worst   `json:"worst,omitempty"`
}

type histogram struct {
	Zero     uint64  `json:"zero"`
	Positive buckets `json:"positive"`
	Negative buckets `json:"negative"`
}

type buckets struct {
	Indexes []int32  `json:"indexes"`
	Counts  []uint64 `json:"counts"`
}

type worst struct {
	Seed   oona.SeedID `json:"seed_id"`
	Value  number      `json:"value"`
	Offset *int64      `json:"offset,omitempty"` // offset of the frame with the value; nil below reducer 2
}

// RollupJSON returns a rollup in the format of oona watch --json.
func RollupJSON(r *oona.Rollup) any { return rollupOf(r) }

func rollupOf(r *oona.Rollup) *rollup {
	out := &rollup{
		Group: r.Group.String(), Run: r.Run, Layer: r.Layer, Timeline: r.Timeline,
		Start: r.Start.Time(), End: r.End.Time(), Offset: r.Trigger.Offset, Index: r.Trigger.Index,
		Watermark: r.Watermark.Time(), First: r.FirstOffset, Last: r.LastOffset,
		Incarnation: r.Trigger.Incarnation,
		Frames:      r.Frames, Readings: r.Readings, Duplicates: r.Duplicates, Generation: r.Generation,
		Reducer: r.Reducer, Hop: number(r.Hop) / 1e6,
		Hash: fmt.Sprintf("%016x", r.Hash), Metrics: []metric{},
	}
	if r.Catalogue != (oona.CatalogueHash{}) {
		out.Catalogue = r.Catalogue.String()
	}
	if r.Kind != oona.Tumbling {
		out.Kind = r.Kind.String()
	}
	if r.Group == oona.Health {
		out.Seeds = &census{r.Seeds.Seen, r.Seeds.Active, map[string]int64{}}
		for state, n := range r.Seeds.ByState {
			if n > 0 {
				out.Seeds.ByState[oona.State(state).String()] = n
			}
		}
	} else {
		out.Rates = ratesOf(r)
	}
	for i := range r.Metrics {
		out.Metrics = append(out.Metrics, metricOf(&r.Metrics[i], r.Reducer))
	}
	return out
}

func ratesOf(r *oona.Rollup) *rates {
	out := &rates{Frames: number(r.Rates.FramesPerSecond), Readings: number(r.Rates.ReadingsPerSecond), Delay: number(r.Rates.Delay) / 1e6}
	if r.SpeedKnown() {
		speed := number(r.Rates.StepsPerSecond)
		out.Speed = &speed
	}
	if r.Reducer >= 2 {
		steps, time := r.Rates.Steps, number(r.Rates.StepTime)/1e6
		out.Steps, out.StepTime = &steps, &time
	}
	return out
}

func metricOf(m *oona.MetricSummary, reducer int32) metric {
	to := metric{
		Name: m.Name, Count: m.Count, NotMeasured: m.NotMeasured, Infinite: m.Infinite,
		Sum: number(m.Sum), Min: number(m.Min), Max: number(m.Max), Mean: number(m.Mean), StdDev: number(m.StdDev()),
		Histogram: histogram{m.Histogram.Zero, buckets(m.Histogram.Positive), buckets(m.Histogram.Negative)},
	}
	if reducer >= 2 {
		active := m.NotMeasuredActive
		to.Active = &active
	}
	for _, w := range m.Worst {
		seed := worst{Seed: w.Seed, Value: number(w.Value)}
		if offset := w.Offset; reducer >= 2 && offset != oona.NoOffset {
			seed.Offset = &offset
		}
		to.Worst = append(to.Worst, seed)
	}
	return to
}
