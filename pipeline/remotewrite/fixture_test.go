package remotewrite_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/klauspost/compress/snappy"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/prometheus/prompb"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/bus"
	"github.com/morphogenetic/oona/bus/memory"
	"github.com/morphogenetic/oona/pipeline/remotewrite"
	"github.com/morphogenetic/oona/schemas/avro"
)

var topics = func() oona.Topics {
	topics, err := oona.NewTopics(oona.DefaultPrefix)
	if err != nil {
		panic(err)
	}
	return topics
}()

// newBus returns a bus with the rollup topics, of two partitions each.
func newBus(t *testing.T) *memory.Bus {
	t.Helper()
	b := memory.New()
	if _, err := b.Apply(t.Context(), []oona.TopicSpec{{Name: topics.LayerHealth, Partitions: 2}, {Name: topics.LayerPerformance, Partitions: 2}}); err != nil {
		t.Fatal(err)
	}
	return b
}

const group = "oona-remote-write"

// exporter is a stage that runs on a bus. Use it in a bubble of synctest.
type exporter struct {
	*remotewrite.Stage
	t        *testing.T
	registry *prometheus.Registry
	log      *bytes.Buffer
	members  [2]bus.Member
	stop     context.CancelFunc
	ended    chan error
}

func start(t *testing.T, on *memory.Bus, to http.RoundTripper, change func(*remotewrite.Config)) *exporter {
	t.Helper()
	cfg := remotewrite.Config{
		Topics: topics, Prefix: "kasmina", URL: "http://receiver/api/v1/write", Transport: to,
		MaxRuns: 4, MaxLayers: 8, MaxTotalLayers: 16, MaxMetrics: 8, WorstSeeds: 2, SilentAfter: 5 * time.Minute,
	}
	if change != nil {
		change(&cfg)
	}
	e := &exporter{t: t, registry: prometheus.NewPedanticRegistry(), log: new(bytes.Buffer), ended: make(chan error, 1)}
	var err error
	if e.Stage, err = remotewrite.New(cfg, e.registry, slog.New(slog.NewTextHandler(e.log, nil))); err != nil {
		t.Fatal(err)
	}
	for g := range e.members {
		if e.members[g], err = on.Member(bus.MemberOptions{Group: group}, e.Stage); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	e.stop = cancel
	go func() { e.ended <- e.Run(ctx, e.members) }()
	synctest.Wait()
	return e
}

// pass waits for a time, and then until nothing happens any more.
func pass(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

// end stops the exporter and waits until it has ended.
func (e *exporter) end() {
	e.t.Helper()
	e.stop()
	if err := errors.Join(<-e.ended, e.members[0].Close(), e.members[1].Close()); err != nil {
		e.t.Error(err)
	}
}

// value returns what a metric of the exporter shows, the sum over all series with those
// labels.
func (e *exporter) value(name string, labels ...string) (sum float64) {
	e.t.Helper()
	families, err := e.registry.Gather()
	if err != nil {
		e.t.Fatal(err)
	}
	for _, family := range families {
		if family.GetName() != "oona_exporter_remote_write_"+name {
			continue
		}
		for _, m := range family.GetMetric() {
			has := make(map[string]bool)
			for _, l := range m.GetLabel() {
				has[l.GetName()+"="+l.GetValue()] = true
			}
			all := true
			for _, l := range labels {
				all = all && has[l]
			}
			if all {
				sum += m.GetCounter().GetValue() + m.GetGauge().GetValue()
			}
		}
	}
	return sum
}

func (e *exporter) expect(want float64, name string, labels ...string) {
	e.t.Helper()
	if got := e.value(name, labels...); got != want {
		e.t.Errorf("%s%v is %v, want %v", name, labels, got, want)
	}
}

// sample is a stored sample: a number, or a histogram.
type sample struct {
	at        int64
	value     float64
	histogram string
}

// storage is a receiver like Prometheus 2.42: the first sample that it refuses makes it
// store nothing of the request.
type storage struct {
	mu     sync.Mutex
	series map[string][]sample
	// before is asked about each request first. It may answer it. The request was
	// counted.
	before   func(n int, request *prompb.WriteRequest) *http.Response
	requests int
	refusals int
	partial  bool // as Prometheus 3: it stores what it does not refuse
}

func newStorage() *storage { return &storage{series: make(map[string][]sample)} }

func respond(status int, body string, headers ...string) *http.Response {
	r := &http.Response{StatusCode: status, Status: fmt.Sprintf("%d %s", status, http.StatusText(status)), Header: make(http.Header), Body: io.NopCloser(strings.NewReader(body))}
	for i := 0; i+1 < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	return r
}

func (s *storage) RoundTrip(request *http.Request) (*http.Response, error) {
	compressed, err := io.ReadAll(request.Body)
	if err != nil {
		return nil, err
	}
	message, err := snappy.Decode(nil, compressed)
	if err != nil {
		return nil, err
	}
	var w prompb.WriteRequest
	if err := w.Unmarshal(message); err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.requests++
	if s.before != nil {
		if answer := s.before(s.requests, &w); answer != nil {
			return answer, nil
		}
	}
	if wrong := s.store(&w); wrong != "" {
		s.refusals++
		return respond(http.StatusBadRequest, wrong), nil
	}
	return respond(http.StatusNoContent, ""), nil
}

// store returns why it refuses a sample, or "".
func (s *storage) store(w *prompb.WriteRequest) (wrong string) {
	added := make(map[string][]sample)
	for _, series := range w.Timeseries {
		name, one := labelsOf(series), sampleOf(series)
		stored := slices.Concat(s.series[name], added[name])
		if n := len(stored); n > 0 {
			last := stored[n-1]
			switch {
			case last == one:
				continue
			case last.at == one.at:
				wrong = "duplicate sample for timestamp"
			case last.at > one.at:
				wrong = "out of order sample"
			}
			if last.at >= one.at && !s.partial {
				return wrong
			}
			if last.at >= one.at {
				continue
			}
		}
		added[name] = append(added[name], one)
	}
	for name, samples := range added {
		s.series[name] = append(s.series[name], samples...)
	}
	return wrong
}

func labelsOf(series prompb.TimeSeries) string {
	var text strings.Builder
	for i, l := range series.Labels {
		if i > 0 && l.Name <= series.Labels[i-1].Name {
			panic("labels are not sorted")
		}
		fmt.Fprintf(&text, "%s=%s,", l.Name, l.Value)
	}
	return text.String()
}

func sampleOf(series prompb.TimeSeries) sample {
	if len(series.Histograms) > 0 {
		h := series.Histograms[0]
		return sample{h.Timestamp, h.Sum, h.String()}
	}
	return sample{series.Samples[0].Timestamp, series.Samples[0].Value, ""}
}

func (s *storage) set(before func(int, *prompb.WriteRequest) *http.Response) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.before = before
}

// all returns what is stored.
func (s *storage) all() map[string][]sample {
	s.mu.Lock()
	defer s.mu.Unlock()
	return maps.Clone(s.series)
}

// count returns the number of requests.
func (s *storage) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.requests
}

