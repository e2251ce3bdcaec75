package remotewrite

import (
	"strconv"

	"github.com/prometheus/prometheus/prompb"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/pipeline/layerseries"
)

// source is the value of the label source of all series that are sent. It keeps them
// apart from the series that a Prometheus has scraped of an exporter.
const source = "oona"

// encoder makes the samples of a rollup.
type encoder struct {
	prefix     string
	worst      int
	histograms bool

	rollup *oona.Rollup
	time   int64 // of all samples
	series []prompb.TimeSeries
}

// encode appends the samples of a rollup, one a series, always in the same order.
func (e *encoder) encode(r *oona.Rollup) {
	e.rollup, e.time = r, int64(r.End)/1000
	group := r.Group.String()
	e.gauge(group+layerseries.End, layerseries.Seconds(r.End))
	if r.Group == oona.Health {
		e.census(&r.Seeds)
	} else {
		e.rates(r)
	}
	for i := range r.Metrics {
		e.metric(group, &r.Metrics[i])
	}
}

func (e *encoder) census(c *oona.SeedCensus) {
	e.gauge(layerseries.SeedsSeen, float64(c.Seen))
	e.gauge(layerseries.SeedsActive, float64(c.Active))
	for state, n := range c.ByState {
		e.gauge(layerseries.Seeds, float64(n), label{layerseries.State, oona.State(state).String()})
	}
}

func (e *encoder) rates(r *oona.Rollup) {
	e.gauge(layerseries.FramesPerSecond, r.Rates.FramesPerSecond)
	e.gauge(layerseries.ReadingsPerSecond, r.Rates.ReadingsPerSecond)
	if r.SpeedKnown() {
		e.gauge(layerseries.StepsPerSecond, r.Rates.StepsPerSecond)
	}
	e.gauge(layerseries.Delay, layerseries.Seconds(r.Rates.Delay))
	e.gauge(layerseries.WindowFrames, float64(r.Frames))
	e.gauge(layerseries.WindowReadings, float64(r.Readings))
	e.gauge(layerseries.WindowDuplicates, float64(r.Duplicates))
}

func (e *encoder) metric(group string, m *oona.MetricSummary) {
	of := label{layerseries.Metric, m.Name}
	e.gauge(group+layerseries.WindowNotMeasured, float64(m.NotMeasured), of)
	e.gauge(group+layerseries.WindowInfinite, float64(m.Infinite), of)
	if m.Count == 0 {
		return
	}
	e.gauge(group+layerseries.Mean, m.Mean, of)
	e.gauge(group+layerseries.Min, m.Min, of)
	e.gauge(group+layerseries.Max, m.Max, of)
	e.gauge(group+layerseries.StdDev, m.StdDev(), of)
	for i, w := range m.Worst[:min(len(m.Worst), e.worst)] {
		rank := label{layerseries.Rank, strconv.Itoa(i + 1)}
		e.gauge(group+layerseries.WorstSeed, float64(w.Seed), of, rank)
		e.gauge(group+layerseries.WorstValue, w.Value, of, rank)
	}
	if e.histograms {
		e.histogram(group+layerseries.WindowSamples, m, of)
	}
}

// label is a label besides those of every series. They are given in the order of names.
type label struct{ name, value string }

func (e *encoder) gauge(name string, value float64, more ...label) {
	e.series = append(e.series, prompb.TimeSeries{
		Labels:  e.labels(name, more),
		Samples: []prompb.Sample{{Value: value, Timestamp: e.time}},
	})
}

func (e *encoder) histogram(name string, m *oona.MetricSummary, more ...label) {
	h := prompb.Histogram{
		Count:         &prompb.Histogram_CountInt{CountInt: uint64(m.Count)},
		Sum:           m.Sum,
		Schema:        oona.HistogramSchema,
		ZeroThreshold: oona.HistogramZeroThreshold,
		ZeroCount:     &prompb.Histogram_ZeroCountInt{ZeroCountInt: m.Histogram.Zero},
		ResetHint:     prompb.Histogram_GAUGE,
		Timestamp:     e.time,
	}
	h.PositiveSpans, h.PositiveDeltas = spans(&m.Histogram.Positive)
	h.NegativeSpans, h.NegativeDeltas = spans(&m.Histogram.Negative)
	e.series = append(e.series, prompb.TimeSeries{Labels: e.labels(name, more), Histograms: []prompb.Histogram{h}})
}

// labels returns the labels of a series, ascending by name as the protocol demands.
func (e *encoder) labels(name string, more []label) []prompb.Label {
	all := make([]prompb.Label, 0, 5+len(more))
	add := func(name, value string) {
		for len(more) > 0 && more[0].name < name {
			all = append(all, prompb.Label{Name: more[0].name, Value: more[0].value})
			more = more[1:]
		}
		all = append(all, prompb.Label{Name: name, Value: value})
	}
	add("__name__", layerseries.Prefix+name)
	add(layerseries.Layer, string(e.rollup.Layer))
	add(layerseries.TopicPrefix, e.prefix)
	add(layerseries.Run, string(e.rollup.Run))
	add(layerseries.Source, source)
	for _, l := range more {
		all = append(all, prompb.Label{Name: l.name, Value: l.value})
	}
	return all
}

// spans writes buckets as runs of neighbours, and each count as its difference from the
// one before.
func spans(b *oona.Buckets) (spans []prompb.BucketSpan, deltas []int64) {
	var next int32 // the index after the last one
	var before int64
	for i, index := range b.Indexes {
		if i == 0 || index != next {
			spans = append(spans, prompb.BucketSpan{Offset: index - next})
		}
		spans[len(spans)-1].Length++
		count := int64(b.Counts[i])
		deltas = append(deltas, count-before)
		before, next = count, index+1
	}
	return spans, deltas
}

// about returns about how many samples a rollup has.
func about(r *oona.Rollup, worst int) int {
	n := 8 + len(r.Seeds.ByState)
	for i := range r.Metrics {
		n += 7 + 2*min(len(r.Metrics[i].Worst), worst)
	}
	return n
}
