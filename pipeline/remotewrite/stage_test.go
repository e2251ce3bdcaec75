package remotewrite_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/prometheus/prompb"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/bus"
	"github.com/morphogenetic/oona/bus/memory"
	"github.com/morphogenetic/oona/internal/catalogue"
	"github.com/morphogenetic/oona/internal/worker/workertest"
	"github.com/morphogenetic/oona/pipeline/export"
	"github.com/morphogenetic/oona/pipeline/remotewrite"
)

// commits returns the sum of the group's commits in a topic.
func commits(t *testing.T, on *memory.Bus, topic string) (sum int64) {
	t.Helper()
	commits, err := on.Commits(t.Context(), group, topic)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range commits {
		sum += max(c.Offset, 0)
	}
	return sum
}

// Each rollup is sent once, with the end of its window as the time of its samples, and
// committed.
func TestEachRollupIsSent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, to := newBus(t), newStorage()
		in := newEmitter(t, b)
		e := start(t, b, to, nil)
		for n := range 5 {
			in.emit(0, "r", "a", n, "loss")
			in.emit(1, "r", "b", n, "loss", "norm")
		}
		pass(5 * time.Second)
		const want = 5 * (2*healthSamples + 2*performanceSamples + 6*metricSamples)
		if got := to.samples(); got != want {
			t.Errorf("%d samples are stored, want %d", got, want)
		}
		mean := to.find(t, "__name__=kasmina_layer_health_window_mean", "layer=a", "metric=loss", "prefix=kasmina", "run=r", "source=oona")
		if len(mean) != 5 || mean[4].at != int64(epoch/1000)+50_000 || mean[4].value != 0.5 {
			t.Errorf("means %v", mean)
		}
		e.expect(float64(want), "samples_total")
		e.expect(0, "skipped_samples_total")
		e.expect(0, "lag_records")
		for _, topic := range []string{topics.LayerHealth, topics.LayerPerformance} {
			if got := commits(t, b, topic); got != 10 {
				t.Errorf("%s is committed up to %d, want 10", topic, got)
			}
		}
		e.end()
	})
}

// The gauges are those that a scrape of the same rollups shows, with the same labels and
// values, besides source.
func TestSameAsScraped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, to := newBus(t), newStorage()
		in := newEmitter(t, b)
		// The exporter shows no windows that ended long ago.
		pass(time.Until((epoch + 10_000_000).Time()))
		in.emit(0, "r", "a", 0, "loss", "norm")
		e := start(t, b, to, nil)
		shown := scrape(t, b)
		pass(5 * time.Second)
		sent := make(map[string]float64)
		for name, samples := range to.all() {
			short := strings.Replace(name, "source=oona,", "", 1)
			if short == name {
				t.Errorf("%s has no source", name)
			}
			sent[short] = samples[0].value
		}
		for name, value := range shown {
			if got, found := sent[name]; !found || got != value {
				t.Errorf("%s is shown as %v, and sent as %v (%t)", name, value, got, found)
			}
			delete(sent, name)
		}
		more := regexp.MustCompile(`^__name__=kasmina_layer_(window_(frames|readings|duplicate_frames)|(health|performance)_window_(samples|not_measured|infinite)),`)
		for name := range sent {
			if !more.MatchString(name) {
				t.Errorf("%s is sent, and not shown", name)
			}
		}
		if len(shown) < 50 {
			t.Errorf("%d gauges are shown: too few to compare", len(shown))
		}
		e.end()
	})
}

// scrape returns the gauges of layers' windows that an exporter shows, with the labels of
// a series that was sent.
func scrape(t *testing.T, b *memory.Bus) map[string]float64 {
	t.Helper()
	reader, err := b.Reader(bus.ReaderOptions{})
	if err != nil {
		t.Fatal(err)
	}
	known, err := catalogue.Default()
	if err != nil {
		t.Fatal(err)
	}
	cfg := export.DefaultConfig()
	cfg.WorstSeeds = 2
	registry := prometheus.NewRegistry()
	stage, err := export.New(cfg, reader, known, registry, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- stage.Run(ctx) }()
	synctest.Wait()
	families, err := registry.Gather()
	cancel()
	if err := errors.Join(err, <-ended, reader.Close()); err != nil {
		t.Fatal(err)
	}
	window := regexp.MustCompile(`^kasmina_layer_(seeds.*|window_.*|(health|performance)_window_(end_.*|mean|min|max|stddev|worst_.*))$`)
	shown := make(map[string]float64)
	for _, family := range families {
		if !window.MatchString(family.GetName()) {
			continue
		}
		for _, m := range family.GetMetric() {
			labels := map[string]string{"__name__": family.GetName(), "prefix": "kasmina"}
			for _, l := range m.GetLabel() {
				labels[l.GetName()] = l.GetValue()
			}
			var text strings.Builder
			for _, name := range slices.Sorted(maps.Keys(labels)) {
				fmt.Fprintf(&text, "%s=%s,", name, labels[name])
			}
			shown[text.String()] = m.GetGauge().GetValue()
		}
	}
	return shown
}

