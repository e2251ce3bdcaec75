package aggregate

import (
	"strconv"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/windows"
)

// verdict is what became of a record. Every record has exactly one.
type verdict uint8

const (
	verdictFolded verdict = iota
	verdictDuplicate
	verdictLate
	verdictQuarantined
	verdictOverflowed
	verdictDead
	verdictOwn // Oona's own record: a tick, a configuration, or of a kind not known
	verdictCount
)

var verdictNames = [verdictCount]string{
	"folded", "duplicate", "late", "quarantined", "overflowed", "dead", "own",
}

// Counts are what a stage has done since it began. A record that is read again
// after the partition moved is counted again, unless it was replayed.
type Counts struct {
	Folded, Duplicate, Late, Quarantined, Overflowed, Dead int64

	Own      int64 // Oona's own records
	Replayed int64 // records read again after a commit, to rebuild the open windows
	Rollups  int64 // emitted, of both groups

	// Of the claimed partitions, now:
	OpenWindows int64
	Pending     int64 // rollups and side records that the bus has not acknowledged
	Next        int64 // sum of the offsets after the last records that were read
}

// metrics are the stage's counters, and the collector of what its partitions
// say of themselves.
type metrics struct {
	verdicts [verdictCount]atomic.Int64
	rollups  [2]atomic.Int64 // by group
	replays  atomic.Int64

	stage           *Stage
	records         *prometheus.CounterVec
	commits         *prometheus.CounterVec
	unpublishable   *prometheus.CounterVec
	replayed        prometheus.Counter
	claims          prometheus.Counter
	ticks           prometheus.Counter
	publishFailures prometheus.Counter
	retention       prometheus.Gauge
}

func newMetrics(s *Stage) *metrics {
	counter := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Name: "oona_aggregate_" + name, Help: help})
	}
	vector := func(name, help string, labels ...string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: "oona_aggregate_" + name, Help: help}, labels)
	}
	m := &metrics{
		stage:           s,
		records:         vector("records_total", "Records read from the seed-metrics topic, by what became of them and why.", "verdict", "reason"),
		commits:         vector("commits_total", "Commits, by result: done, failed, or too_large to be tried.", "result"),
		unpublishable:   vector("unpublishable_records_total", "Rollups and side records that the bus will never take, by topic: they are lost.", "topic"),
		claims:          counter("claims_total", "Partitions claimed, again after each rebalance."),
		ticks:           counter("ticks_written_total", "Ticks written into quiet partitions."),
		publishFailures: counter("publish_failures_total", "Publishes that the bus did not acknowledge and that are tried again."),
	}
	m.replayed = counter("replayed_records_total", "Records read again after a commit, to rebuild the open windows.")
	m.retention = prometheus.NewGauge(prometheus.GaugeOpts{Name: "oona_aggregate_retention_seconds",
		Help: "How long the seed-metrics topic keeps a record (retention.ms), 0 where it is for ever or not known."})
	m.showZeros()
	return m
}

// showZeros shows what is alarmed on from the start: the increase of a series
// that comes up as 1 is 0.
func (m *metrics) showZeros() {
	for v, reasons := range asideReasons {
		for _, reason := range reasons {
			m.records.WithLabelValues(verdictNames[v], string(reason))
		}
	}
	for _, result := range []string{"done", "failed", "too_large"} {
		m.commits.WithLabelValues(result)
	}
	topics := &m.stage.cfg.Topics
	for _, topic := range []string{topics.LayerHealth, topics.LayerPerformance, topics.Late, topics.Quarantine, topics.Overflow, topics.SeedMetricsDead} {
		m.unpublishable.WithLabelValues(topic)
	}
}

// asideReasons are why records go to side topics.
var asideReasons = map[verdict][]windows.Reason{
	verdictLate:        {windows.ReasonLate, windows.ReasonLost},
	verdictQuarantined: {windows.ReasonFuture, windows.ReasonStale, windows.ReasonConflict},
	verdictOverflowed:  {windows.ReasonTimelines, windows.ReasonLayers, windows.ReasonMetrics, windows.ReasonSeeds, windows.ReasonSealed, reasonSize},
	verdictDead:        {reasonUndecodable, reasonInvalid},
}

func (m *metrics) count(v verdict, reason string) {
	m.verdicts[v].Add(1)
	m.records.WithLabelValues(verdictNames[v], reason).Inc()
}

func (m *metrics) replay() {
	m.replays.Add(1)
	m.replayed.Inc()
}

// owned are the metrics that are themselves collectors.
func (m *metrics) owned() []prometheus.Collector {
	return []prometheus.Collector{m.records, m.commits, m.unpublishable, m.replayed, m.claims, m.ticks, m.publishFailures, m.retention}
}

