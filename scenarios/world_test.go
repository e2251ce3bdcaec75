package scenarios

import (
	"context"
	"fmt"
	"maps"
	"sync"
	"testing"
	"time"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/bus"
	kafkabus "github.com/morphogenetic/oona/bus/kafka"
	"github.com/morphogenetic/oona/windows"
)

// limit is the time limit of a scenario, which none needs, also on a busy machine.
const limit = 15 * time.Minute

const partitions = 3

// world is the installation of one scenario: topics, a group, workers and clients.
type world struct {
	*testing.T
	ctx     context.Context
	prefix  string // prefix of the topics, and name of the group
	topics  oona.Topics
	windows windows.Config
	acks    *acks
	brokers string // addresses of the brokers with which workers are started
	foreign bool   // whether records are also written without ingest, so that acks does not have all

	ingest  *process
	workers []*process // running aggregators
	all     []*process // all aggregators so far

	marks     map[string]map[int32]int64 // where this life of the log begins in the other topics; see newLife
	restarted map[int32]beginning        // beginnings of partitions whose history is lost

	faults []string // differences; see check
	unsaid int      // number of further differences

	// figures are printed in one line at the end.
	figures []string
}

func newWorld(t *testing.T) *world {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	t.Cleanup(cancel)
	w := &world{T: t, ctx: ctx, acks: newAcks(), windows: shortWindows(), brokers: kafka.String(), prefix: fmt.Sprintf("scenario-%d", time.Now().UnixNano())}
	topics, err := oona.NewTopics(w.prefix)
	if err != nil {
		t.Fatal(err)
	}
	w.topics = topics
	if _, err := kafkabus.New(kafkabus.Config{Brokers: kafka.Addrs(), ClientID: "scenarios"}, nil).Apply(ctx, topics.Specs(partitions)); err != nil {
		t.Fatal(err)
	}
	return w
}

// shortWindows returns a configuration of short windows, so that scenarios are fast.
func shortWindows() windows.Config {
	c := windows.DefaultConfig()
	c.Length = time.Second
	c.OutOfOrderness = 100 * time.Millisecond
	c.AllowedLateness = 250 * time.Millisecond
	c.TickInterval = 125 * time.Millisecond
	c.IdleHorizon = 2 * time.Second
	return c
}

func (w *world) figure(format string, args ...any) {
	w.figures = append(w.figures, fmt.Sprintf(format, args...))
}

// await waits for a condition.
func (w *world) await(what string, met func() bool) {
	w.Helper()
	for !met() {
		if !bus.Pause(w.ctx, 20*time.Millisecond) {
			w.Fatalf("waited in vain for %s", what)
		}
	}
}

func (w *world) pause(d time.Duration) {
	w.Helper()
	if !bus.Pause(w.ctx, d) {
		w.Fatal("the scenario takes too long")
	}
}

func (w *world) common() []string {
	return []string{"--brokers", w.brokers, "--prefix", w.prefix, "--admin-address", "127.0.0.1:0", "--log-format", "json"}
}

// startIngest starts ingest and waits until it accepts frames.
func (w *world) startIngest(more ...string) {
	w.Helper()
	w.ingest = launch(w.T, "ingest", append(append(w.common(), "--listen", "127.0.0.1:0"), more...)...)
	w.ingest.awaitReady(w.T, w.ctx)
}

func (w *world) url() string {
	address := w.ingest.address("ingest accepts frames", "ingest takes frames" /* of the older version */)
	if address == "" {
		w.Error("ingest has logged no address") // not Fatal: trainers call this, too
	}
	return "http://" + address
}

// launchWorker starts another aggregator.
func (w *world) launchWorker(more ...string) *process {
	w.Helper()
	return w.launchAggregator(binaries["aggregate"], more...)
}

// launchAggregator is launchWorker with a binary of any version.
func (w *world) launchAggregator(path string, more ...string) *process {
	w.Helper()
	args := append(w.common(), "--group", w.prefix, "--worker", fmt.Sprintf("w%d", len(w.all)+1))
	p := launchBinary(w.T, path, nil, append(append(args, w.windowFlags()...), more...)...)
	w.workers = append(w.workers, p)
	w.all = append(w.all, p)
	return p
}

