package export_test

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"maps"
	"math"
	"runtime"
	"slices"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/bus"
	"github.com/morphogenetic/oona/bus/memory"
	"github.com/morphogenetic/oona/internal/catalogue"
	"github.com/morphogenetic/oona/pipeline/export"
	"github.com/morphogenetic/oona/schemas/avro"
)

// tape is a log of both rollup topics, to which a test appends, and its reader.
type tape struct {
	bus       *memory.Bus
	publisher bus.Publisher
	reader    *memory.Reader
}

func newTape(t testing.TB, partitions int32) *tape {
	t.Helper()
	b := memory.New()
	_, err := b.Apply(t.Context(), []oona.TopicSpec{{Name: topics.LayerHealth, Partitions: partitions}, {Name: topics.LayerPerformance, Partitions: partitions}})
	if err != nil {
		t.Fatal(err)
	}
	return (&tape{bus: b}).again(t)
}

// again returns the same log with another reader.
func (l *tape) again(t testing.TB) *tape {
	publisher, err := l.bus.Publisher(bus.PublisherOptions{})
	if err != nil {
		t.Fatal(err)
	}
	reader, err := l.bus.Reader(bus.ReaderOptions{})
	if err != nil {
		t.Fatal(err)
	}
	l = &tape{l.bus, publisher, reader.(*memory.Reader)}
	t.Cleanup(func() {
		if err := errors.Join(l.publisher.Close(), l.reader.Close()); err != nil {
			t.Error(err)
		}
	})
	return l
}

// append appends a record to a partition.
func (l *tape) append(t testing.TB, topic string, partition int32, payload []byte) {
	t.Helper()
	if err := l.publisher.Publish(context.Background(), topic, bus.NewMessage(payload, bus.Target{Partition: partition, Directed: true})); err != nil {
		t.Fatal(err)
	}
}

// read waits until the stage has read the log to its end.
func (l *tape) read(t testing.TB) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Minute)
	defer cancel()
	if err := l.reader.CaughtUp(ctx); err != nil {
		t.Fatalf("a record is refused, and would come again for ever: %v", err)
	}
}

// notOurs is a reader that its user must not close.
type notOurs struct{ bus.Reader }

func (notOurs) Close() error { panic("the stage closed a log that is not its own") }

var topics = export.DefaultConfig().Topics

// fixture is a stage that runs over a tape.
type fixture struct {
	t        testing.TB
	stage    *export.Stage
	tape     *tape
	registry *prometheus.Registry
	trigger  map[oona.Group]oona.Trigger
	sent     [][]byte // of all rollups, in order
	sentTo   []string
}

func start(t testing.TB, configure func(*export.Config)) *fixture {
	t.Helper()
	return startOn(t, newTape(t, 1), configure)
}

func startOn(t testing.TB, log *tape, configure func(*export.Config)) *fixture {
	t.Helper()
	registry := prometheus.NewPedanticRegistry() // checks every series against its description
	if _, measured := t.(*testing.B); measured {
		registry = prometheus.NewRegistry()
	}
	f := startRegistered(t, log, registry, configure)
	f.registry = registry
	return f
}

// startRegistered is startOn, with a registerer that the fixture does not gather.
func startRegistered(t testing.TB, log *tape, registerer prometheus.Registerer, configure func(*export.Config)) *fixture {
	t.Helper()
	f := startOnReader(t, log.reader, registerer, configure)
	f.tape = log
	for log.reader.Ranges(topics.LayerHealth) == nil || log.reader.Ranges(topics.LayerPerformance) == nil {
		runtime.Gosched() // what is appended now would be history
	}
	return f
}

func startOnReader(t testing.TB, log bus.Reader, registerer prometheus.Registerer, configure func(*export.Config)) *fixture {
	t.Helper()
	cfg := export.DefaultConfig()
	if configure != nil {
		configure(&cfg)
	}
	known, err := catalogue.Default()
	if err != nil {
		t.Fatal(err)
	}
	f := &fixture{t: t, trigger: map[oona.Group]oona.Trigger{}}
	f.stage, err = export.New(cfg, notOurs{log}, known, registerer, slog.New(slog.NewTextHandler(io.Discard, nil)))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- f.stage.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	return f
}

// send appends a rollup with the next trigger of its group to partition 0.
func (f *fixture) send(r *oona.Rollup) {
	f.t.Helper()
	r.Start -= oona.Micros(f.trigger[r.Group].Offset) // no window closes twice
	f.sendWindow(r)
}

// sendWindow is send, for windows that follow one another.
func (f *fixture) sendWindow(r *oona.Rollup) {
	f.t.Helper()
	last := f.trigger[r.Group]
	r.Trigger = oona.Trigger{Offset: last.Offset + 1}
	f.trigger[r.Group] = r.Trigger
	r.Hash = r.ContentHash()
	payload := avro.AppendRollup(nil, r)
	f.sent = append(f.sent, payload)
	f.sentTo = append(f.sentTo, topics.Rollup(r.Group))
	f.append(topics.Rollup(r.Group), 0, payload)
}

