package demo

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/bus"
	"github.com/morphogenetic/oona/bus/kafka"
	"github.com/morphogenetic/oona/bus/kafka/embedded"
	"github.com/morphogenetic/oona/schemas/avro"
)

// What TestPrometheus sends, and how the exporters are set.
const (
	sendEvery   = 100 * time.Millisecond
	sendSeeds   = 50
	silentAfter = 10 * time.Second
	rateOver    = "[8s]"
)

// TestPrometheus has a real Prometheus scrape two exporters, and sends it the
// queries of a user. One exporter is killed and restarted while frames arrive.
func TestPrometheus(t *testing.T) {
	t.Parallel()
	path := requirePrometheus(t)
	ctx, cancel := context.WithTimeout(t.Context(), 8*time.Minute) // on a busy machine; else less than one
	defer cancel()
	line := newAssembly(t, ctx)
	kept, killed := line.exporter(t, "127.0.0.1:0"), line.exporter(t, "127.0.0.1:0")
	kept.awaitReady(t, ctx)
	killed.awaitReady(t, ctx)
	p := startPrometheus(t, path, []string{"--enable-feature", "native-histograms"}, kept, killed)
	defaults := startPrometheus(t, path, nil, kept, killed)
	a, b := instance(kept), instance(killed)
	p.await(t, ctx, "both exporters are scraped", 2, `sum(up)`)

	// Send one frame of each layer first, so that the counters exist before they
	// increase.
	steady, leaving := newTrainer("steady"), newTrainer("leaving")
	began := time.Now()
	line.send(t, steady.frame(), leaving.frame())
	p.await(t, ctx, "the first frames are stored", 4, `sum(kasmina_layer_frames_total)`)

	layers := &together{trainers: []*trainer{steady, leaving}}
	stop := layers.run(t, line)
	p.await(t, ctx, "frames of twelve seconds are stored", 1, `kasmina_layer_frames_total{layer="steady",`+a+`} >= bool 120`)
	layers.drop(leaving)

	if err := killed.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	killed.drain()
	_ = killed.cmd.Wait() // it was killed
	p.await(t, ctx, "the killed exporter is down", 0, `up{`+b+`}`)
	line.exporter(t, strings.TrimPrefix(killed.url, "http://")).awaitReady(t, ctx)
	ready := time.Now()
	p.await(t, ctx, "it has counted frames of twelve seconds", 1, `kasmina_layer_frames_total{layer="steady",`+b+`} >= bool 120`)
	p.await(t, ctx, "the silent layer is gone", 0, `count({layer="leaving"}) or vector(0)`)
	stop()
	// The layer is shown for some seconds more only, in which a busy machine may not ask, or in
	// which its last windows may not be there yet. One more frame then shows it again.
	stored := `max_over_time(kasmina_layer_frames_total{layer="steady",` + a + `}[5m])`
	for ctx.Err() == nil && !p.within(ctx, 20*time.Second, float64(len(steady.observed)), stored) {
		t.Log("not all frames are stored; one more is sent")
		line.send(t, steady.frame())
	}
	p.await(t, ctx, "all frames are stored", float64(len(steady.observed)), stored)
	read := func(instance string) string {
		return `sum(oona_exporter_next_offset{topic="kasmina.telemetry.layer.health",` + instance + `})`
	}
	p.await(t, ctx, "the other exporter has read as far", 1, read(b)+" == bool "+read(a))

	now := time.Now()
	last := p.last(t, ctx, began, now, `kasmina_layer_performance_window_end_timestamp_seconds{layer="leaving",`+a+`}`)
	t.Run("quantiles", func(t *testing.T) {
		checkQuantiles(t, ctx, p, now, `kasmina_layer_health{layer="steady",metric="gradient_norm",`+a+`}`, steady.samples)
		checkQuantiles(t, ctx, p, last.at, `kasmina_layer_health{layer="leaving",metric="gradient_norm",`+a+`}`, leaving.samples)
	})
	t.Run("documented queries", func(t *testing.T) { checkDocumentedQueries(t, ctx, p, defaults, now) })
	t.Run("silence", func(t *testing.T) { // a busy machine misses some of the last scrapes
		shown := last.at.Sub(time.UnixMilli(int64(1000 * last.value)))
		t.Logf("last shown %s after the last window's end", shown)
		if shown > silentAfter || shown < silentAfter/2 {
			t.Errorf("the layer was last shown %s after its last window, want up to %s", shown, silentAfter)
		}
	})
	t.Run("rates", func(t *testing.T) { checkRates(t, ctx, p, began, now, a, b, steady, ready) })
}

