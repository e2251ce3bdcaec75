package demo

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/morphogenetic/oona/bus"
	"github.com/morphogenetic/oona/internal/watch"
)

// say prints the addresses of all services, and commands to look at them. Its lines fit
// a terminal of 80 columns, as one that wraps in a word is hard to read and to copy.
func (s *services) say(cfg Config) {
	broker := strings.Join(s.brokers, ",")
	if s.embedded {
		broker += " (embedded, for testing; production means Kafka)"
	}
	tensors := "in their frames; keep those for others with ingest's --tensor-store"
	if s.tensors != nil {
		tensors = s.tensorsURL + "\n           (above 16 KiB; embedded S3 server, for testing)"
	}
	fmt.Fprintf(s.out, `Oona is running: %s
  windows  of %s, idle after %s (production: 10s and 60s)
  ingest   %s/v1/frames
  metrics  %s/metrics
  broker   %s
  tensors  %s
Look at it from another terminal:
  curl -s %s/metrics | grep ^kasmina_layer_seeds
  kcat -b %s -C -t %s \
    -o beginning -e -f '%%p/%%o %%T %%S bytes\n'
Or with Prometheus, in its configuration:
  scrape_configs:
    - job_name: oona
      static_configs: [{targets: ["%s"]}]
  Quantiles need native histograms: start Prometheus 2.40 to 3.7 with
  --enable-feature=native-histograms, or, from 3.8 on, add
  scrape_native_histograms: true to the job. Prometheus then stores no classic
  buckets, unless the job has always_scrape_classic_histograms: true (in 2.45
  to 2.55 scrape_classic_histograms: true). See docs/metrics.md.

`,
		what(cfg), cfg.Window, cfg.Idle, s.ingestURL, s.adminURL, broker, tensors,
		s.adminURL, s.brokers[0], s.topics.LayerHealth, strings.TrimPrefix(s.adminURL, "http://"))
}

func what(cfg Config) string {
	if cfg.Synthetic != "" {
		return "synthetic load, " + cfg.Synthetic
	}
	return fmt.Sprintf("%s at speed %s", cfg.Recording, cfg.Speed)
}

// show reads the rollups of this demo from the bus with an ordinary reader, and
// shows them until stop is called.
func (s *services) show(screen watch.Screen) (stop func(), err error) {
	reader, err := s.bus.Reader(bus.ReaderOptions{From: time.Now()})
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	var shown sync.WaitGroup
	shown.Go(func() {
		options := watch.LayersOptions{
			Topics: s.topics, Metrics: watch.DefaultMetrics(), MostLines: fewLayers,
			Status: s.progress, Stay: 20 * time.Second, Logger: s.logger,
		}
		if err := watch.FollowLayers(ctx, reader, options, screen); err != nil {
			s.logger.Warn("cannot show the layers", "err", err)
		}
	})
	return func() {
		cancel()
		shown.Wait()
		if err := reader.Close(); err != nil {
			s.logger.Warn("cannot close the table's reader", "err", err)
		}
	}, nil
}

// fewLayers is the number of layers up to which each closed window is printed.
const fewLayers = 16

func (s *services) progress() string {
	p := s.playing.Load()
	if p == nil {
		return "starting"
	}
	sent, now := p.Counts(), s.aggregate.Counts()
	run := string(p.run)
	return fmt.Sprintf("run %s: %d frames sent, %d acknowledged, %d folded, %d late; %d windows open, %d rollups",
		run[max(0, len(run)-6):], sent.Sent, sent.Acknowledged, now.Folded-s.before.Folded, now.Late-s.before.Late, now.OpenWindows, now.Rollups-s.before.Rollups)
}