// samples counts what is stored.
func (s *storage) samples() (n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, samples := range s.series {
		n += len(samples)
	}
	return n
}

// find returns the samples of the one series with those labels.
func (s *storage) find(t *testing.T, labels ...string) (found []sample) {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	n := 0
	for name, samples := range s.series {
		all := true
		for _, l := range labels {
			all = all && strings.Contains(","+name, ","+l+",")
		}
		if all {
			n++
			found = samples
		}
	}
	if n > 1 {
		t.Fatalf("%d series have %v", n, labels)
	}
	return found
}

// emitter appends rollups as an aggregator does.
type emitter struct {
	t         *testing.T
	publisher bus.Publisher
	trigger   int64
}

func newEmitter(t *testing.T, to *memory.Bus) *emitter {
	t.Helper()
	publisher, err := to.Publisher(bus.PublisherOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return &emitter{t: t, publisher: publisher}
}

// emit appends both rollups of a window of ten seconds to a partition.
func (e *emitter) emit(partition int32, run oona.RunID, layer oona.LayerID, window int, metrics ...string) []*oona.Rollup {
	e.t.Helper()
	rollups := []*oona.Rollup{rollup(oona.Health, run, layer, window, metrics...), rollup(oona.Performance, run, layer, window, metrics...)}
	e.append(partition, rollups...)
	return rollups
}

// append appends rollups with the next trigger.
func (e *emitter) append(partition int32, rollups ...*oona.Rollup) {
	e.t.Helper()
	e.trigger++
	for _, r := range rollups {
		r.Trigger = oona.Trigger{Offset: e.trigger}
		r.Hash = r.ContentHash()
		e.raw(partition, r.Group, avro.AppendRollup(nil, r))
	}
}

func (e *emitter) raw(partition int32, g oona.Group, payload []byte) {
	e.t.Helper()
	if err := e.publisher.Publish(e.t.Context(), topics.Rollup(g), bus.NewMessage(payload, bus.Target{Partition: partition, Directed: true})); err != nil {
		e.t.Fatal(err)
	}
}

// epoch is when the first window begins.
const epoch = oona.Micros(1_790_000_000_000_000)

// Samples that a rollup with metrics has: see rollup.
const (
	healthSamples      = 3 + oona.StateCount
	performanceSamples = 8
	metricSamples      = 11
)

// rollup returns a rollup of a layer's nth window. Each metric has three samples.
func rollup(g oona.Group, run oona.RunID, layer oona.LayerID, n int, metrics ...string) *oona.Rollup {
	const length = 10_000_000
	r := &oona.Rollup{
		Group: g, Run: run, Layer: layer, Start: epoch + oona.Micros(n)*length, End: epoch + oona.Micros(n+1)*length,
		Frames: 5, Readings: 50, Duplicates: 1, Reducer: 2,
	}
	for _, name := range metrics {
		r.Metrics = append(r.Metrics, oona.MetricSummary{
			Name: name, Count: 3, NotMeasured: 2, Infinite: 1, Sum: 1.5 + float64(n), Min: -1, Max: 2, Mean: 0.5, M2: 6,
			Histogram: oona.Histogram{Zero: 1, Positive: oona.Buckets{Indexes: []int32{32}, Counts: []uint64{1}}, Negative: oona.Buckets{Indexes: []int32{0}, Counts: []uint64{1}}},
			Worst:     []oona.SeedValue{{Seed: 7, Value: 2, Offset: 1}, {Seed: 9, Value: -1, Offset: 1}, {Seed: 8, Value: 0, Offset: 1}},
		})
	}
	if g == oona.Health {
		r.Seeds = oona.SeedCensus{Seen: 10, Active: 4}
		r.Seeds.ByState[oona.Dormant], r.Seeds.ByState[oona.Training] = 6, 4
	} else {
		r.Rates = oona.Rates{FramesPerSecond: 0.5, ReadingsPerSecond: 5, StepsPerSecond: 0.4, Steps: 4, StepTime: length, Delay: 1_500_000}
	}
	return r
}

// switched is a receiver with a fault that can be switched off.
type switched struct {
	next   http.RoundTripper
	unless func(*http.Request) bool // there is no fault

	mu     sync.Mutex
	fault  func() (*http.Response, error)
	faults int
}

func (s *switched) set(fault func() (*http.Response, error)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fault = fault
}

// met returns how many requests have met the fault.
func (s *switched) met() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.faults
}

func (s *switched) RoundTrip(request *http.Request) (*http.Response, error) {
	s.mu.Lock()
	fault := s.fault
	if fault != nil && s.unless != nil && s.unless(request) {
		fault = nil
	}
	if fault != nil {
		s.faults++
	}
	s.mu.Unlock()
	if fault != nil {
		return fault()
	}
	return s.next.RoundTrip(request)
}
