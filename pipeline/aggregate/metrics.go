package aggregate

import (
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/morphogenetic/oona"
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
	verdictOwn // Oona's own record, e.g. a tick
	verdictCount
)

var verdictNames = [verdictCount]string{
	"folded", "duplicate", "late", "quarantined", "overflowed", "dead", "own",
}

// Counts are what a stage has done since it began. A record that is read again
// after a rebalance is counted again.
type Counts struct {
	Folded, Duplicate, Late, Quarantined, Overflowed, Dead int64
	Own                                                    int64 // Oona's own records
	Rollups                                                int64 // emitted, of both groups
	OpenWindows                                            int64 // now
}

// metrics are the stage's counters, and their collector.
type metrics struct {
	verdicts [verdictCount]atomic.Int64
	rollups  [2]atomic.Int64 // by group

	records         *prometheus.CounterVec
	rollupsDesc     *prometheus.Desc
	openDesc        *prometheus.Desc
	open            func() int64
	ticks           prometheus.Counter
	publishFailures prometheus.Counter
}

func newMetrics(open func() int64) *metrics {
	return &metrics{
		open: open,
		records: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "oona_aggregate_records_total",
			Help: "Records read from the seed-metrics topic, by what became of them and why.",
		}, []string{"verdict", "reason"}),
		rollupsDesc: prometheus.NewDesc("oona_aggregate_rollups_total", "Rollups emitted, by group.", []string{"group"}, nil),
		openDesc:    prometheus.NewDesc("oona_aggregate_open_windows", "Windows that are open in the claimed partitions.", nil, nil),
		ticks: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "oona_aggregate_ticks_written_total",
			Help: "Ticks written into quiet partitions.",
		}),
		publishFailures: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "oona_aggregate_publish_failures_total",
			Help: "Publishes that the bus did not acknowledge and that are tried again.",
		}),
	}
}

func (m *metrics) count(v verdict, reason string) {
	m.verdicts[v].Add(1)
	m.records.WithLabelValues(verdictNames[v], reason).Inc()
}

// Describe implements prometheus.Collector.
func (m *metrics) Describe(ch chan<- *prometheus.Desc) {
	m.records.Describe(ch)
	ch <- m.rollupsDesc
	ch <- m.openDesc
	m.ticks.Describe(ch)
	m.publishFailures.Describe(ch)
}

// Collect implements prometheus.Collector.
func (m *metrics) Collect(ch chan<- prometheus.Metric) {
	m.records.Collect(ch)
	for group := range m.rollups {
		ch <- prometheus.MustNewConstMetric(m.rollupsDesc, prometheus.CounterValue,
			float64(m.rollups[group].Load()), oona.Group(group).String())
	}
	ch <- prometheus.MustNewConstMetric(m.openDesc, prometheus.GaugeValue, float64(m.open()))
	m.ticks.Collect(ch)
	m.publishFailures.Collect(ch)
}

// Counts returns a snapshot.
func (s *Stage) Counts() Counts {
	v := &s.metrics.verdicts
	return Counts{
		Folded:      v[verdictFolded].Load(),
		Duplicate:   v[verdictDuplicate].Load(),
		Late:        v[verdictLate].Load(),
		Quarantined: v[verdictQuarantined].Load(),
		Overflowed:  v[verdictOverflowed].Load(),
		Dead:        v[verdictDead].Load(),
		Own:         v[verdictOwn].Load(),
		Rollups:     s.metrics.rollups[oona.Health].Load() + s.metrics.rollups[oona.Performance].Load(),
		OpenWindows: s.openWindows(),
	}
}
