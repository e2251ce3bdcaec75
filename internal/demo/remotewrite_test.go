package demo

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/bus"
	"github.com/morphogenetic/oona/bus/kafka"
	"github.com/morphogenetic/oona/bus/kafka/embedded"
	"github.com/morphogenetic/oona/internal/address/addresstest"
	"github.com/morphogenetic/oona/pipeline/layerseries"
	"github.com/morphogenetic/oona/schemas/avro"
)

// TestRemoteWrite sends rollups to a real Prometheus while it and both exporters are
// killed, each of them twice. In the end Prometheus has one sample of each series of each
// rollup, at the end of the rollup's window.
func TestRemoteWrite(t *testing.T) {
	t.Parallel()
	path := requirePrometheus(t)
	brokers(t, func(t *testing.T, addresses []string) { testRemoteWrite(t, path, addresses) })
}

func testRemoteWrite(t *testing.T, path string, addresses []string) {
	ctx, cancel := context.WithTimeout(t.Context(), hopeless)
	defer cancel()
	w := newWriting(t, ctx, path, addresses, "--enable-feature=native-histograms")
	w.emit(ctx, 10)
	w.awaitStored(ctx) // an exporter that is killed while nothing waits
	w.kill(w.exporters[0])
	w.emit(ctx, 10)
	w.exporters[0] = w.exporter(0)
	w.kill(w.prometheus)
	w.emit(ctx, 20)
	w.awaitMetric(ctx, "oona_exporter_remote_write_requests_total", "verdict=away")
	for _, e := range w.exporters {
		e.awaitReady(t, ctx) // also without the receiver
	}
	w.kill(w.exporters[1]) // while rollups wait
	w.startPrometheus(ctx)
	w.exporters[1] = w.exporter(1)
	for range 2 { // in the middle of what waits, and of what comes
		w.emit(ctx, 20)
		w.kill(w.exporters[0])
		w.kill(w.exporters[1])
		w.kill(w.prometheus)
		w.emit(ctx, 5)
		w.startPrometheus(ctx)
		w.exporters[0], w.exporters[1] = w.exporter(0), w.exporter(1)
	}
	w.emit(ctx, 5)
	w.awaitStored(ctx)
	w.check(ctx)
}

// What a real Prometheus refuses is told apart by its words, and costs no other samples: it
// has no native histograms, and a window comes after a later one.
func TestRemoteWriteRefused(t *testing.T) {
	t.Parallel()
	path := requirePrometheus(t)
	ctx, cancel := context.WithTimeout(t.Context(), hopeless)
	defer cancel()
	broker, err := embedded.Start(ctx, embedded.Options{Logger: discard()})
	if err != nil {
		t.Fatal(err)
	}
	defer broker.Close()
	w := newWriting(t, ctx, path, broker.Addrs, "--enable-feature=memory-snapshot-on-shutdown")
	w.awaitShared(ctx)
	w.emit(ctx, 5)
	w.awaitStored(ctx)
	late := w.rollup(oona.Performance, 1, 2)
	late.Timeline, late.Trigger, late.Frames = "rank1", oona.Trigger{Offset: 5, Index: 1}, 77
	late.Hash = late.ContentHash()
	if err := w.publisher.Publish(ctx, w.topics.LayerPerformance, bus.NewMessage(avro.AppendRollup(nil, late), bus.Target{Partition: 1, Directed: true})); err != nil {
		t.Fatal(err)
	}
	w.awaitMetric(ctx, "oona_exporter_remote_write_skipped_samples_total", "reason=out-of-order")
	w.emit(ctx, 5)
	w.awaitStored(ctx)
	skipped := func(reason string) (sum float64) {
		for _, e := range w.exporters {
			sum += e.labelled(t, "oona_exporter_remote_write_skipped_samples_total", "reason", reason)
		}
		return sum
	}
	const others = writingPerformance - 1 // all but the histogram
	if got := skipped("out-of-order"); got != others {
		t.Errorf("%v samples were refused as out of order, want %d", got, others)
	}
	if got, want := skipped("histograms"), float64(10*2*writingLayers+1); got != want {
		t.Errorf("%v histograms are counted, want %v", got, want)
	}
	at, over := w.span()
	if got := w.server.value(t, ctx, at, `count_over_time(kasmina_layer_window_frames{layer="layer1"}`+over+`)`); got != 10 {
		t.Errorf("%v windows of the layer are stored, want 10", got)
	}
}

// writing is a log of rollups, two exporters that share it, and the Prometheus that they
// send it to.
type writing struct {
	t          *testing.T
	path       string // of the server
	feature    string // a flag of the server
	dir        string // of its data
	address    string
	prometheus *process
	server     *server
	binary     string
	brokers    []string
	topics     oona.Topics
	exporters  [2]*process
	publisher  bus.Publisher
	began      oona.Micros // end of the first window
	windows    int         // of each layer
}

// Each partition has one layer, with one metric of three samples.
const writingLayers = 3

