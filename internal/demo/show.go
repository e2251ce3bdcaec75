package demo

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/bus"
	"github.com/morphogenetic/oona/internal/catalogue"
	"github.com/morphogenetic/oona/internal/watch"
)

// banner returns the addresses of all services, and commands to look at them. Its lines fit
// a terminal of 80 columns, as one that wraps in a word is hard to read and to copy. With
// three layers below it, it fits 24 rows.
func (s *services) banner(cfg Config) string {
	broker := strings.Join(s.brokers, ",")
	if s.embedded {
		broker += " (embedded, for testing; production means Kafka)"
	}
	tensors := "in their frames; keep those for others with ingest's --tensor-store"
	if s.tensors != nil {
		tensors = s.tensorsURL + " (above 16 KiB; embedded S3)"
	}
	return fmt.Sprintf(`Oona is running: %s
  windows  of %s, idle after %s (production: 10s and 60s)
  ingest   %s/v1/frames
  metrics  %s/metrics
  broker   %s
  tensors  %s
  more     go run ./cmd/oona top %s
Prometheus can scrape it:
  scrape_configs:
    - job_name: oona
      static_configs: [{targets: ["%s"]}]
      scrape_native_histograms: true  # for quantiles; from 3.8 on
  Prometheus 2.40 to 3.7: leave out the last line, and start it with
  --enable-feature=native-histograms. See docs/metrics.md#quantiles.

`,
		what(cfg), cfg.Window, cfg.Idle, s.ingestURL, s.adminURL, broker, tensors, s.topFlags(cfg), strings.TrimPrefix(s.adminURL, "http://"))
}

// topFlags returns the flags with which oona top shows this demo.
func (s *services) topFlags(cfg Config) string {
	flags := "--brokers " + s.brokers[0]
	if cfg.Prefix != oona.DefaultPrefix {
		flags += " --prefix " + cfg.Prefix
	}
	return flags + " --group " + cfg.group()
}

func what(cfg Config) string {
	if cfg.Synthetic != "" {
		return "synthetic load, " + cfg.Synthetic
	}
	return fmt.Sprintf("%s at speed %s", cfg.Recording, cfg.Speed)
}

// show reads the rollups of this demo from the bus with an ordinary reader, and
// shows them until stop is called.
func (s *services) show(cfg Config, screen watch.Screen) (stop func(), err error) {
	known, err := catalogue.Default()
	if err != nil {
		return nil, err
	}
	reader, err := s.bus.Reader(bus.ReaderOptions{From: time.Now()})
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	var shown sync.WaitGroup
	shown.Go(func() {
		options := watch.LayersOptions{
			BoardOptions: watch.BoardOptions{Metrics: watch.DefaultMetrics(), Rule: known.Rule, Stay: 20 * time.Second, Logger: s.logger},
			Topics:       s.topics, MostLines: fewLayers, Status: s.progress, Head: s.banner(cfg),
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
	if s.stopping() {
		return fmt.Sprintf("stopping: waiting at most %s for what is on its way; a second signal ends the demo at once", s.grace)
	}
	p := s.playing.Load()
	if p == nil {
		return "starting"
	}
	sent, now := p.Counts(), s.aggregate.Counts()
	run := string(p.run)
	return fmt.Sprintf("run %s: %d frames sent, %d acknowledged, %d folded, %d late; %d windows open, %d rollups",
		run[max(0, len(run)-6):], sent.Sent, sent.Acknowledged, now.Folded-s.before.Folded, now.Late-s.before.Late, now.OpenWindows, now.Rollups-s.before.Rollups)
}
