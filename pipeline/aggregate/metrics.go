package aggregate

import (
	"strconv"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/pipeline/partition"
	"github.com/morphogenetic/oona/windows"
)

// verdict is the result of folding a record. Every record has exactly one.
type verdict uint8

const (
	verdictFolded verdict = iota
	verdictDuplicate
	verdictLate
	verdictQuarantined
	verdictOverflowed
	verdictDead
	verdictOwn // one of Oona's own records: a tick, a configuration, an incarnation, or an unknown kind
	verdictCount
)

var verdictNames = [verdictCount]string{
	"folded", "duplicate", "late", "quarantined", "overflowed", "dead", "own",
}

// Counts says what a stage has done since it started. After a partition was assigned to another
// worker, records that are read again are counted again, unless they are replayed.
type Counts struct {
	Folded, Duplicate, Late, Quarantined, Overflowed, Dead int64

	Own      int64 // Oona's own records
	Replayed int64 // records read again after a commit, to rebuild the open windows
	Rollups  int64 // rollups that were emitted, of both groups

	// Of the partitions that are assigned now:
	OpenWindows int64
	Pending     int64 // rollups and side records that the bus has not acknowledged
	Next        int64 // sum of the offsets after the last records that were read
}

// metrics has the counters of the stage. As a collector, it also returns the gauges of the
// partitions.
type metrics struct {
	verdicts [verdictCount]atomic.Int64
	rollups  [2]atomic.Int64 // indexed by group
	replays  atomic.Int64

	running  *partition.Runtime // nil if no stage runs the machines
	records  *prometheus.CounterVec
	replayed prometheus.Counter

	contextsDropped prometheus.Counter
}

func newMetrics() *metrics {
	counter := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Name: "oona_aggregate_" + name, Help: help})
	}
	vector := func(name, help string, labels ...string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: "oona_aggregate_" + name, Help: help}, labels)
	}
	m := &metrics{
		records: vector("records_total", "Records read from the seed-metrics topic, by verdict and reason.", "verdict", "reason"),
	}
	m.replayed = counter("replayed_records_total", "Records read again after a commit, to rebuild the open windows.")
	m.contextsDropped = counter("trace_contexts_dropped_total", "Sampled frames that the span of their window will not link to, because the open windows had too many of them.")
	m.showZeros()
	return m
}

// showZeros creates the series that alerts use. Otherwise a series would first appear with the
// value 1, and Prometheus would see no increase.
func (m *metrics) showZeros() {
	for v, reasons := range sideReasons {
		for _, reason := range reasons {
			m.records.WithLabelValues(verdictNames[v], string(reason))
		}
	}
}

// sideReasons are the reasons why records go to side topics.
var sideReasons = map[verdict][]windows.Reason{
	verdictLate:        {windows.ReasonLate, windows.ReasonLost},
	verdictQuarantined: {windows.ReasonFuture, windows.ReasonStale, windows.ReasonConflict},
	verdictOverflowed:  {windows.ReasonTimelines, windows.ReasonLayers, windows.ReasonMetrics, windows.ReasonSeeds, windows.ReasonSealed, reasonSize},
	verdictDead:        {reasonUndecodable, reasonInvalid, reasonSkipped},
}

func (m *metrics) count(v verdict, reason string) {
	m.verdicts[v].Add(1)
	m.records.WithLabelValues(verdictNames[v], reason).Inc()
}

func (m *metrics) replay() {
	m.replays.Add(1)
	m.replayed.Inc()
}

// own returns the metrics that are collectors of their own.
func (m *metrics) own() []prometheus.Collector {
	return []prometheus.Collector{m.records, m.replayed, m.contextsDropped}
}