// requirePrometheus returns the path of the server. Without one it skips the test, or
// fails it if OONA_REQUIRE_PROMETHEUS is set.
func requirePrometheus(t *testing.T) string {
	t.Helper()
	path, err := exec.LookPath("prometheus")
	if err == nil {
		return path
	}
	const missing = "prometheus is not on the PATH (Debian: apt-get install prometheus)"
	if os.Getenv("OONA_REQUIRE_PROMETHEUS") == "1" {
		t.Fatal("OONA_REQUIRE_PROMETHEUS=1, and " + missing)
	}
	t.Skip("SKIPPED, NOT TESTED WITH A REAL PROMETHEUS: " + missing)
	return ""
}

// assembly is the binaries from ingest to the rollup topics, on the embedded
// broker.
type assembly struct {
	ingestURL string
	common    []string // flags
	binaries  map[string]string
}

func newAssembly(t *testing.T, ctx context.Context) *assembly {
	t.Helper()
	broker, err := embedded.Start(ctx, embedded.Options{Logger: discard()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := broker.Close(); err != nil {
			t.Error(err)
		}
	})
	topics, err := oona.NewTopics(oona.DefaultPrefix)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := kafka.New(kafka.Config{Brokers: broker.Addrs, ClientID: "test"}, nil).Apply(ctx, topics.Specs(2)); err != nil {
		t.Fatal(err)
	}
	l := &assembly{
		common:   []string{"--brokers", strings.Join(broker.Addrs, ","), "--log-format", "json"},
		binaries: build(t, "ingest", "aggregate", "exporter"),
	}
	anywhere := append(slices.Clone(l.common), "--admin-address", "127.0.0.1:0")
	ingest := launch(t, l.binaries["ingest"], append(anywhere, "--listen", "127.0.0.1:0")...)
	aggregate := launch(t, l.binaries["aggregate"], append(anywhere, "--window-length", "1s", "--out-of-orderness", "100ms",
		"--allowed-lateness", "250ms", "--tick-interval", "125ms", "--idle-horizon", "2s")...)
	ingest.awaitReady(t, ctx)
	aggregate.awaitReady(t, ctx)
	l.ingestURL = "http://" + ingest.address("ingest accepts frames")
	return l
}

func (l *assembly) exporter(t *testing.T, address string) *process {
	t.Helper()
	return launch(t, l.binaries["exporter"], append(slices.Clone(l.common), "--admin-address", address, "--series-silent-after", silentAfter.String())...)
}

// send sends a request of these frames. It may be called from any goroutine.
func (l *assembly) send(t *testing.T, frames ...*oona.Frame) {
	t.Helper()
	var body []byte
	for _, f := range frames {
		body = avro.AppendFrame(body, f)
	}
	response, err := http.Post(l.ingestURL+"/v1/frames", "application/avro", bytes.NewReader(body))
	if err != nil {
		t.Error(err)
		return
	}
	answer, _ := io.ReadAll(response.Body)
	response.Body.Close()
	if response.StatusCode != http.StatusOK {
		t.Errorf("ingest answers %s: %s", response.Status, answer)
	}
}

// trainer makes the frames of a layer and remembers its samples.
type trainer struct {
	layer    oona.LayerID
	random   *rand.Rand
	epoch    oona.Micros
	samples  []float64
	observed []time.Time
}

func newTrainer(layer oona.LayerID) *trainer {
	return &trainer{layer: layer, random: rand.New(rand.NewPCG(8, uint64(len(layer)))), epoch: oona.MicrosOf(time.Now())}
}