func newWriting(t *testing.T, ctx context.Context, path string, addresses []string, feature string) *writing {
	t.Helper()
	topics, err := oona.NewTopics(fmt.Sprintf("remote-write-%d", time.Now().UnixNano()))
	if err != nil {
		t.Fatal(err)
	}
	b := kafka.New(kafka.Config{Brokers: addresses, ClientID: "test"}, nil)
	if _, err := b.Apply(ctx, topics.Specs(writingLayers)); err != nil {
		t.Fatal(err)
	}
	w := &writing{
		t: t, path: path, feature: feature, dir: t.TempDir(), address: fmt.Sprintf("127.0.0.1:%d", addresstest.Port(t)), brokers: addresses, topics: topics,
		binary: build(t, "exporter")["exporter"],
		// Prometheus takes no samples that are older than an hour before the newest one.
		began: oona.MicrosOf(time.Now().Add(-10 * time.Minute).Truncate(time.Second)),
	}
	if w.publisher, err = b.Publisher(bus.RollupOptions()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = w.publisher.Close() })
	config := "scrape_configs: []\nglobal: {scrape_interval: 1h}\n"
	if err := os.WriteFile(filepath.Join(w.dir, "prometheus.yml"), []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	w.startPrometheus(ctx)
	for i := range w.exporters {
		w.exporters[i] = w.exporter(i)
	}
	return w
}

// startPrometheus starts a server on the same data as the one before.
func (w *writing) startPrometheus(ctx context.Context) {
	w.t.Helper()
	w.prometheus = launchAny(w.t, w.path, "--config.file", filepath.Join(w.dir, "prometheus.yml"), "--storage.tsdb.path", filepath.Join(w.dir, "data"),
		"--web.listen-address", w.address, "--web.enable-remote-write-receiver", w.feature, "--log.format", "json")
	w.server = &server{"http://" + w.address}
	for {
		response, err := http.Get(w.server.url + "/-/ready")
		if err == nil {
			response.Body.Close()
			if response.StatusCode == http.StatusOK {
				return
			}
		}
		if !bus.Pause(ctx, pollInterval) {
			w.t.Fatalf("prometheus does not become ready: %v", err)
		}
	}
}

// exporter starts the exporter with a number, which takes the partitions of the one before.
func (w *writing) exporter(number int) *process {
	w.t.Helper()
	return launch(w.t, w.binary, "--brokers", strings.Join(w.brokers, ","), "--log-format", "json", "--admin-address", "127.0.0.1:0",
		"--prefix", w.prefix(), "--remote-write-group", w.prefix(),
		"--remote-write-url", w.server.url+"/api/v1/write", "--remote-write-group-instance", fmt.Sprint("exporter-", number))
}

func (w *writing) prefix() string {
	return strings.TrimSuffix(w.topics.LayerHealth, ".telemetry.layer.health")
}

func (w *writing) kill(p *process) {
	w.t.Helper()
	if err := p.cmd.Process.Kill(); err != nil {
		w.t.Fatal(err)
	}
	p.drain()
	_ = p.cmd.Wait() // it was killed
}

// emit appends windows of one second of each layer, and some rollups twice, as an
// aggregator that was restarted.
func (w *writing) emit(ctx context.Context, windows int) {
	w.t.Helper()
	for range windows {
		for _, g := range []oona.Group{oona.Health, oona.Performance} {
			var messages []*message.Message
			for p := range int32(writingLayers) {
				for back := range min(w.windows%3, w.windows) + 1 {
					payload := avro.AppendRollup(nil, w.rollup(g, p, w.windows-back))
					messages = append(messages, bus.NewMessage(payload, bus.Target{Partition: p, Directed: true}))
				}
				slices.Reverse(messages[len(messages)-w.windows%3-1:])
			}
			if err := w.publisher.Publish(ctx, w.topics.Rollup(g), messages...); err != nil {
				w.t.Fatal(err)
			}
		}
		w.windows++
		bus.Pause(ctx, 20*time.Millisecond)
	}
}

// rollup returns the rollup of the layer of a partition in the nth window.
func (w *writing) rollup(g oona.Group, partition int32, n int) *oona.Rollup {
	r := &oona.Rollup{
		Group: g, Run: "run", Layer: oona.LayerID(fmt.Sprint("layer", partition)), Reducer: 2,
		Start: w.began + oona.Micros(n-1)*1_000_000, End: w.began + oona.Micros(n)*1_000_000,
		Trigger: oona.Trigger{Offset: int64(n + 1)}, Frames: int64(n), Readings: 3,
		Metrics: []oona.MetricSummary{{
			Name: "gradient_norm", Count: 3, Sum: float64(n), Min: 1, Max: 2, Mean: float64(n),
			Histogram: oona.Histogram{Positive: oona.Buckets{Indexes: []int32{1, 32}, Counts: []uint64{1, 2}}},
			Worst:     []oona.SeedValue{{Seed: 1, Value: 2}},
		}},
	}
	r.Hash = r.ContentHash()
	return r
}

// Series of a layer in writing.rollup. Without steps per second, which are not known.
const (
	writingHealth      = 3 + oona.StateCount + 9
	writingPerformance = 7 + 9
	writingSeries      = writingHealth + writingPerformance
)

