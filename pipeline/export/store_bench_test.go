package export

import (
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"syscall"
	"testing"
	"time"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/internal/catalogue"
	"github.com/morphogenetic/oona/internal/worker"
)

// BenchmarkLocked is how long a scrape of 4,096 layers with eight metrics each keeps
// others waiting at most: while it lists the layers, and while it takes a part of the
// snapshot.
func BenchmarkLocked(b *testing.B) {
	known, err := catalogue.Default()
	if err != nil {
		b.Fatal(err)
	}
	cfg := DefaultConfig()
	cfg.MaxLayers, cfg.MaxTotalLayers = 4096, 4096
	store, now := newStore(cfg, known.Rule, func(string) {}), time.Now()
	for i := range 10 {
		end := now.Add(time.Duration(i-10) * 10 * time.Second)
		for k := range 4096 {
			for _, r := range plainRollups(known, oona.LayerID(fmt.Sprint("layer.", k)), oona.MicrosOf(end), i) {
				store.fold(r, end, true, now)
			}
		}
	}
	layers, _ := store.shown(now)
	if len(layers) != 4096 {
		b.Fatalf("%d layers", len(layers))
	}
	b.Run("list", func(b *testing.B) {
		for b.Loop() {
			store.shown(now)
		}
	})
	b.Run("part", func(b *testing.B) {
		for b.Loop() {
			store.appendSnapshots(nil, layers[:snapshotLayers], true)
		}
	})
}

// BenchmarkLargestExposition is a scrape of 4,096 layers with eight metrics each, whose
// samples are spread over twelve octaves. MiB-peak is the most memory that the process had:
// run it alone, with GOMEMLIMIT=460MiB.
func BenchmarkLargestExposition(b *testing.B) {
	known, err := catalogue.Default()
	if err != nil {
		b.Fatal(err)
	}
	cfg, parts, now := DefaultConfig(), new(Registries), time.Now()
	cfg.MaxLayers, cfg.MaxTotalLayers = 4096, 4096
	stage, err := New(cfg, AtItsEnd{}, known, parts, slog.New(slog.DiscardHandler))
	if err != nil {
		b.Fatal(err)
	}
	stage.begun.Store(true)
	for i := range 10 {
		end := now.Add(time.Duration(i-10) * 10 * time.Second)
		rollups := plainRollups(known, "", oona.MicrosOf(end), i)
		for _, r := range rollups {
			for m := range r.Metrics {
				spread(&r.Metrics[m])
			}
			for k := range 4096 {
				r.Layer = oona.LayerID(fmt.Sprint("layer.", k))
				stage.store.fold(r, end, true, now)
			}
		}
	}
	handler := worker.MetricsHandler(slog.New(slog.DiscardHandler), parts.All...)
	request := httptest.NewRequest(http.MethodGet, "/metrics", nil)
	request.Header.Set("Accept", "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited")
	for b.Loop() {
		handler.ServeHTTP(Unread{io.Discard, http.Header{}}, request)
	}
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		b.Fatal(err)
	}
	b.ReportMetric(float64(usage.Maxrss)/1024, "MiB-peak")
}

// spread gives a metric a sample in each of 384 buckets.
func spread(m *oona.MetricSummary) {
	m.Histogram.Positive = oona.Buckets{}
	for i := range int32(384) {
		m.Histogram.Positive.Indexes = append(m.Histogram.Positive.Indexes, i-192)
		m.Histogram.Positive.Counts = append(m.Histogram.Positive.Counts, uint64(1+i%7))
		m.Count += 1 + int64(i%7)
	}
	for seed := range oona.SeedID(5) {
		m.Worst = append(m.Worst, oona.SeedValue{Seed: seed, Value: float64(seed)})
	}
}

// plainRollups are those of one window of a layer, with a bucket for each metric.
func plainRollups(known *catalogue.Catalogue, layer oona.LayerID, end oona.Micros, i int) (all []*oona.Rollup) {
	for _, g := range groups {
		r := &oona.Rollup{Group: g, Run: "r", Layer: layer, Start: end - 10_000_000, End: end, Reducer: 2, Seeds: oona.SeedCensus{Seen: 10, Active: 4}}
		for _, m := range known.Group(g) {
			s := oona.MetricSummary{Name: m.Name, Count: 10, Mean: float64(i)}
			s.Histogram.Positive = oona.Buckets{Indexes: []int32{-40}, Counts: []uint64{10}}
			r.Metrics = append(r.Metrics, s)
		}
		all = append(all, r)
	}
	return all
}