func (r *trainer) frame() *oona.Frame {
	now := time.Now()
	f := &oona.Frame{
		Run: "run", Layer: r.layer, Producer: oona.ProducerID(r.layer), Epoch: r.epoch, Sequence: int64(len(r.observed)),
		ObservedAt: oona.MicrosOf(now), Step: int64(len(r.observed)), Metrics: []oona.Column{{Name: "gradient_norm"}, {Name: "dead_fraction"}},
	}
	for id := range oona.SeedID(sendSeeds) {
		value := float32(math.Exp(1.5 * r.random.NormFloat64()))
		f.Seeds, f.States = append(f.Seeds, id), append(f.States, oona.Training)
		f.Metrics[0].Values = append(f.Metrics[0].Values, value)
		f.Metrics[1].Values = append(f.Metrics[1].Values, 0.1+float32(id)/1000)
		r.samples = append(r.samples, float64(value))
	}
	r.observed = append(r.observed, now)
	return f
}

// rate returns the frames per second, without the first frame.
func (r *trainer) rate() float64 {
	first, last := r.observed[1], r.observed[len(r.observed)-1]
	return float64(len(r.observed)-2) / last.Sub(first).Seconds()
}

// until returns how many frames were sent until a time.
func (r *trainer) until(at time.Time) int {
	later := slices.IndexFunc(r.observed, func(o time.Time) bool { return o.After(at) })
	if later < 0 {
		return len(r.observed)
	}
	return later
}

// together are trainers that send at the same time.
type together struct {
	mu       sync.Mutex
	trainers []*trainer
}

// run sends a frame of each trainer at an interval until stop is called.
func (g *together) run(t *testing.T, to *assembly) (stop func()) {
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		ticker := time.NewTicker(sendEvery)
		defer ticker.Stop()
		for {
			select {
			case <-ticker.C:
				to.send(t, g.frames()...)
			case <-ctx.Done():
				return
			}
		}
	}()
	stop = func() {
		cancel()
		<-ended
	}
	t.Cleanup(stop)
	return stop
}

func (g *together) frames() (frames []*oona.Frame) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, r := range g.trainers {
		frames = append(frames, r.frame())
	}
	return frames
}

func (g *together) drop(one *trainer) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.trainers = slices.DeleteFunc(g.trainers, func(r *trainer) bool { return r == one })
}

// server is a running Prometheus.
type server struct{ url string }

func startPrometheus(t *testing.T, path string, flags []string, targets ...*process) *server {
	t.Helper()
	dir := t.TempDir()
	var addresses []string
	for _, p := range targets {
		addresses = append(addresses, strings.TrimPrefix(p.url, "http://"))
	}
	config := filepath.Join(dir, "prometheus.yml")
	text := fmt.Sprintf("global: {scrape_interval: 1s, scrape_timeout: 1s}\nscrape_configs: [{job_name: oona, static_configs: [{targets: ['%s']}]}]\n", strings.Join(addresses, "', '"))
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	p := launchAny(t, path, append(flags, "--config.file", config, "--storage.tsdb.path", filepath.Join(dir, "data"), "--web.listen-address", "127.0.0.1:0",
		"--log.format", "json")...)
	t.Cleanup(func() { p.terminate(t) })
	return &server{"http://" + p.address("Listening on")}
}

// instance is the label by which Prometheus knows an exporter.
func instance(p *process) string {
	return fmt.Sprintf("instance=%q", strings.TrimPrefix(p.url, "http://"))
}

// point is a stored or computed sample.
type point struct {
	at    time.Time
	value float64
}

// UnmarshalJSON reads [seconds, "value"].
func (p *point) UnmarshalJSON(data []byte) error {
	var seconds float64
	var value string
	if err := json.Unmarshal(data, &[]any{&seconds, &value}); err != nil {
		return err
	}
	p.at = time.UnixMilli(int64(math.Round(seconds * 1000)))
	var err error
	p.value, err = strconv.ParseFloat(value, 64)
	return err
}

// result is a series that a query returns: one point, or the points of a range.
type result struct {
	Metric map[string]string // its labels
	Value  point
	Values []point
}

func (s *server) query(ctx context.Context, at time.Time, query string) ([]result, error) {
	values := url.Values{"query": {query}, "time": {strconv.FormatFloat(float64(at.UnixMilli())/1e3, 'f', 3, 64)}}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, s.url+"/api/v1/query?"+values.Encode(), nil)
	if err != nil {
		return nil, err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	var answer struct {
		Error string
		Data  struct{ Result []result }
	}
	if err := json.NewDecoder(response.Body).Decode(&answer); err != nil {
		return nil, err
	}
	if answer.Error != "" {
		return nil, errors.New(answer.Error)
	}
	return answer.Data.Result, nil
}