// Descriptions of the metrics that are read from the machines for each scrape.
var (
	rollupsDesc = prometheus.NewDesc("oona_aggregate_rollups_total", "Rollups emitted, by group.", []string{"group"}, nil)

	openDesc       = partitionDesc("open_windows", "Windows that are open.")
	layersDesc     = partitionDesc("open_layer_windows", "Windows of layers that are open. They use most of the memory.")
	layersCap      = partitionDesc("max_open_layer_windows", "Maximum number of open windows of layers.")
	sealedDesc     = partitionDesc("sealed_windows", "Open windows that accept no more layers, because too many windows were open.")
	timelineDesc   = partitionDesc("timelines", "Timelines (runs, or ranks that own layers) in the partition.")
	timelineCap    = partitionDesc("max_timelines", "Maximum number of timelines in the partition.")
	evictedDesc    = partitionDesc("evicted_timelines_total", "Timelines forgotten since the partition was assigned.")
	generationDesc = partitionDesc("configuration_generation", "Generation of the window configuration in the log of the partition; 0 if there is none and the worker's settings are used.")
	oldestDesc     = partitionDesc("oldest_window_seconds", "Time since the end of the oldest open window; 0 if no open window has ended.")
)

func partitionDesc(name, help string) *prometheus.Desc {
	return prometheus.NewDesc("oona_aggregate_"+name, help, []string{"partition"}, nil)
}

// Describe implements prometheus.Collector.
func (m *metrics) Describe(ch chan<- *prometheus.Desc) {
	for _, c := range m.own() {
		c.Describe(ch)
	}
	for _, d := range []*prometheus.Desc{rollupsDesc, openDesc, layersDesc, sealedDesc, timelineDesc, timelineCap, evictedDesc, layersCap, oldestDesc, generationDesc} {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (m *metrics) Collect(ch chan<- prometheus.Metric) {
	for _, c := range m.own() {
		c.Collect(ch)
	}
	for group := range m.rollups {
		ch <- prometheus.MustNewConstMetric(rollupsDesc, prometheus.CounterValue,
			float64(m.rollups[group].Load()), oona.Group(group).String())
	}
	var states []machineState
	m.running.Each(func(p int32, of partition.Machine) {
		engine := of.(*machine).engine
		states = append(states, machineState{strconv.Itoa(int(p)), engine.Stats(), engine.Config()})
	})
	now := time.Now()
	for i := range states {
		states[i].collect(ch, now)
	}
}

// machineState has the values that are read from a machine between two records.
type machineState struct {
	partition string
	stats     windows.Stats
	cfg       windows.Config
}

func (s *machineState) collect(ch chan<- prometheus.Metric, now time.Time) {
	gauge := func(d *prometheus.Desc, v float64) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, s.partition)
	}
	gauge(openDesc, float64(s.stats.OpenWindows))
	gauge(layersDesc, float64(s.stats.Accumulators))
	gauge(sealedDesc, float64(s.stats.SealedWindows))
	gauge(timelineDesc, float64(s.stats.Timelines))
	gauge(timelineCap, float64(s.cfg.MaxTimelines))
	gauge(layersCap, float64(s.cfg.MaxAccumulators))
	ch <- prometheus.MustNewConstMetric(evictedDesc, prometheus.CounterValue, float64(s.stats.Evictions), s.partition)
	gauge(generationDesc, float64(s.cfg.Generation))
	oldest := 0.0
	if s.stats.OpenWindows > 0 {
		oldest = max(0, now.Sub(s.stats.OldestEnd.Time()).Seconds())
	}
	gauge(oldestDesc, oldest)
}

// Counts returns the current counts. All records below Next are in the other counts.
func (s *Stage) Counts() Counts {
	c := s.Folder.Counts()
	now := s.Runtime.Counts()
	c.OpenWindows, c.Pending, c.Next = now.Open, now.Pending, now.Next
	return c
}

// Counts returns the counters of the machines of f.
func (f *Folder) Counts() Counts {
	v := &f.metrics.verdicts
	return Counts{
		Folded:      v[verdictFolded].Load(),
		Duplicate:   v[verdictDuplicate].Load(),
		Late:        v[verdictLate].Load(),
		Quarantined: v[verdictQuarantined].Load(),
		Overflowed:  v[verdictOverflowed].Load(),
		Dead:        v[verdictDead].Load(),
		Own:         v[verdictOwn].Load(),
		Replayed:    f.metrics.replays.Load(),
		Rollups:     f.metrics.rollups[oona.Health].Load() + f.metrics.rollups[oona.Performance].Load(),
	}
}
