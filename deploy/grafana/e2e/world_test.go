package e2e

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/bus"
	"github.com/morphogenetic/oona/bus/kafka"
	"github.com/morphogenetic/oona/bus/kafka/embedded"
	"github.com/morphogenetic/oona/deploy/grafana/draw"
	"github.com/morphogenetic/oona/internal/catalogue"
	"github.com/morphogenetic/oona/internal/settings"
	"github.com/morphogenetic/oona/schemas/avro"
	"github.com/morphogenetic/oona/windows"
)

// world is Oona after a run with faults, and two Prometheus that have scraped it.
type world struct {
	native, classic draw.Prometheus
	over            draw.Span
	rollups         []oona.Rollup
	sent            *training
	before          int      // frames that were accepted before the span
	exporters       []string // instances
}

// warned is how long the second layer is sick. A new level that lasts for longer than 16
// windows is accepted.
const warned = 14 * time.Second

// healthy and faulty are how long the run is well, and how long it is not. Pictures show
// more of it.
func times() (healthy, faulty time.Duration) {
	if os.Getenv("DASHBOARD_PICTURES") != "" {
		return 150 * time.Second, 60 * time.Second
	}
	return 22 * time.Second, warned
}

func newWorld(t *testing.T, ctx context.Context) *world {
	t.Helper()
	programs := build(t)
	logger := slog.New(slog.NewTextHandler(io.Discard, nil))
	broker, err := embedded.Start(ctx, embedded.Options{Logger: logger})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = broker.Close() })
	b := kafka.New(kafka.Config{Brokers: broker.Addrs, ClientID: "test"}, logger)
	topics, err := oona.NewTopics(oona.DefaultPrefix)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := b.Apply(ctx, append(append(topics.Specs(2), topics.RawSpecs(2)...), topics.SettingsSpec())); err != nil {
		t.Fatal(err)
	}
	if _, err := settings.WriteFirst(ctx, b, topics, configuration(t).Record(), "test", logger); err != nil {
		t.Fatal(err)
	}
	start := func(name string, args ...string) *process {
		return worker(t, filepath.Join(programs, name), append([]string{"--brokers", strings.Join(broker.Addrs, ",")}, args...)...)
	}
	anywhere := "--admin-address=127.0.0.1:0"
	ingest := start("ingest", anywhere, "--listen=127.0.0.1:0", "--raw", "--tensor-store=directory", "--tensor-directory="+t.TempDir())
	aggregate := start("aggregate", anywhere)
	keep := "--series-silent-after=30m" // the run that has ended
	a, c := start("exporter", anywhere, keep), start("exporter", anywhere, keep)
	targets := map[string][]string{"oona-ingest": {ingest.admin}, "oona-aggregate": {aggregate.admin}, "oona-exporter": {a.admin, c.admin}}
	w := &world{exporters: targets["oona-exporter"]}
	w.native = draw.Prometheus(startPrometheus(t, true, targets))
	w.classic = draw.Prometheus(startPrometheus(t, false, targets))

	w.sent = newTraining(t, "http://"+ingest.address("ingest accepts frames")+"/v1/frames")
	w.sent.step(endedRun, layers[:2])
	w.sent.step(run, layers)
	w.over.From = w.settle(t, ctx) // so that counters exist before they increase
	w.before = w.sent.accepted
	w.run(t, ctx, b, topics, func() {
		aggregate.kill()
		time.Sleep(2 * time.Second) // as long as it takes to start a pod again
		aggregate = start("aggregate", "--admin-address="+aggregate.admin)
	})
	w.over.To = w.settle(t, ctx, fmt.Sprintf(`count(ALERTS{alertname="OonaLayerCritical", alertstate="firing", layer=%q}) == 1`, sick))
	w.over.Step = max(time.Second, (w.over.To.Sub(w.over.From) / 240).Truncate(time.Second))
	w.rollups = readRollups(t, ctx, b, topics)
	return w
}

// configuration is that of short windows.
func configuration(t *testing.T) windows.Configuration {
	t.Helper()
	known, err := catalogue.Default()
	if err != nil {
		t.Fatal(err)
	}
	c := windows.DefaultConfig()
	c.Length, c.OutOfOrderness, c.AllowedLateness = time.Second, 100*time.Millisecond, 250*time.Millisecond
	c.TickInterval, c.IdleHorizon = 125*time.Millisecond, 2*time.Second
	c.Generation, c.Reducer, c.Catalogue = 1, windows.Reducer, known.Hash()
	return windows.Configuration{Config: c}
}

