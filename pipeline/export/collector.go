package export

import (
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/morphogenetic/oona"
)

// collector makes constant metrics of the store at each scrape.
type collector struct {
	store    *store
	families *families
	bounds   []bound
	metrics  *metrics
	stage    *Stage
}

// Describe implements prometheus.Collector.
func (c *collector) Describe(ch chan<- *prometheus.Desc) {
	c.families.all(func(d *prometheus.Desc) { ch <- d })
	c.metrics.describe(ch)
}

// Collect implements prometheus.Collector.
func (c *collector) Collect(ch chan<- prometheus.Metric) {
	now := time.Now()
	layers := c.store.snapshot(now)
	series := 0
	for i := range layers {
		y := &layers[i]
		s := scrape{
			collector: c,
			ch:        ch,
			sent:      &series,
			run:       pair(labelRun, y.run),
			layer:     pair(labelLayer, y.id),
			created:   timestamppb.New(y.created),
		}
		s.all(y)
	}
	c.metrics.collect(ch, len(layers), series)
	c.metrics.collectPartitions(ch, c.stage, now)
}

// scrape sends the series of one layer. Its label pairs are shared by all of
// them: client_golang's own constant metrics would copy them into each.
type scrape struct {
	*collector
	ch         chan<- prometheus.Metric
	sent       *int
	run, layer *dto.LabelPair
	created    *timestamppb.Timestamp
}

type pairs []*dto.LabelPair

func pair(name, value string) *dto.LabelPair { return &dto.LabelPair{Name: &name, Value: &value} }

var statePairs = func() (all [oona.StateCount]*dto.LabelPair) {
	for state := range all {
		all[state] = pair(labelState, oona.State(state).String())
	}
	return all
}()

func (s *scrape) send(m prometheus.Metric) {
	s.ch <- m
	*s.sent++
}

func (s *scrape) total(family *prometheus.Desc, value int64, labels pairs) {
	s.send(&number{family, labels, float64(value), s.created})
}

func (s *scrape) gauge(family *prometheus.Desc, value float64, labels pairs) {
	s.send(&number{family, labels, value, nil})
}

func (s *scrape) all(y *layerSnapshot) {
	labels := pairs{s.layer, s.run}
	s.total(s.families.frames, y.totals.frames, labels)
	s.total(s.families.readings, y.totals.readings, labels)
	s.total(s.families.duplicates, y.totals.duplicates, labels)
	for _, g := range groups {
		of := &y.groups[g]
		for i := range of.series {
			s.accumulated(&s.families.groups[g], &of.series[i])
		}
		if of.last != nil {
			s.gauge(s.families.groups[g].end, seconds(of.last.end), labels)
			for i := range of.last.metrics {
				s.window(&s.families.groups[g], &of.last.metrics[i])
			}
		}
	}
	if w := y.groups[oona.Health].last; w != nil {
		s.census(&w.seeds, labels)
	}
	if w := y.groups[oona.Performance].last; w != nil {
		s.rates(w, labels)
	}
}

func (s *scrape) accumulated(f *groupFamilies, of *seriesSnapshot) {
	labels := pairs{s.layer, pair(labelMetric, of.metric), s.run}
	s.send(&histogramMetric{f.samples, labels, of.samples, s.created, s.bounds})
	s.total(f.notMeasured, of.notMeasured, labels)
	s.total(f.infinite, of.infinite, labels)
}

func (s *scrape) window(f *groupFamilies, m *windowMetric) {
	metric := pair(labelMetric, m.name)
	labels := pairs{s.layer, metric, s.run}
	s.gauge(f.mean, m.mean, labels)
	s.gauge(f.min, m.min, labels)
	s.gauge(f.max, m.max, labels)
	s.gauge(f.stddev, m.stddev, labels)
	for i, worst := range m.worst {
		ranked := pairs{s.layer, metric, pair(labelRank, strconv.Itoa(i+1)), s.run}
		s.gauge(f.worstSeed, float64(worst.Seed), ranked)
		s.gauge(f.worstValue, worst.Value, ranked)
	}
}

func (s *scrape) census(c *oona.SeedCensus, labels pairs) {
	s.gauge(s.families.seedsSeen, float64(c.Seen), labels)
	s.gauge(s.families.seedsActive, float64(c.Active), labels)
	for state, n := range c.ByState {
		s.gauge(s.families.seeds, float64(n), pairs{s.layer, s.run, statePairs[state]})
	}
}

func (s *scrape) rates(w *window, labels pairs) {
	r := &w.rates
	s.gauge(s.families.frameRate, r.FramesPerSecond, labels)
	s.gauge(s.families.readingRate, r.ReadingsPerSecond, labels)
	if w.speedKnown {
		s.gauge(s.families.stepRate, r.StepsPerSecond, labels)
	}
	s.gauge(s.families.delay, seconds(r.Delay), labels)
}

func seconds(m oona.Micros) float64 { return float64(m) / 1e6 }

// number is a counter with its created timestamp or, without one, a gauge.
type number struct {
	desc    *prometheus.Desc
	labels  pairs // ascending by name
	value   float64
	created *timestamppb.Timestamp
}

// Desc implements prometheus.Metric.
func (m *number) Desc() *prometheus.Desc { return m.desc }

// Write implements prometheus.Metric.
func (m *number) Write(out *dto.Metric) error {
	out.Label = m.labels
	if m.created == nil {
		out.Gauge = &dto.Gauge{Value: &m.value}
	} else {
		out.Counter = &dto.Counter{Value: &m.value, CreatedTimestamp: m.created}
	}
	return nil
}