// await waits until a query has a single result, which is the wanted one.
func (s *server) await(t *testing.T, ctx context.Context, what string, want float64, query string) {
	t.Helper()
	var last any
	for ctx.Err() == nil {
		results, err := s.query(ctx, time.Now(), query)
		if len(results) == 1 && results[0].Value.value == want {
			return
		}
		if last = results; err != nil {
			last = err
		}
		bus.Pause(ctx, pollInterval)
	}
	t.Fatalf("%s: %s is %v, want %v", what, query, last, want)
}

// within reports whether a query has a result within some time.
func (s *server) within(ctx context.Context, most time.Duration, want float64, query string) bool {
	ctx, cancel := context.WithTimeout(ctx, most)
	defer cancel()
	for ctx.Err() == nil {
		if results, _ := s.query(ctx, time.Now(), query); len(results) == 1 && results[0].Value.value == want {
			return true
		}
		bus.Pause(ctx, pollInterval)
	}
	return false
}

// one returns the single result of a query.
func (s *server) one(t *testing.T, ctx context.Context, at time.Time, query string) result {
	t.Helper()
	results, err := s.query(ctx, at, query)
	if err != nil || len(results) != 1 {
		t.Fatalf("%s has not one result: %v, %v", query, results, err)
	}
	return results[0]
}

func (s *server) value(t *testing.T, ctx context.Context, at time.Time, query string) float64 {
	t.Helper()
	return s.one(t, ctx, at, query).Value.value
}

// over returns the range of a query that goes back to a time.
func over(began, now time.Time) string { return fmt.Sprintf("[%ds]", int(now.Sub(began).Seconds())+1) }

// last returns the last stored sample of a series.
func (s *server) last(t *testing.T, ctx context.Context, began, now time.Time, series string) point {
	t.Helper()
	stored := s.one(t, ctx, now, series+over(began, now)).Values
	return stored[len(stored)-1]
}

// checkQuantiles compares what Prometheus makes of a native histogram with all
// samples that went into it. It interpolates within a bucket, whose bounds are
// 2.2% apart; from a bucket's middle to its bounds it is 1.1%.
func checkQuantiles(t *testing.T, ctx context.Context, p *server, at time.Time, histogram string, samples []float64) {
	t.Helper()
	if n := p.value(t, ctx, at, "histogram_count("+histogram+")"); n != float64(len(samples)) {
		t.Errorf("%s counts %v samples of %d", histogram, n, len(samples))
	}
	sum := 0.0
	for _, x := range samples {
		sum += x
	}
	if got := p.value(t, ctx, at, "histogram_sum("+histogram+")"); math.Abs(got-sum) > 1e-9*sum {
		t.Errorf("%s adds up to %v, want %v", histogram, got, sum)
	}
	sorted := slices.Sorted(slices.Values(samples))
	width := math.Exp2(1.0/(1<<oona.HistogramSchema)) - 1
	for _, q := range []float64{0.01, 0.1, 0.25, 0.5, 0.75, 0.9, 0.99, 0.999} {
		want := sorted[max(1, int(math.Ceil(q*float64(len(sorted)))))-1]
		got := p.value(t, ctx, at, fmt.Sprintf("histogram_quantile(%g, %s)", q, histogram))
		t.Logf("quantile %g of %d samples: %.5g, exactly %.5g, %+.2f%%", q, len(sorted), got, want, 100*(got/want-1))
		if math.Abs(got/want-1) > width {
			t.Errorf("quantile %g is %v, want %v within %.2g", q, got, want, width)
		}
	}
}

