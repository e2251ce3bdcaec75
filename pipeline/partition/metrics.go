package partition

import (
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/morphogenetic/oona"
)

// metrics has the counters of the runtime. As a collector, it also returns the gauges of the
// assignments.
type metrics struct {
	runtime *Runtime

	commits         *prometheus.CounterVec
	unpublishable   *prometheus.CounterVec
	assigned        prometheus.Counter
	ticks           prometheus.Counter
	publishFailures prometheus.Counter
	retention       prometheus.Gauge

	partitions, lag, lagTime, endAge, commitAge, needed, bytes, pending *prometheus.Desc
}

func newMetrics(r *Runtime) *metrics {
	name := func(of string) string { return "oona_" + r.cfg.Name + "_" + of }
	counter := func(of, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Name: name(of), Help: help})
	}
	vector := func(of, help string, labels ...string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: name(of), Help: help}, labels)
	}
	desc := func(of, help string) *prometheus.Desc {
		return prometheus.NewDesc(name(of), help, []string{"partition"}, nil)
	}
	m := &metrics{
		runtime:         r,
		commits:         vector("commits_total", "Commits, by result: done, failed, or too_large (the metadata does not fit, so the commit was not sent).", "result"),
		unpublishable:   vector("unpublishable_records_total", "Rollups and side records that are lost because they are too large for their topic, by topic.", "topic"),
		assigned:        counter("assignments_total", "Assignments of partitions. Each rebalance adds to it."),
		ticks:           counter("ticks_written_total", "Ticks written into quiet partitions."),
		publishFailures: counter("publish_failures_total", "Failed attempts to publish. They are tried again."),
		retention: prometheus.NewGauge(prometheus.GaugeOpts{Name: name("retention_seconds"),
			Help: "How long the topic keeps a record (retention.ms); 0 if it keeps records for ever, or if this is not known."}),
		partitions: desc("topic_partitions", "Number of partitions of the topic."),
		lag:        desc("lag_records", "Records in the log that have not been read."),
		lagTime:    desc("lag_seconds", "Time since the append of the last record that was read; 0 if no record is waiting."),
		endAge:     desc("end_offset_age_seconds", "Time since the leader of the partition last reported the end of the log. The lag was computed then."),
		commitAge:  desc("commit_age_seconds", "Time since the last commit; 0 if everything that was read is committed."),
		needed:     desc("needed_seconds", "Time since the append of the oldest record that must be read after a restart. It may be off by one record."),
		bytes:      desc("commit_metadata_bytes", "Size of the metadata of the last commit. Kafka accepts at most 4096 bytes."),
		pending:    desc("pending_messages", "Rollups and side records that the bus has not acknowledged."),
	}
	m.showZeros()
	return m
}

// showZeros creates the series that alerts use. Otherwise a series would first appear with the
// value 1, and Prometheus would see no increase.
func (m *metrics) showZeros() {
	for _, result := range []string{"done", "failed", "too_large"} {
		m.commits.WithLabelValues(result)
	}
	for _, topic := range m.runtime.cfg.Outputs {
		m.unpublishable.WithLabelValues(topic)
	}
}

// own returns the metrics that are registered as collectors of their own.
func (m *metrics) own() []prometheus.Collector {
	return []prometheus.Collector{m.commits, m.unpublishable, m.assigned, m.ticks, m.publishFailures, m.retention}
}

// Describe implements prometheus.Collector.
func (m *metrics) Describe(ch chan<- *prometheus.Desc) {
	for _, c := range m.own() {
		c.Describe(ch)
	}
	for _, d := range []*prometheus.Desc{m.partitions, m.lag, m.lagTime, m.endAge, m.commitAge, m.needed, m.bytes, m.pending} {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (m *metrics) Collect(ch chan<- prometheus.Metric) {
	for _, c := range m.own() {
		c.Collect(ch)
	}
	now := time.Now()
	for _, p := range m.runtime.assignments() {
		m.collect(p, ch, now)
	}
}

func (m *metrics) collect(p *assignment, ch chan<- prometheus.Metric, now time.Time) {
	p.mu.Lock()
	committed := p.machine.ProcessedTo() == p.committedTo
	p.mu.Unlock()
	partition := strconv.Itoa(int(p.about.Partition))
	gauge := func(d *prometheus.Desc, v float64) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, partition)
	}
	gauge(m.partitions, float64(p.about.Partitions))
	gauge(m.bytes, float64(p.metadataBytes.Load()))
	gauge(m.pending, float64(p.pending.Load()))
	lag := max(0, p.end.Load()-p.next.Load())
	gauge(m.lag, float64(lag))
	gauge(m.lagTime, secondsSince(lag > 0, oona.Micros(p.appended.Load()).Time(), now))
	gauge(m.endAge, secondsSince(true, time.Unix(0, p.heard.Load()), now))
	gauge(m.commitAge, secondsSince(!committed, time.Unix(0, p.committedAt.Load()), now))
	needed := p.needed.Load()
	gauge(m.needed, secondsSince(needed > 0, oona.Micros(needed).Time(), now))
}

// secondsSince returns 0 if nothing is waiting.
func secondsSince(waiting bool, then, now time.Time) float64 {
	if !waiting {
		return 0
	}
	return max(0, now.Sub(then).Seconds())
}
