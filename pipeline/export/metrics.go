package export

import (
	"net/http"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/rollups"
)

// Counts are what a stage has read since it began.
type Counts struct {
	Rollups      int64 // of both groups, each once
	Repeats      int64
	Undecodable  int64
	Conflicts    int64 // as package rollups has it, and the two below
	Remade       int64
	Behind       int64
	Incarnations int64 // that began
}

// Counts returns a snapshot.
func (s *Stage) Counts() Counts {
	sum := func(of *byGroup) int64 { return of[oona.Health].Load() + of[oona.Performance].Load() }
	m := s.metrics
	return Counts{
		Rollups: sum(&m.outcomes[rollups.New]), Repeats: sum(&m.outcomes[rollups.Repeat]), Undecodable: sum(&m.undecodable),
		Conflicts: sum(&m.outcomes[rollups.Conflict]), Remade: sum(&m.outcomes[rollups.Remade]), Behind: sum(&m.outcomes[rollups.Behind]),
		Incarnations: sum(&m.incarnations),
	}
}

// byGroup counts something of each group.
type byGroup [len(groups)]atomic.Int64

// metrics counts what the stage itself does.
type metrics struct {
	outcomes                         [rollups.OutcomeCount]byGroup
	incarnations, undecodable, stale byGroup

	foldedTotal, statusTotal              *prometheus.CounterVec
	outcomeDescs                          [rollups.OutcomeCount]*prometheus.Desc
	incarnationsDesc                      *prometheus.Desc
	undecodableDesc, staleDesc            *prometheus.Desc
	layersDesc, seriesDesc, positionsDesc *prometheus.Desc
	lagRecordsDesc, lagSecondsDesc        *prometheus.Desc
}

func newMetrics() *metrics {
	desc := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc("oona_exporter_"+name, help, labels, nil)
	}
	m := &metrics{
		foldedTotal: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "oona_exporter_folded_series_total",
			Help: "Rollups (label run or layer) and metrics of rollups (label metric) that were merged under \"other\", because a limit of label values was reached.",
		}, []string{"label"}),
		statusTotal: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "oona_exporter_status_requests_total",
			Help: "Requests for the status of a run (GET /v1/status), by HTTP status.",
		}, []string{"code"}),
		outcomeDescs: [rollups.OutcomeCount]*prometheus.Desc{
			rollups.New:      desc("rollups_total", "New rollups, which are not repeats, by group.", "group"),
			rollups.Repeat:   desc("repeats_total", "Rollups dropped because they were read before, or because their trigger is not above the highest trigger of their partition that was read, by group.", "group"),
			rollups.Conflict: desc("conflicts_total", "Rollups dropped because an earlier rollup of the same window and the same records has other contents, by group. It must be 0.", "group"),
			rollups.Remade:   desc("remade_total", "Rollups dropped because an earlier rollup of the same window was made from other records, by group. This happens after the log was made again or has lost its end.", "group"),
			rollups.Behind:   desc("behind_total", "Rollups dropped because their trigger is below the highest that was read, although their window is later than all others, by group. This happens after the log was made again or has lost its end, and no new incarnation was started. It must be 0.", "group"),
		},
		incarnationsDesc: desc("incarnations_total", "New incarnations of the logs of partitions that were found in rollups, by group.", "group"),
		undecodableDesc:  desc("undecodable_total", "Records of the rollup topics that were skipped because they are not rollups, by group of the topic.", "group"),
		staleDesc:        desc("stale_total", "Rollups that are not shown because their window is so old that the layer counts as silent, by group.", "group"),
		layersDesc:       desc("layers", "Layers shown, including layers called other, into which those beyond a limit are merged."),
		seriesDesc:       desc("series", "Series of layers that are shown. A histogram counts as one."),
		positionsDesc:    desc("next_offset", "Offset after the last record that was read, by partition of a rollup topic.", "topic", "partition"),
		lagRecordsDesc:   desc("lag_records", "Records that are not read yet, by partition of a rollup topic. The end of the log is asked for every ten seconds.", "topic", "partition"),
		lagSecondsDesc:   desc("lag_seconds", "Time since all records had been read, by partition of a rollup topic; 0 if all are read now.", "topic", "partition"),
	}
	for _, label := range []string{labelRun, labelLayer, labelMetric} {
		m.foldedTotal.WithLabelValues(label) // so that it is shown as 0 from the start
	}
	for _, code := range []int{http.StatusOK, http.StatusBadRequest, http.StatusNotFound, http.StatusTooManyRequests, http.StatusServiceUnavailable} {
		m.statusTotal.WithLabelValues(strconv.Itoa(code))
	}
	return m
}

func (m *metrics) fold(label string) { m.foldedTotal.WithLabelValues(label).Inc() }

func (m *metrics) describe(ch chan<- *prometheus.Desc) {
	m.foldedTotal.Describe(ch)
	m.statusTotal.Describe(ch)
	for _, d := range []*prometheus.Desc{
		m.incarnationsDesc, m.undecodableDesc, m.staleDesc, m.layersDesc, m.seriesDesc, m.positionsDesc, m.lagRecordsDesc, m.lagSecondsDesc,
	} {
		ch <- d
	}
	for _, d := range m.outcomeDescs {
		ch <- d
	}
}

func (m *metrics) collect(ch chan<- prometheus.Metric, layers, series int) {
	m.foldedTotal.Collect(ch)
	m.statusTotal.Collect(ch)
	for _, g := range groups {
		counter := func(desc *prometheus.Desc, counts *byGroup) {
			ch <- prometheus.MustNewConstMetric(desc, prometheus.CounterValue, float64(counts[g].Load()), g.String())
		}
		for outcome, desc := range m.outcomeDescs {
			counter(desc, &m.outcomes[outcome])
		}
		counter(m.incarnationsDesc, &m.incarnations)
		counter(m.undecodableDesc, &m.undecodable)
		counter(m.staleDesc, &m.stale)
	}
	ch <- prometheus.MustNewConstMetric(m.layersDesc, prometheus.GaugeValue, float64(layers))
	ch <- prometheus.MustNewConstMetric(m.seriesDesc, prometheus.GaugeValue, float64(series))
}

// collectPartitions writes how far the partitions are read.
func (m *metrics) collectPartitions(ch chan<- prometheus.Metric, s *Stage, now time.Time) {
	gauge := func(desc *prometheus.Desc, value float64, topic string, partition int32) {
		ch <- prometheus.MustNewConstMetric(desc, prometheus.GaugeValue, value, topic, strconv.Itoa(int(partition)))
	}
	s.positions(func(topic string, partition int32, next int64) {
		gauge(m.positionsDesc, float64(next), topic, partition)
	})
	s.lags(now, func(topic string, partition int32, records int64, since time.Duration) {
		gauge(m.lagRecordsDesc, float64(records), topic, partition)
		gauge(m.lagSecondsDesc, since.Seconds(), topic, partition)
	})
}
