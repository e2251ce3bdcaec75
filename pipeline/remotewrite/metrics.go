package remotewrite

import (
	"fmt"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/prometheus/prompb"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/pipeline/layerseries"
	"github.com/morphogenetic/oona/rollups"
)

// undecodable is the outcome of a record that is not a rollup. The other outcomes are
// those of rollups.Outcome.
const undecodable = "undecodable"

// metrics counts what the stage does, and collects how far the partitions are sent.
type metrics struct {
	stage  *Stage
	judged atomic.Int64 // answers that show that the receiver looks at samples

	records  *tally // by group and outcome
	beyond   *tally // by label
	requests *tally // by verdict
	skipped  *tally // by reason
	samples  *tally
	retried  *tally
	lost     *tally

	success, refusing, settled, lagRecords, lagSeconds *prometheus.Desc

	mu       sync.Mutex
	accepted time.Time             // when samples were last accepted
	faults   map[verdict]time.Time // when one was last logged; empty after samples were accepted
	last     error                 // of the last fault
}

func newMetrics(s *Stage) *metrics {
	m := &metrics{
		stage:    s,
		faults:   make(map[verdict]time.Time),
		records:  newTally("records_total", "Records of the rollup topics that were read, by group and outcome. Only those with the outcome new are sent.", "group", "outcome"),
		beyond:   newTally("beyond_total", "Rollups (label run or layer) and metrics of rollups (label metric) that are not sent, because a limit of label values was reached.", "label"),
		requests: newTally("requests_total", "Requests to the remote-write receiver, by its answer: accepted, refused (a sample is not valid), too-large, throttled, away (no answer, or a failure of the receiver), denied (an operator must act).", "verdict"),
		skipped:  newTally("skipped_samples_total", "Samples that the remote-write receiver has refused and that are not sent again, by reason. The reason repeated means that the previous owner of the partition had sent them.", "reason"),
		samples:  newTally("samples_total", "Samples that the remote-write receiver has accepted."),
		retried:  newTally("retried_samples_total", "Samples in requests that were not accepted and are sent again."),
		lost:     newTally("lost_records_total", "Records of the rollup topics that were deleted before they were sent."),
		success:  desc("last_success_timestamp_seconds", "When the remote-write receiver last accepted samples, in Unix time; 0 if it has not."),
		refusing: desc("refusing", "1 if the remote-write receiver has refused a request, since it last accepted samples, for a reason that an operator must correct, such as wrong credentials."),

		settled:    desc("next_offset", "Offset after the last record of an assigned partition whose samples the remote-write receiver has accepted or refused.", "topic", "partition"),
		lagRecords: desc("lag_records", "Records of an assigned partition that are not sent yet.", "topic", "partition"),
		lagSeconds: desc("lag_seconds", "Time since the append of the oldest rollup of an assigned partition that was read but is not sent yet; 0 if there is none.", "topic", "partition"),
	}
	for _, g := range groups {
		for outcome := range rollups.OutcomeCount {
			m.records.add(0, g.String(), rollups.Outcome(outcome).String())
		}
		m.records.add(0, g.String(), undecodable)
	}
	for _, label := range []string{layerseries.Run, layerseries.Layer, layerseries.Metric} {
		m.beyond.add(0, label)
	}
	for _, v := range verdicts {
		m.requests.add(0, string(v))
	}
	for _, why := range reasons {
		m.skipped.add(0, string(why))
	}
	for _, t := range []*tally{m.samples, m.retried, m.lost} {
		t.add(0)
	}
	return m
}

func desc(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("oona_exporter_remote_write_"+name, help, labels, nil)
}

// tally is a counter with labels whose values can be read.
type tally struct {
	desc   *prometheus.Desc
	mu     sync.Mutex
	counts map[string]int64 // by the values of the labels, joined
}

func newTally(name, help string, labels ...string) *tally {
	return &tally{desc: desc(name, help, labels...), counts: make(map[string]int64)}
}

