package export

import (
	"math"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/verdict"
)

// collector makes constant metrics of the store at each scrape: all but those of
// groupCollectors.
type collector struct {
	store    *store
	families *families
	bounds   []bound
	metrics  *metrics
	stage    *Stage
	ranks    pairs // of worst seeds, from 1
}

// groupCollector makes the series of a group that have the label metric, which are most of them:
// those of the accumulated samples, or those of the last window.
type groupCollector struct {
	*collector
	group   oona.Group
	samples bool
}

// Describe implements prometheus.Collector.
func (c *groupCollector) Describe(ch chan<- *prometheus.Desc) {
	of := c.families.groups[c.group].window()
	if c.samples {
		of = c.families.groups[c.group].accumulated()
	}
	for _, d := range of {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (c *groupCollector) Collect(ch chan<- prometheus.Metric) {
	layers, _ := c.store.snapshot(time.Now(), false)
	metrics := make(map[string]*dto.LabelPair)
	for i := range layers {
		y := &layers[i]
		s := c.scrape(ch, y)
		s.metrics = metrics
		of := &y.groups[c.group]
		if c.samples {
			for i := range of.series {
				s.accumulated(&c.families.groups[c.group], &of.series[i])
			}
		} else if of.last != nil {
			for i := range of.last.metrics {
				s.window(&c.families.groups[c.group], &of.last.metrics[i])
			}
		}
	}
}

// Describe implements prometheus.Collector.
func (c *collector) Describe(ch chan<- *prometheus.Desc) {
	c.families.own(func(d *prometheus.Desc) { ch <- d })
	c.metrics.describe(ch)
}

// Collect implements prometheus.Collector.
func (c *collector) Collect(ch chan<- prometheus.Metric) {
	now := time.Now()
	// While old windows are read, a layer may seem unhealthy that has recovered, or seem
	// to stand still because others were read before it.
	layers, runs := c.store.snapshot(now, c.stage.caughtUp())
	for i := range runs {
		c.run(ch, &runs[i])
	}
	series, metrics := 0, make(map[string]*dto.LabelPair)
	for i := range layers {
		s := c.scrape(ch, &layers[i])
		s.metrics = metrics
		s.own(&layers[i])
		series += s.sent + layers[i].seriesOfGroups()
	}
	c.metrics.collect(ch, len(layers), series)
	c.metrics.collectPartitions(ch, c.stage, now)
}

// run sends the series of a run.
func (c *collector) run(ch chan<- prometheus.Metric, r *runSnapshot) {
	labels, state := pairs{pair(labelRun, string(r.id))}, 0.0
	switch {
	case r.ended != nil:
		state = 2
		ch <- &number{c.families.runEnd, pairs{pair(labelOutcome, r.ended.Outcome), labels[0]}, seconds(r.ended.at), nil}
	case r.live:
		state = 1
	}
	ch <- &number{c.families.runState, labels, state, nil}
	ch <- &number{c.families.runHeard, labels, seconds(oona.MicrosOf(r.heard)), nil}
}

// scrape sends the series of one layer. Its label pairs are shared by all of
// them: client_golang's own constant metrics would copy them into each.
type scrape struct {
	*collector
	ch         chan<- prometheus.Metric
	sent       int
	run, layer *dto.LabelPair
	created    *timestamppb.Timestamp
	metrics    map[string]*dto.LabelPair // shared with other layers
}

func (c *collector) scrape(ch chan<- prometheus.Metric, y *layerSnapshot) *scrape {
	return &scrape{collector: c, ch: ch, run: pair(labelRun, y.run), layer: pair(labelLayer, y.id), created: timestamppb.New(y.created)}
}

// metric returns the label pair of a metric.
func (s *scrape) metric(name string) *dto.LabelPair {
	p := s.metrics[name]
	if p == nil {
		p = pair(labelMetric, name)
		s.metrics[name] = p
	}
	return p
}

type pairs []*dto.LabelPair

func pair(name, value string) *dto.LabelPair { return &dto.LabelPair{Name: &name, Value: &value} }

var statePairs = func() (all [oona.StateCount]*dto.LabelPair) {
	for state := range all {
		all[state] = pair(labelState, oona.State(state).String())
	}
	return all
}()

var verdictPairs = func() (all [verdictLevels]*dto.LabelPair) {
	for level := range all {
		all[level] = pair(labelVerdict, verdict.Level(level).String())
	}
	return all
}()

func (s *scrape) send(m prometheus.Metric) {
	s.ch <- m
	s.sent++
}

func (s *scrape) total(family *prometheus.Desc, value int64, labels pairs) {
	s.send(&number{family, labels, float64(value), s.created})
}

func (s *scrape) gauge(family *prometheus.Desc, value float64, labels pairs) {
	s.send(&number{family, labels, value, nil})
}

// own sends what no groupCollector does.
func (s *scrape) own(y *layerSnapshot) {
	labels := pairs{s.layer, s.run}
	s.total(s.families.frames, y.totals.frames, labels)
	s.total(s.families.readings, y.totals.readings, labels)
	s.total(s.families.duplicates, y.totals.duplicates, labels)
	for _, g := range groups {
		if of := &y.groups[g]; of.last != nil {
			s.gauge(s.families.groups[g].end, seconds(of.last.end), labels)
		}
	}
	s.verdict(y, labels)
	if w := y.groups[oona.Health].last; w != nil {
		s.census(&w.seeds, labels)
	}
	if w := y.groups[oona.Performance].last; w != nil {
		s.rates(w, labels)
	}
}

func (s *scrape) accumulated(f *groupFamilies, of *seriesSnapshot) {
	labels := pairs{s.layer, s.metric(of.metric), s.run}
	s.send(&histogramMetric{f.samples, labels, of.samples, s.created, s.bounds, of.exemplars})
	s.total(f.notMeasured, of.notMeasured, labels)
	s.total(f.infinite, of.infinite, labels)
}

func (s *scrape) window(f *groupFamilies, m *windowMetric) {
	metric := s.metric(m.name)
	labels := pairs{s.layer, metric, s.run}
	s.gauge(f.mean, m.mean, labels)
	s.gauge(f.min, m.min, labels)
	s.gauge(f.max, m.max, labels)
	s.gauge(f.stddev, m.stddev, labels)
	for i, worst := range m.worst {
		ranked := pairs{s.layer, metric, s.ranks[i], s.run}
		s.gauge(f.worstSeed, float64(worst.Seed), ranked)
		s.gauge(f.worstValue, worst.Value, ranked)
	}
}

// verdict sends the series of the verdict on a layer. The counter of changes to a level is sent only
// after the first such change, because most layers are always ok.
func (s *scrape) verdict(y *layerSnapshot, labels pairs) {
	for level, n := range y.changes {
		if n > 0 {
			s.total(s.families.verdictChanges, n, pairs{s.layer, s.run, verdictPairs[level]})
		}
	}
	j := y.judgement
	if j == nil {
		return
	}
	s.gauge(s.families.verdict, float64(j.Level), labels)
	s.gauge(s.families.verdictSince, seconds(j.Since), labels)
	for i := range j.Reasons[:min(len(j.Reasons), maxReasons)] {
		r := &j.Reasons[i]
		s.gauge(s.families.verdictReason, float64(r.Level), pairs{pair(labelKind, r.Kind.String()), s.layer, s.metric(r.Metric), s.run})
	}
	for i := range j.metrics {
		s.expected(&j.metrics[i])
	}
}

// expected sends the expected range of a metric, without a side that is open or not
// known yet.
func (s *scrape) expected(m *verdict.Metric) {
	f, labels := &s.families.groups[m.Group], pairs{s.layer, s.metric(m.Name), s.run}
	s.gauge(f.median, m.Median, labels)
	if finite(m.Low) {
		s.gauge(f.expectedLow, m.Low, labels)
	}
	if finite(m.High) {
		s.gauge(f.expectedHigh, m.High, labels)
	}
	if m.BestAge >= 0 {
		s.gauge(f.bestAge, float64(m.BestAge), labels)
	}
}

func finite(x float64) bool { return !math.IsNaN(x) && !math.IsInf(x, 0) }

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