// Descriptions of what is read from the partitions when Prometheus asks.
var (
	rollupsDesc = prometheus.NewDesc("oona_aggregate_rollups_total", "Rollups emitted, by group.", []string{"group"}, nil)

	openDesc       = partitionDesc("open_windows", "Windows that are open.")
	layersDesc     = partitionDesc("open_layer_windows", "Layers' windows that are open: what memory goes to.")
	layersCap      = partitionDesc("max_open_layer_windows", "Layers' windows that may be open.")
	sealedDesc     = partitionDesc("sealed_windows", "Windows that admit no further layer, as too many were open.")
	timelineDesc   = partitionDesc("timelines", "Timelines (runs, or ranks that own layers) that are admitted.")
	timelineCap    = partitionDesc("max_timelines", "Timelines that the partition admits.")
	evictedDesc    = partitionDesc("evicted_timelines_total", "Timelines forgotten since the partition was claimed.")
	lagDesc        = partitionDesc("lag_records", "Records in the log that have not been read.")
	lagTimeDesc    = partitionDesc("lag_seconds", "Time since the append of the last record that was read, 0 where none is waiting.")
	endAgeDesc     = partitionDesc("end_offset_age_seconds", "Time since the partition's leader last said where the log ends: the lag is of then.")
	ageDesc        = partitionDesc("commit_age_seconds", "Time since the last commit, 0 where all that was read is committed.")
	neededDesc     = partitionDesc("needed_seconds", "Time since the append of the oldest record that a restart needs, by the last commit, or of the first record; at most by one record more.")
	bytesDesc      = partitionDesc("commit_metadata_bytes", "Size of the last commit's metadata; Kafka takes 4096.")
	pendingDesc    = partitionDesc("pending_messages", "Rollups and side records that the bus has not acknowledged.")
	generationDesc = partitionDesc("configuration_generation", "Generation of the configuration that the partition's log made last; 0 where it has none, and the worker's settings hold.")
	partitionsDesc = partitionDesc("topic_partitions", "Partitions of the seed-metrics topic, this one among them.")
	oldestDesc     = partitionDesc("oldest_window_seconds", "Time since the end of the oldest open window, 0 where there is none or it has not ended.")
)

func partitionDesc(name, help string) *prometheus.Desc {
	return prometheus.NewDesc("oona_aggregate_"+name, help, []string{"partition"}, nil)
}

// Describe implements prometheus.Collector.
func (m *metrics) Describe(ch chan<- *prometheus.Desc) {
	for _, c := range m.owned() {
		c.Describe(ch)
	}
	for _, d := range []*prometheus.Desc{rollupsDesc, openDesc, layersDesc, sealedDesc, timelineDesc, timelineCap, evictedDesc, layersCap, partitionsDesc,
		lagDesc, lagTimeDesc, endAgeDesc, ageDesc, neededDesc, bytesDesc, pendingDesc, oldestDesc, generationDesc} {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (m *metrics) Collect(ch chan<- prometheus.Metric) {
	for _, c := range m.owned() {
		c.Collect(ch)
	}
	for group := range m.rollups {
		ch <- prometheus.MustNewConstMetric(rollupsDesc, prometheus.CounterValue,
			float64(m.rollups[group].Load()), oona.Group(group).String())
	}
	now := time.Now()
	for _, p := range m.stage.owned() {
		p.collect(ch, now)
	}
}

func (p *partition) collect(ch chan<- prometheus.Metric, now time.Time) {
	p.mu.Lock()
	stats := p.engine.Stats()
	cfg := p.engine.Config()
	committed := p.engine.ProcessedTo() == p.committedTo
	p.mu.Unlock()
	partition := strconv.Itoa(int(p.assignment.Partition))
	gauge := func(d *prometheus.Desc, v float64) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, partition)
	}
	gauge(openDesc, float64(stats.OpenWindows))
	gauge(layersDesc, float64(stats.Accumulators))
	gauge(sealedDesc, float64(stats.SealedWindows))
	gauge(timelineDesc, float64(stats.Timelines))
	gauge(timelineCap, float64(cfg.MaxTimelines))
	gauge(layersCap, float64(cfg.MaxAccumulators))
	gauge(partitionsDesc, float64(p.assignment.Partitions))
	ch <- prometheus.MustNewConstMetric(evictedDesc, prometheus.CounterValue, float64(stats.Evictions), partition)
	gauge(bytesDesc, float64(p.metadataBytes.Load()))
	gauge(generationDesc, float64(cfg.Generation))
	gauge(pendingDesc, float64(p.pending.Load()))

	lag := max(0, p.end.Load()-p.next.Load())
	gauge(lagDesc, float64(lag))
	gauge(lagTimeDesc, secondsSince(lag > 0, oona.Micros(p.appended.Load()).Time(), now))
	gauge(endAgeDesc, secondsSince(true, time.Unix(0, p.heard.Load()), now))
	gauge(ageDesc, secondsSince(!committed, time.Unix(0, p.committedAt.Load()), now))
	needed := p.needed.Load()
	gauge(neededDesc, secondsSince(needed > 0, oona.Micros(needed).Time(), now))
	gauge(oldestDesc, secondsSince(stats.OpenWindows > 0, stats.OldestEnd.Time(), now))
}

// secondsSince is 0 where there is nothing to wait for.
func secondsSince(waiting bool, then, now time.Time) float64 {
	if !waiting {
		return 0
	}
	return max(0, now.Sub(then).Seconds())
}

// Counts returns a snapshot. All records below Next are in the other counts.
func (s *Stage) Counts() Counts {
	var c Counts
	for _, p := range s.owned() {
		c.Next += p.next.Load()
		c.Pending += p.pending.Load()
		c.OpenWindows += p.open.Load()
	}
	v := &s.metrics.verdicts
	c.Folded = v[verdictFolded].Load()
	c.Duplicate = v[verdictDuplicate].Load()
	c.Late = v[verdictLate].Load()
	c.Quarantined = v[verdictQuarantined].Load()
	c.Overflowed = v[verdictOverflowed].Load()
	c.Dead = v[verdictDead].Load()
	c.Own = v[verdictOwn].Load()
	c.Replayed = s.metrics.replays.Load()
	c.Rollups = s.metrics.rollups[oona.Health].Load() + s.metrics.rollups[oona.Performance].Load()
	return c
}
