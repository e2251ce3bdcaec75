package export

import (
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/morphogenetic/oona"
)

// collector makes constant metrics of the ledger at each scrape.
type collector struct {
	ledger   *ledger
	families *families
	bounds   []bound
	metrics  *metrics
	places   func(func(topic string, partition int32, next int64))
}

// Describe implements prometheus.Collector.
func (c *collector) Describe(ch chan<- *prometheus.Desc) {
	c.families.all(func(d *prometheus.Desc) { ch <- d })
	c.metrics.describe(ch)
}

// Collect implements prometheus.Collector.
func (c *collector) Collect(ch chan<- prometheus.Metric) {
	layers := c.ledger.snapshot(time.Now())
	series := 0
	for i := range layers {
		s := scrape{c, ch, &layers[i], &series}
		s.layer()
	}
	c.metrics.collect(ch, len(layers), series, c.places)
}

// scrape sends the series of one layer and counts them.
type scrape struct {
	*collector
	ch     chan<- prometheus.Metric
	y      *layerSnapshot
	series *int
}

func (s scrape) send(m prometheus.Metric) {
	s.ch <- m
	*s.series++
}

// labels are those of the layer and more.
func (s scrape) labels(more ...string) []string {
	return append([]string{s.y.run, s.y.id}, more...)
}

func (s scrape) total(family *prometheus.Desc, value int64, more ...string) {
	s.send(prometheus.MustNewConstMetricWithCreatedTimestamp(family, prometheus.CounterValue, float64(value), s.y.created, s.labels(more...)...))
}

func (s scrape) gauge(family *prometheus.Desc, value float64, more ...string) {
	s.send(prometheus.MustNewConstMetric(family, prometheus.GaugeValue, value, s.labels(more...)...))
}

func (s scrape) layer() {
	s.total(s.families.frames, s.y.totals.frames)
	s.total(s.families.readings, s.y.totals.readings)
	s.total(s.families.duplicates, s.y.totals.duplicates)
	for _, g := range groups {
		of := &s.y.groups[g]
		for i := range of.series {
			s.accumulated(&s.families.groups[g], &of.series[i])
		}
		if of.last != nil {
			s.window(&s.families.groups[g], of.last)
		}
	}
	if w := s.y.groups[oona.Health].last; w != nil {
		s.census(&w.seeds)
	}
	if w := s.y.groups[oona.Performance].last; w != nil {
		s.rates(&w.rates)
	}
}

func (s scrape) accumulated(f *groupFamilies, of *seriesSnapshot) {
	s.send(&histogramMetric{
		desc:    f.samples,
		labels:  prometheus.MakeLabelPairs(f.samples, s.labels(of.metric)),
		value:   of.samples,
		created: s.y.created,
		bounds:  s.bounds,
	})
	s.total(f.notMeasured, of.notMeasured, of.metric)
	s.total(f.infinite, of.infinite, of.metric)
}

func (s scrape) window(f *groupFamilies, w *window) {
	s.gauge(f.end, seconds(w.end))
	for i := range w.metrics {
		m := &w.metrics[i]
		s.gauge(f.mean, m.mean, m.name)
		s.gauge(f.min, m.min, m.name)
		s.gauge(f.max, m.max, m.name)
		s.gauge(f.stddev, m.stddev, m.name)
		for j, worst := range m.worst {
			rank := strconv.Itoa(j + 1)
			s.gauge(f.worstSeed, float64(worst.Seed), m.name, rank)
			s.gauge(f.worstValue, worst.Value, m.name, rank)
		}
	}
}

func (s scrape) census(c *oona.SeedCensus) {
	s.gauge(s.families.seedsSeen, float64(c.Seen))
	s.gauge(s.families.seedsActive, float64(c.Active))
	for state, n := range c.ByState {
		s.gauge(s.families.seeds, float64(n), oona.State(state).String())
	}
}

func (s scrape) rates(r *oona.Rates) {
	s.gauge(s.families.frameRate, r.FramesPerSecond)
	s.gauge(s.families.readingRate, r.ReadingsPerSecond)
	s.gauge(s.families.stepRate, r.StepsPerSecond)
	s.gauge(s.families.delay, seconds(r.Delay))
}

func seconds(m oona.Micros) float64 { return float64(m) / 1e6 }