// The histogram of a window is a gauge histogram with the window's buckets.
func TestWindowHistogram(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, to := newBus(t), newStorage()
		var got []prompb.Histogram
		to.before = func(_ int, request *prompb.WriteRequest) *http.Response {
			for _, s := range request.Timeseries {
				got = append(got, s.Histograms...)
			}
			return nil
		}
		in := newEmitter(t, b)
		r := rollup(oona.Health, "r", "a", 0, "loss")
		r.Metrics[0].Count, r.Metrics[0].Histogram = 13, oona.Histogram{
			Zero:     2,
			Positive: oona.Buckets{Indexes: []int32{-3, -2, 5}, Counts: []uint64{4, 1, 3}},
			Negative: oona.Buckets{Indexes: []int32{7}, Counts: []uint64{3}},
		}
		in.append(0, r)
		e := start(t, b, to, nil)
		pass(5 * time.Second)
		want := prompb.Histogram{
			Count: &prompb.Histogram_CountInt{CountInt: 13}, Sum: 1.5, Schema: 5, ZeroThreshold: 0x1p-126, ZeroCount: &prompb.Histogram_ZeroCountInt{ZeroCountInt: 2},
			PositiveSpans: []prompb.BucketSpan{{Offset: -3, Length: 2}, {Offset: 6, Length: 1}}, PositiveDeltas: []int64{4, -3, 2},
			NegativeSpans: []prompb.BucketSpan{{Offset: 7, Length: 1}}, NegativeDeltas: []int64{3},
			ResetHint: prompb.Histogram_GAUGE, Timestamp: int64(epoch/1000) + 10_000,
		}
		if len(got) != 1 || got[0].String() != want.String() {
			t.Errorf("histograms\n%v\nwant\n%v", got, want.String())
		}
		e.end()
	})
}

// An exporter dies after the receiver has stored samples and before it has committed. The
// next one sends them again, and nothing is stored twice or lost.
func TestExporterDies(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, to := newBus(t), newStorage()
		in := newEmitter(t, b)
		b.RefuseCommits(func(string, int32) error { return errors.New("no commits") })
		e := start(t, b, to, nil)
		for n := range 10 {
			in.emit(0, "r", "a", n, "loss")
		}
		pass(5 * time.Second)
		e.end()
		if stored, committed := to.samples(), commits(t, b, topics.LayerHealth); stored != 10*window || committed != 0 {
			t.Fatalf("%d samples are stored, committed up to %d", stored, committed)
		}
		b.RefuseCommits(nil)
		for n := range 5 {
			in.emit(0, "r", "a", 10+n, "loss")
		}
		before := to.count()
		e = start(t, b, to, nil)
		pass(30 * time.Second)
		if got := to.samples(); got != 15*window {
			t.Errorf("%d samples are stored, want %d", got, 15*window)
		}
		if got := commits(t, b, topics.LayerHealth); got != 15 {
			t.Errorf("committed up to %d of 15", got)
		}
		// Of the last window, the receiver has the same samples; of all others, later ones.
		// Which of the two reasons a sample gets depends on which group is sent first.
		e.expect(9*float64(window), "skipped_samples_total")
		if requests := to.count() - before; requests > 2*9*window {
			t.Errorf("%d requests are needed after the restart", requests)
		}
		e.end()
	})
}

// Repeats and conflicts are dropped. What was read and not sent before an assignment is no
// repeat after it.
func TestWhatIsEmittedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, to := newBus(t), newStorage()
		away := &switched{next: to, fault: func() (*http.Response, error) { return nil, errors.New("connection refused") }}
		in := newEmitter(t, b)
		e := start(t, b, away, nil)
		first := in.emit(0, "r", "a", 0, "loss")
		pass(5 * time.Second)
		// Another member joins and leaves, so that the partitions are assigned again.
		other, err := b.Member(bus.MemberOptions{Group: group}, e.Stage)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := other.Subscribe(t.Context(), topics.LayerHealth); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if err := other.Close(); err != nil {
			t.Fatal(err)
		}
		away.set(nil)
		pass(time.Minute)
		if got := to.samples(); got != window {
			t.Errorf("%d samples are stored, want %d", got, window)
		}
		in.trigger--
		in.append(0, first...)
		conflict := rollup(oona.Health, "r", "a", 0, "loss")
		conflict.Frames++
		in.trigger--
		in.append(0, conflict)
		in.raw(0, oona.Health, []byte("no rollup"))
		in.emit(0, "r", "a", 1, "loss")
		pass(time.Minute)
		if got := to.samples(); got != 2*window {
			t.Errorf("%d samples are stored, want %d", got, 2*window)
		}
		for outcome, want := range map[string]float64{"repeat": 1, "conflict": 1, "undecodable": 1} {
			e.expect(want, "records_total", "group=health", "outcome="+outcome)
		}
		e.expect(0, "skipped_samples_total")
		e.expect(0, "lag_records")
		e.end()
	})
}