// add returns the count after n was added.
func (t *tally) add(n int64, labels ...string) int64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	key := strings.Join(labels, "\xff")
	t.counts[key] += n
	return t.counts[key]
}

func (t *tally) collect(ch chan<- prometheus.Metric) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for key, n := range t.counts {
		var labels []string
		if key != "" {
			labels = strings.Split(key, "\xff")
		}
		ch <- prometheus.MustNewConstMetric(t.desc, prometheus.CounterValue, float64(n), labels...)
	}
}

func (m *metrics) tallies() []*tally {
	return []*tally{m.records, m.beyond, m.requests, m.skipped, m.samples, m.retried, m.lost}
}

// answered counts a request.
func (m *metrics) answered(a answer, samples int) {
	m.requests.add(1, string(a.verdict))
	if a.verdict != accepted {
		m.retried.add(int64(samples))
		return
	}
	m.samples.add(int64(samples))
	m.mu.Lock()
	defer m.mu.Unlock()
	m.accepted = time.Now()
	if len(m.faults) > 0 {
		m.stage.logger.Info("the remote-write receiver accepts samples again")
		clear(m.faults)
	}
}

// fault notes that an attempt must be repeated. It logs the first of each kind since
// samples were accepted, and one every minute.
func (m *metrics) fault(a answer) {
	m.mu.Lock()
	defer m.mu.Unlock()
	now := time.Now()
	m.last = a.err
	if at, known := m.faults[a.verdict]; known && now.Sub(at) < time.Minute {
		return
	}
	m.faults[a.verdict] = now
	if a.verdict == denied {
		m.stage.logger.Error("the remote-write receiver refuses everything, and rollups wait; look at --remote-write-url, its credentials, and what the receiver says", "err", a.err)
	} else {
		m.stage.logger.Warn("rollups wait for the remote-write receiver", "err", a.err)
	}
}

// Describe implements prometheus.Collector.
func (m *metrics) Describe(ch chan<- *prometheus.Desc) {
	for _, t := range m.tallies() {
		ch <- t.desc
	}
	for _, d := range []*prometheus.Desc{m.success, m.refusing, m.settled, m.lagRecords, m.lagSeconds} {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (m *metrics) Collect(ch chan<- prometheus.Metric) {
	for _, t := range m.tallies() {
		t.collect(ch)
	}
	gauge := func(d *prometheus.Desc, value float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, value, labels...)
	}
	m.mu.Lock()
	success, refusing := 0.0, 0.0
	if !m.accepted.IsZero() {
		success = float64(m.accepted.UnixMilli()) / 1e3
	}
	if _, is := m.faults[denied]; is {
		refusing = 1
	}
	m.mu.Unlock()
	gauge(m.success, success)
	gauge(m.refusing, refusing)
	now := oona.MicrosOf(time.Now())
	m.stage.each(func(p *pusher) {
		at, partition := p.progress(), strconv.Itoa(int(p.assignment.Partition))
		gauge(m.settled, float64(at.settled), p.assignment.Topic, partition)
		gauge(m.lagRecords, float64(at.behind), p.assignment.Topic, partition)
		lag := oona.Micros(0)
		if at.oldest > 0 {
			lag = max(now-at.oldest, 0)
		}
		gauge(m.lagSeconds, layerseries.Seconds(lag), p.assignment.Topic, partition)
	})
}

// note is a line for people.
func (m *metrics) note(now time.Time) string {
	m.mu.Lock()
	defer m.mu.Unlock()
	switch {
	case len(m.faults) > 0:
		return fmt.Sprintf("waiting: %v", m.last)
	case m.accepted.IsZero():
		return "nothing sent yet"
	}
	return fmt.Sprintf("samples accepted %s ago", now.Sub(m.accepted).Round(time.Second))
}

// seriesText writes the labels of a series for a log line.
func seriesText(series *prompb.TimeSeries) string {
	var text strings.Builder
	for i, l := range series.Labels {
		if i > 0 {
			text.WriteByte(' ')
		}
		fmt.Fprintf(&text, "%s=%q", l.Name, l.Value)
	}
	return text.String()
}