// append appends a record to a partition and waits until the stage has read it.
func (f *fixture) append(topic string, partition int32, payload []byte) {
	f.t.Helper()
	f.tape.append(f.t, topic, partition, payload)
	f.tape.read(f.t)
}

// gather returns the exposed families by name.
func (f *fixture) gather() map[string]*dto.MetricFamily {
	f.t.Helper()
	families, err := f.registry.Gather()
	if err != nil {
		f.t.Fatal(err)
	}
	out := make(map[string]*dto.MetricFamily)
	for _, family := range families {
		out[family.GetName()] = family
	}
	return out
}

// find returns the one metric of a family with those labels, e.g. "layer=a",
// or nil.
func (f *fixture) find(name string, labels ...string) *dto.Metric {
	f.t.Helper()
	var found *dto.Metric
	for _, m := range f.gather()[name].GetMetric() {
		has := make(map[string]bool)
		for _, l := range m.Label {
			has[l.GetName()+"="+l.GetValue()] = true
		}
		if slices.ContainsFunc(labels, func(l string) bool { return !has[l] }) {
			continue
		}
		if found != nil {
			f.t.Fatalf("%s has several series with %v", name, labels)
		}
		found = m
	}
	return found
}

// value returns the number that a counter, gauge, or a histogram's count shows.
func (f *fixture) value(name string, labels ...string) float64 {
	f.t.Helper()
	m := f.find(name, labels...)
	switch {
	case m == nil:
		f.t.Fatalf("%s has no series with %v", name, labels)
		return 0
	case m.Counter != nil:
		return m.Counter.GetValue()
	case m.Gauge != nil:
		return m.Gauge.GetValue()
	}
	return float64(m.Histogram.GetSampleCount())
}

func (f *fixture) expect(want float64, name string, labels ...string) {
	f.t.Helper()
	if got := f.value(name, labels...); got != want {
		f.t.Errorf("%s%v is %v, want %v", name, labels, got, want)
	}
}

func (f *fixture) absent(name string, labels ...string) {
	f.t.Helper()
	if m := f.find(name, labels...); m != nil {
		f.t.Errorf("%s%v is shown: %v", name, labels, m)
	}
}

// summarize computes a metric's summary from its samples, the slow way.
func summarize(name string, samples ...float64) oona.MetricSummary {
	m := oona.MetricSummary{Name: name}
	positive, negative := map[int32]uint64{}, map[int32]uint64{}
	var kept []float64
	for _, x := range samples {
		switch {
		case math.IsNaN(x):
			m.NotMeasured++
			continue
		case math.IsInf(x, 0):
			m.Infinite++
			continue
		case math.Abs(x) <= oona.HistogramZeroThreshold:
			m.Histogram.Zero++
		case x > 0:
			positive[bucketOf(x)]++
		default:
			negative[bucketOf(-x)]++
		}
		kept = append(kept, x)
		m.Sum += x
	}
	if len(kept) > 0 {
		m.Count = int64(len(kept))
		m.Min, m.Max = slices.Min(kept), slices.Max(kept)
		m.Mean = m.Sum / float64(m.Count)
		for _, x := range kept {
			m.M2 += float64((x - m.Mean) * (x - m.Mean)) // unfused: golden files hold it
		}
	}
	m.Histogram.Positive, m.Histogram.Negative = buckets(positive), buckets(negative)
	return m
}

func bucketOf(x float64) int32 {
	return int32(math.Ceil(math.Log2(x) * (1 << oona.HistogramSchema)))
}

func buckets(counts map[int32]uint64) oona.Buckets {
	var b oona.Buckets
	for _, index := range slices.Sorted(maps.Keys(counts)) {
		b.Indexes = append(b.Indexes, index)
		b.Counts = append(b.Counts, counts[index])
	}
	return b
}

// rollup returns one of a layer's window that ended just now.
func rollup(g oona.Group, run oona.RunID, layer oona.LayerID, metrics ...oona.MetricSummary) *oona.Rollup {
	return ended(0, g, run, layer, metrics...)
}

// ended returns a rollup whose window ended that long ago.
func ended(ago time.Duration, g oona.Group, run oona.RunID, layer oona.LayerID, metrics ...oona.MetricSummary) *oona.Rollup {
	end := oona.MicrosOf(time.Now().Add(-ago))
	r := &oona.Rollup{
		Group: g, Run: run, Layer: layer,
		Start: end - 10_000_000, End: end,
		Frames: 5, Readings: 50, Duplicates: 1,
		Metrics: metrics,
	}
	if g == oona.Health {
		r.Seeds = oona.SeedCensus{Seen: 10, Active: 4}
		r.Seeds.ByState[oona.Dormant], r.Seeds.ByState[oona.Training] = 6, 4
	} else {
		r.Rates = oona.Rates{FramesPerSecond: 0.5, ReadingsPerSecond: 5, StepsPerSecond: 0.4, Delay: 1_500_000}
	}
	return r
}