// What is beyond a limit is not sent, and counted.
func TestLimits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, to := newBus(t), newStorage()
		in := newEmitter(t, b)
		e := start(t, b, to, func(c *remotewrite.Config) { c.MaxRuns, c.MaxLayers, c.MaxMetrics = 2, 1, 2 })
		in.emit(0, "r", "a", 0, "loss")
		in.emit(0, "q", "a", 0, "loss", "norm", "other", "third")
		in.emit(0, "p", "a", 0, "loss") // beyond runs
		in.emit(0, "r", "b", 0, "loss") // beyond layers
		in.emit(0, "other", "a", 0, "loss")
		pass(time.Minute)
		if got, want := to.samples(), 2*window+2*metricSamples; got != want {
			t.Errorf("%d samples are stored, want %d", got, want)
		}
		for label, want := range map[string]float64{"run": 4, "layer": 2, "metric": 4} {
			e.expect(want, "beyond_total", "label="+label)
		}
		if got := commits(t, b, topics.LayerHealth); got != 5 {
			t.Errorf("committed up to %d of 5", got)
		}
		e.end()
	})
}

// While the receiver does not answer, the number of waiting records is bounded.
func TestWaitingIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, to := newBus(t), newStorage()
		away := &switched{next: to, fault: func() (*http.Response, error) { return nil, errors.New("connection refused") }}
		in := newEmitter(t, b)
		e := start(t, b, away, nil)
		large := rollup(oona.Health, "r", "a", 0, "loss")
		const buckets = 10_000 // 100 kB
		m := &large.Metrics[0]
		m.Count, m.Histogram = buckets<<40, oona.Histogram{Positive: oona.Buckets{Counts: slices.Repeat([]uint64{1 << 40}, buckets)}}
		for i := range int32(buckets) {
			m.Histogram.Positive.Indexes = append(m.Histogram.Positive.Indexes, i)
		}
		for range 100 {
			large.Start, large.End = large.Start+10_000_000, large.End+10_000_000
			in.append(0, large)
		}
		pass(time.Minute)
		if records := e.value("records_total", "outcome=new"); records < 2 || records > 60 {
			t.Errorf("%g large records are read while the receiver does not answer", records)
		}
		e.expect(100, "lag_records")
		away.set(nil)
		pass(time.Minute)
		e.expect(0, "lag_records")
		e.expect(0, "skipped_samples_total")
		e.end()
	})
}

// Retention has deleted rollups before they were sent.
func TestDeletedBeforeTheyWereSent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, to := newBus(t), newStorage()
		in := newEmitter(t, b)
		e := start(t, b, to, nil)
		in.append(0, rollup(oona.Health, "r", "a", 0))
		pass(5 * time.Second)
		e.end()
		for n := range 5 {
			in.append(0, rollup(oona.Health, "r", "a", 1+n))
		}
		if err := b.Trim(topics.LayerHealth, 0, 4); err != nil {
			t.Fatal(err)
		}
		e = start(t, b, to, nil)
		pass(5 * time.Second)
		e.expect(3, "lost_records_total")
		if got := to.samples(); got != 3*healthSamples {
			t.Errorf("%d samples are stored, want %d", got, 3*healthSamples)
		}
		e.end()
	})
}

// The log has lost its end, with records that were sent. What remains is sent again, and what
// comes.
func TestLogLosesItsEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, to := newBus(t), newStorage()
		in := newEmitter(t, b)
		e := start(t, b, to, nil)
		for n := range 5 {
			in.append(0, rollup(oona.Health, "r", "a", n))
		}
		pass(5 * time.Second)
		e.end()
		if err := b.LoseTail(topics.LayerHealth, 0, 2); err != nil {
			t.Fatal(err)
		}
		e = start(t, b, to, nil)
		pass(time.Minute)
		in.append(0, rollup(oona.Health, "r", "a", 5))
		pass(time.Minute)
		if got := to.samples(); got != 6*healthSamples {
			t.Errorf("%d samples are stored, want %d", got, 6*healthSamples)
		}
		if got := commits(t, b, topics.LayerHealth); got != 3 {
			t.Errorf("committed up to %d of 3", got)
		}
		e.end()
	})
}