// run is the training: first well, with the troubles of an installation, then with two
// sick layers.
func (w *world) run(t *testing.T, ctx context.Context, b bus.Bus, topics oona.Topics, kill func()) {
	t.Helper()
	healthy, faulty := times()
	began, killed := time.Now(), false
	stepping, stop := context.WithTimeout(ctx, healthy+faulty)
	defer stop()
	beats, done := 0, make(chan struct{})
	go func() {
		defer close(done)
		every(stepping, 250*time.Millisecond, func() {
			if beats++; beats < 40 {
				w.sent.step(endedRun, layers[:2])
			}
			w.sent.step(run, layers)
			w.sent.faulty.Store(time.Since(began) > healthy)
			w.sent.worse.Store(time.Since(began) > healthy+faulty-warned)
			if beats%8 == 0 {
				w.sent.late()
				w.sent.refused()
				w.sent.tensor()
				publishRaw(t, ctx, b, topics)
			}
		})
	}()
	for !killed && stepping.Err() == nil {
		if time.Since(began) > healthy/2 {
			kill()
			killed = true
		}
		pause()
	}
	<-done
}

// settle waits until all windows are closed and both Prometheus have scraped what both
// exporters show of them, and more holds. It returns a time at which that was so: on a busy
// machine a scrape may fail at any time, and its series are gone until the next one.
func (w *world) settle(t *testing.T, ctx context.Context, more ...string) time.Time {
	t.Helper()
	done := append([]string{
		"sum(oona_aggregate_open_windows) == 0",
		fmt.Sprintf("min(sum by (instance) (kasmina_layer_frames_total)) == %d", w.sent.accepted-w.sent.lates),
		"min(up) == 1",
	}, more...)
	w.await(t, ctx, done)
	time.Sleep(2500 * time.Millisecond) // two scrapes of everything
	return w.await(t, ctx, done)
}

// await waits until each query has one result in both Prometheus, at the same time.
func (w *world) await(t *testing.T, ctx context.Context, queries []string) time.Time {
	t.Helper()
	missing := ""
	for ; ; pause() {
		if ctx.Err() != nil {
			t.Fatalf("it does not hold that %s", missing)
		}
		now, hold := time.Now(), true
		for _, query := range queries {
			for _, p := range []draw.Prometheus{w.native, w.classic} {
				series, err := p.Ask(ctx, query, true, draw.Span{From: now, To: now})
				if err != nil || len(series) != 1 { // it may not be ready yet
					hold = false
					if ctx.Err() == nil {
						missing = fmt.Sprintf("%s: %v %v", query, series, err)
					}
				}
			}
		}
		if hold {
			return now
		}
	}
}

// publishRaw publishes a record that is no frame to the raw topic.
func publishRaw(t *testing.T, ctx context.Context, b bus.Bus, topics oona.Topics) {
	p, err := b.Publisher(bus.PublisherOptions{})
	if err != nil {
		t.Error(err)
		return
	}
	defer p.Close()
	if err := p.Publish(ctx, topics.SeedRaw, bus.NewMessage([]byte("no frame"), bus.Target{})); err != nil {
		t.Error(err)
	}
}

// readRollups returns the rollups on the topics, each once.
func readRollups(t *testing.T, ctx context.Context, b bus.Bus, topics oona.Topics) (all []oona.Rollup) {
	t.Helper()
	type place struct {
		topic     string
		partition int
		trigger   oona.Trigger
	}
	seen := make(map[place]bool)
	for _, group := range []oona.Group{oona.Health, oona.Performance} {
		topic := topics.Rollup(group)
		extents, err := b.Extents(ctx, topic)
		if err != nil {
			t.Fatal(err)
		}
		for p, e := range extents[topic] {
			err := b.Read(ctx, topic, bus.Range{Partition: int32(p), End: e.End}, func(m *message.Message) error {
				var r oona.Rollup
				if _, err := avro.DecodeRollup(m.Payload, &r); err != nil {
					return err
				}
				if at := (place{topic, p, r.Trigger}); !seen[at] {
					seen[at] = true
					all = append(all, r)
				}
				return nil
			})
			if err != nil {
				t.Fatal(err)
			}
		}
	}
	return all
}