// checkRates compares increases and rates with the frames that were sent: of an
// exporter that ran all the time, a, and of one that was killed and was ready again at
// a time, b. It allows for what Prometheus extrapolates, and for nothing else.
func checkRates(t *testing.T, ctx context.Context, p *server, began, now time.Time, a, b string, sent *trainer, ready time.Time) {
	t.Helper()
	of := func(instance string) string { return `kasmina_layer_frames_total{layer="steady",` + instance + `}` }
	span := over(began, now)
	kept, killed := p.one(t, ctx, now, of(a)+span).Values, p.one(t, ctx, now, of(b)+span).Values
	total := float64(len(sent.observed))
	// A counter begins with 0 if a scrape comes between the rollups of the two groups.
	first, other := kept[0].value, killed[0].value
	if last := kept[len(kept)-1].value; first > 1 || last != total {
		t.Errorf("the counter went from %v to %v, want from 0 or 1 to %v", first, last, total)
	}
	if other > 1 {
		t.Errorf("the other counter began with %v, want 0 or 1", other)
	}
	checkIncrease(t, p.value(t, ctx, now, "increase("+of(a)+span+")"), total-first, len(kept))

	// What the killed exporter had counted is not counted again when it is back, and
	// it misses no frame that was sent when it was ready.
	back := restart(t, killed)
	before, after := killed[back-1].value, killed[len(killed)-1].value
	missed := total - after
	t.Logf("%v frames at %.2f a second; where the exporter was killed it counted %v and then %v", total, sent.rate(), before, after)
	if resets := p.value(t, ctx, now, "resets("+of(b)+span+")"); resets != 1 {
		t.Errorf("%v resets, want 1", resets)
	}
	if sentBefore := float64(sent.until(ready)); missed < before || missed > sentBefore {
		t.Errorf("after the restart %v of %v frames are not counted, want %v to %v", missed, total, before, sentBefore)
	}
	checkIncrease(t, p.value(t, ctx, now, "increase("+of(b)+span+")"), before-other+after, len(killed))
	increase := before - 1 + after
	histogram := `kasmina_layer_health{layer="steady",metric="gradient_norm",` + b + `}`
	checkIncrease(t, p.value(t, ctx, now, "histogram_count(increase("+histogram+span+"))"), sendSeeds*increase, len(killed))

	checkCourse(t, ctx, p, killed[back].at, of(a), of(b), sent.rate())
}

// checkIncrease compares an increase with the difference between the last and the
// first of the stored samples, of which samples is the number. Prometheus extrapolates it to both ends of the range, each
// time by at most 1.1 times the mean distance of the samples.
func checkIncrease(t *testing.T, got, want float64, samples int) {
	t.Helper()
	if most := want * (1 + 2.2/float64(samples-1)); got < want*(1-1e-9) || got > most*(1+1e-9) {
		t.Errorf("the increase is %v, want %v to %v", got, want, most)
	}
}

// restart returns the index of the first sample after a counter was reset.
func restart(t *testing.T, stored []point) int {
	t.Helper()
	for i := 1; i < len(stored); i++ {
		if stored[i].value < stored[i-1].value {
			return i
		}
	}
	t.Fatal("the counter was never reset")
	return 0
}

// checkCourse checks that the restarted exporter shows no burst, and that dashboards,
// which take the maximum of both exporters, always show frames. Windows and scrapes are
// one second apart, so rates over eight seconds are rough. On a busy machine the rates
// of the other exporter may be wrong too. The rates of the restarted exporter are then
// only compared with those.
func checkCourse(t *testing.T, ctx context.Context, p *server, back time.Time, kept, killed string, rate float64) {
	t.Helper()
	const around, steps, after = "[11s:1s]", 11, 10 * time.Second
	then := func(query string) float64 { return p.value(t, ctx, back.Add(after), query) }
	rates := func(series string) string { return "rate(" + series + rateOver + ")" }
	both := `(max without (instance) (` + rates(`kasmina_layer_frames_total{layer="steady"}`) + `))` + around
	keptMost, keptLeast := then("max_over_time("+rates(kept)+around+")"), then("min_over_time("+rates(kept)+around+")")
	most, least := then("max_over_time("+rates(killed)+around+")"), then("min_over_time("+both+")")
	t.Logf("around the restart %.2f frames a second at most, and of both exporters %.2f at least; of the one that ran all the time %.2f to %.2f", most, least, keptLeast, keptMost)
	if keptMost > 1.5*rate || keptLeast < 0.5*rate {
		t.Logf("NOT COMPARED with the %.2f frames a second that were sent: the machine is too busy", rate)
		if least < keptLeast {
			t.Errorf("over both exporters the rate fell to %v, and over one to %v", least, keptLeast)
		}
		return
	}
	if most > 1.5*rate {
		t.Errorf("a burst of %v frames a second, at %v sent", most, rate)
	}
	if least < 0.5*rate || then("count_over_time("+both+")") < steps {
		t.Errorf("over both exporters the rate has gaps, or fell to %v, at %v sent", least, rate)
	}
}