// A window that comes after a later one of its layer is not taken for one that was sent
// before a restart.
func TestLateAmongWhatWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, to := newBus(t), newStorage()
		in := newEmitter(t, b)
		in.emit(0, "r", "a", 1, "loss")
		in.emit(0, "r", "a", 0, "loss", "new")
		e := start(t, b, to, nil)
		pass(time.Minute)
		if got, want := to.samples(), window+2*metricSamples; got != want {
			t.Errorf("%d samples are stored, want %d", got, want)
		}
		e.expect(float64(window), "skipped_samples_total", "reason=out-of-order")
		e.end()
	})
}

// Run fails if a member ends by itself: here another one has its instance.
func TestAnotherMemberHasTheInstance(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBus(t)
		e := start(t, b, newStorage(), nil)
		e.stop()
		if err := errors.Join(<-e.ended, e.members[0].Close(), e.members[1].Close()); err != nil {
			t.Fatal(err)
		}
		for g := range e.members {
			var err error
			if e.members[g], err = b.Member(bus.MemberOptions{Group: group, Instance: fmt.Sprint(g)}, e.Stage); err != nil {
				t.Fatal(err)
			}
		}
		go func() { e.ended <- e.Run(t.Context(), e.members) }()
		synctest.Wait()
		other, err := b.Member(bus.MemberOptions{Group: group, Instance: "0"}, e.Stage)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := other.Subscribe(t.Context(), topics.LayerHealth); err != nil {
			t.Fatal(err)
		}
		if err := <-e.ended; !errors.Is(err, bus.ErrInstance) {
			t.Errorf("Run: %v", err)
		}
		if err := errors.Join(other.Close(), e.members[0].Close(), e.members[1].Close()); err != nil {
			t.Error(err)
		}
	})
}

func TestWrongConfig(t *testing.T) {
	good := remotewrite.Config{Topics: topics, URL: "http://receiver/api/v1/write", MaxRuns: 1, MaxLayers: 1, MaxTotalLayers: 1, MaxMetrics: 1, SilentAfter: 1}
	if err := good.Validate(); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		field  string
		change func(*remotewrite.Config)
	}{
		{"Topics", func(c *remotewrite.Config) { c.Topics = oona.Topics{} }},
		{"URL", func(c *remotewrite.Config) { c.URL = "" }},
		{"URL", func(c *remotewrite.Config) { c.URL = "receiver:9090/api/v1/write" }},
		{"URL", func(c *remotewrite.Config) { c.URL = "http://receiver:9090/" }},
		{"URL", func(c *remotewrite.Config) { c.URL = "http://me:secret@receiver/api/v1/write" }},
		{"URL", func(c *remotewrite.Config) { c.URL = "http://me:sec%ret@receiver/api/v1/write" }},
		{"MaxRuns", func(c *remotewrite.Config) { c.MaxRuns = 0 }},
		{"MaxMetrics", func(c *remotewrite.Config) { c.MaxMetrics = 0 }},
		{"WorstSeeds", func(c *remotewrite.Config) { c.WorstSeeds = -1 }},
		{"SilentAfter", func(c *remotewrite.Config) { c.SilentAfter = 0 }},
	} {
		c := good
		test.change(&c)
		err := c.Validate()
		if wrong, ok := errors.AsType[*oona.FieldError](err); !ok || wrong.Field != test.field || strings.Contains(err.Error(), "secret") || strings.Contains(err.Error(), "sec%ret") {
			t.Errorf("%+v: %v, want an error of %s without a password", c, err, test.field)
		}
	}
}

// docs/remote-write.md names the metrics that there are.
func TestMetricsAreDocumented(t *testing.T) {
	page, err := os.ReadFile("../../docs/remote-write.md")
	if err != nil {
		t.Fatal(err)
	}
	documented := make(map[string]bool)
	const prefix = "oona_exporter_remote_write"
	for _, row := range regexp.MustCompile("(?m)^\\| `"+prefix+"[^|]*").FindAllString(string(page), -1) {
		for _, name := range regexp.MustCompile("`(\\w+)").FindAllStringSubmatch(row, -1) {
			documented[prefix+strings.TrimPrefix(name[1], prefix)] = true
		}
	}
	d := workertest.NewSeries()
	cfg := remotewrite.Config{Topics: topics, URL: "http://receiver/api/v1/write", MaxRuns: 1, MaxLayers: 1, MaxTotalLayers: 1, MaxMetrics: 1, SilentAfter: 1}
	if _, err := remotewrite.New(cfg, d, slog.New(slog.NewTextHandler(io.Discard, nil))); err != nil {
		t.Fatal(err)
	}
	if names := slices.Sorted(maps.Keys(documented)); !slices.Equal(names, d.Names()) {
		t.Errorf("docs/remote-write.md has\n%s\nand the stage has\n%s", strings.Join(names, "\n"), strings.Join(d.Names(), "\n"))
	}
}