// writingNames are the names of these series, after their prefix. Functions over time drop
// names, so that a query can count the samples of one name only.
var writingNames = strings.Fields(`
	seeds seeds_seen seeds_active
	window_frames_per_second window_readings_per_second window_delay_seconds window_frames window_readings window_duplicate_frames
	health_window_end_timestamp_seconds health_window_not_measured health_window_infinite health_window_mean health_window_min health_window_max
	health_window_stddev health_window_worst_seed health_window_worst_value health_window_samples
	performance_window_end_timestamp_seconds performance_window_not_measured performance_window_infinite performance_window_mean
	performance_window_min performance_window_max performance_window_stddev performance_window_worst_seed performance_window_worst_value
	performance_window_samples`)

// awaitMetric waits until a counter of an exporter is above 0 for a label.
func (w *writing) awaitMetric(ctx context.Context, name, label string) {
	w.t.Helper()
	for {
		for _, e := range w.exporters {
			if key, value, _ := strings.Cut(label, "="); e.labelled(w.t, name, key, value) > 0 {
				return
			}
		}
		if !bus.Pause(ctx, pollInterval) {
			w.t.Fatalf("%s of %s stays 0", name, label)
		}
	}
}

// awaitShared waits until both exporters have partitions of each topic, and all partitions
// have an owner. While they still change hands, samples are sent twice.
func (w *writing) awaitShared(ctx context.Context) {
	w.t.Helper()
	for {
		owned, shared := 0, true
		for _, e := range w.exporters {
			topics := make(map[string]int)
			for _, m := range e.series(w.t, "oona_exporter_remote_write_lag_seconds") {
				topics[label(m, "topic")]++
				owned++
			}
			shared = shared && len(topics) == 2
		}
		if shared && owned == 2*writingLayers {
			return
		}
		if !bus.Pause(ctx, pollInterval) {
			w.t.Fatalf("%d partitions are owned, want %d, by both exporters", owned, 2*writingLayers)
		}
	}
}

// labelled returns the sum of the series of a counter that have a label.
func (p *process) labelled(t *testing.T, name, key, value string) (sum float64) {
	t.Helper()
	for _, m := range p.series(t, name) {
		if label(m, key) == value {
			sum += m.GetCounter().GetValue()
		}
	}
	return sum
}

// span is the range of a query over all windows, evaluated at the end of the last one.
func (w *writing) span() (at time.Time, over string) {
	at = (w.began + oona.Micros(w.windows)*1_000_000).Time()
	return at, fmt.Sprintf("[%ds]", w.windows+10)
}

// awaitStored waits until Prometheus has the last window of each layer and group.
func (w *writing) awaitStored(ctx context.Context) {
	w.t.Helper()
	at, _ := w.span()
	last := fmt.Sprintf(`count({__name__=~"kasmina_layer_.*_window_end_timestamp_seconds",source="oona"} == %d) or vector(0)`, int64(w.began)/1_000_000+int64(w.windows)-1)
	for {
		results, err := w.server.query(ctx, at, last)
		if err == nil && len(results) == 1 && results[0].Value.value == 2*writingLayers {
			return
		}
		if !bus.Pause(ctx, pollInterval) {
			w.t.Fatalf("of the last window of %d, Prometheus has %v, %v", w.windows, results, err)
		}
	}
}

// check compares what Prometheus has with the rollups.
func (w *writing) check(ctx context.Context) {
	w.t.Helper()
	at, over := w.span()
	all := `{__name__=~"` + layerseries.Prefix + `.*",source="oona",prefix="` + w.prefix() + `"}`
	value := func(query string) float64 { return w.server.value(w.t, ctx, at, query) }
	if got := value("count(last_over_time(" + all + over + "))"); got != writingLayers*float64(writingSeries) {
		w.t.Errorf("%v series, want %d layers x %d", got, writingLayers, writingSeries)
	}
	rollups := 2 * writingLayers * w.windows
	want := float64(writingLayers * w.windows * writingSeries)
	got := 0.0
	for _, name := range writingNames {
		got += value(fmt.Sprintf(`sum(count_over_time(%s%s{source="oona"}%s))`, layerseries.Prefix, name, over))
	}
	w.t.Logf("%d rollups of %d and %d series: %v samples in Prometheus, want %v", rollups, writingHealth, writingPerformance, got, want)
	if got != want {
		w.t.Errorf("%v samples of %d rollups, want %v", got, rollups, want)
	}
	// The values are those of the windows, at their ends.
	frames := w.server.one(w.t, ctx, at, `kasmina_layer_window_frames{layer="layer1"}`+over).Values
	for n, sample := range frames {
		if sample.value != float64(n) || !sample.at.Equal((w.began + oona.Micros(n)*1_000_000).Time()) {
			w.t.Errorf("window %d has %v frames at %s, want %d at its end", n, sample.value, sample.at, n)
			break
		}
	}
	median := value(`histogram_quantile(0.5, kasmina_layer_health_window_samples{layer="layer0"})`)
	if median < 1.9 || median > 2 {
		w.t.Errorf("the median of a window is %v, want almost 2", median)
	}
}