// windowFlags returns the flags for the configuration of the windows.
func (w *world) windowFlags() []string {
	c := &w.windows
	return []string{
		"--window-length", c.Length.String(), "--out-of-orderness", c.OutOfOrderness.String(), "--allowed-lateness", c.AllowedLateness.String(),
		"--tick-interval", c.TickInterval.String(), "--idle-horizon", c.IdleHorizon.String(), "--max-skew", c.MaxSkew.String(), "--max-delay", c.MaxDelay.String(),
		"--max-accumulators", fmt.Sprint(c.MaxAccumulators), "--max-timeline-accumulators", fmt.Sprint(c.MaxTimelineAccumulators), "--max-layers", fmt.Sprint(c.MaxLayers),
	}
}

// startWorker starts an aggregator and waits until it has caught up.
func (w *world) startWorker(more ...string) *process {
	w.Helper()
	p := w.launchWorker(more...)
	p.awaitReady(w.T, w.ctx)
	return p
}

// gone records that a worker has ended.
func (w *world) gone(p *process) {
	for i := range w.workers {
		if w.workers[i] == p {
			w.workers = append(w.workers[:i], w.workers[i+1:]...)
			return
		}
	}
}

func (w *world) killWorker(p *process) {
	w.Helper()
	p.kill(w.T)
	w.gone(p)
}

func (w *world) terminateWorker(p *process) {
	w.Helper()
	p.metrics()
	p.terminate(w.T)
	w.gone(p)
}

// train starts trainers. finish stops them, and returns when all their frames are
// acknowledged.
func (w *world) train(trainers ...trainer) (finish func()) {
	stop := make(chan struct{})
	var playing sync.WaitGroup
	for _, tr := range trainers {
		playing.Go(func() { tr.play(w.ctx, w.acks, stop) })
	}
	return sync.OnceFunc(func() {
		close(stop)
		playing.Wait()
	})
}

// pair returns the trainers of a run with two producers.
func (w *world) pair(run oona.RunID, rate float64) []trainer {
	tr := trainer{url: w.url(), run: run, layers: 6, seeds: 8, rate: rate / 2}
	other := tr
	tr.producer, other.producer = "one", "two"
	return []trainer{tr, other}
}

// settle waits until each partition has an owner, all windows are closed, and all results are
// published.
func (w *world) settle() {
	w.Helper()
	var before map[int32]int64
	still := time.Now()
	for {
		busy := w.busy()
		_, now := kafka.extents(w.T, w.ctx, w.topics.SeedMetrics)
		if busy != "" || !maps.Equal(before, now) {
			before, still = now, time.Now()
		}
		if time.Since(still) > 2500*time.Millisecond { // the end of the log is asked for once per second
			return
		}
		if !bus.Pause(w.ctx, 250*time.Millisecond) {
			w.Fatalf("the workers did not settle: %s", busy)
		}
	}
}

// busy returns what the workers still have to do. A worker without partitions has nothing to
// do.
func (w *world) busy() string {
	owned := 0
	for _, p := range w.workers {
		m := p.metrics()
		if m == nil {
			return "a worker does not answer"
		}
		owned += len(w.assigned(p))
		open, lag, pending := m["oona_aggregate_open_windows"], m["oona_aggregate_lag_records"], m["oona_aggregate_pending_messages"]
		if open+lag+pending > 0 {
			return fmt.Sprintf("%v windows are open, %v records unread, %v messages not published", open, lag, pending)
		}
		if m["oona_aggregate_assignments_total"] > 0 && !p.ready() {
			return "a worker is not ready"
		}
	}
	if owned != partitions {
		return fmt.Sprintf("%d of %d partitions have an owner", owned, partitions)
	}
	return ""
}

// stop settles, and ends all workers cleanly.
func (w *world) stop() {
	w.Helper()
	w.settle()
	for len(w.workers) > 0 {
		w.terminateWorker(w.workers[0])
	}
	w.ingest.terminate(w.T)
}
