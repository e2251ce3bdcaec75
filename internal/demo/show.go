package demo

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/bus"
	"github.com/morphogenetic/oona/rollups"
	"github.com/morphogenetic/oona/schemas/avro"
)

// say prints the addresses of all services, and commands to look at them.
func (s *services) say(cfg Config) {
	broker := strings.Join(s.brokers, ",")
	kind := "Kafka"
	if s.embedded {
		kind = "embedded broker, for testing; production means Kafka"
	}
	tensors := "in their frames; keep those for others with ingest's --tensor-store"
	if s.tensors != nil {
		tensors = s.tensorsURL + " (above 16 KiB; embedded S3 server, for testing)"
	}
	fmt.Fprintf(s.out, `Oona is running: %s
  windows  of %s, idle after %s (production: 10s and 60s)
  ingest   %s/v1/frames
  metrics  %s/metrics
  broker   %s (%s)
  tensors  %s
Look at it from another terminal:
  curl -s %s/metrics | grep ^kasmina_layer_seeds
  kcat -b %s -C -t %s -o beginning -e -f '%%p/%%o %%T %%S bytes\n'
  prometheus: scrape_configs: [{job_name: oona, static_configs: [{targets: ["%s"]}]}]
    Quantiles need native histograms: start Prometheus 2.40 to 3.7 with --enable-feature=native-histograms,
    or, from 3.8 on, add scrape_native_histograms: true to the job. Prometheus then stores no classic
    buckets, unless the job has always_scrape_classic_histograms: true (in 2.45 to 2.55
    scrape_classic_histograms: true). See docs/metrics.md.

`,
		what(cfg), cfg.Window, cfg.Idle, s.ingestURL, s.adminURL, broker, kind, tensors,
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
func (s *services) show(screen Screen) (stop func(), err error) {
	log, err := s.bus.Reader(bus.ReaderOptions{From: time.Now()})
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	b := newBoard(screen)
	var shown sync.WaitGroup
	stop = func() {
		cancel()
		shown.Wait()
		if err := log.Close(); err != nil {
			s.logger.Warn("cannot close the table's reader", "err", err)
		}
	}
	for _, topic := range []string{s.topics.LayerHealth, s.topics.LayerPerformance} {
		messages, err := log.Subscribe(ctx, topic)
		if err != nil {
			stop()
			return nil, err
		}
		shown.Go(func() { b.follow(messages, s.logger) })
	}
	shown.Go(func() { s.draw(ctx, b) })
	return stop, nil
}

// follow updates b with the rollups of a topic until messages is closed.
func (b *board) follow(messages <-chan *message.Message, logger *slog.Logger) {
	var r oona.Rollup
	for msg := range messages {
		at, err := bus.PositionOf(msg)
		if err == nil {
			_, err = avro.DecodeRollup(msg.Payload, &r)
		}
		if err != nil {
			logger.Warn("cannot read a rollup", "err", err)
		} else if found := b.rollups.Read(at.Partition, &r); found.Outcome == rollups.New {
			b.update(&r, time.Now())
		} else if found.Outcome != rollups.Repeat {
			logger.Warn("the table leaves out a rollup", "outcome", found.Outcome.String(), "run", r.Run, "layer", r.Layer, "trigger", r.Trigger)
		}
		msg.Ack()
	}
}

// draw redraws the table on a terminal twice a second. Without a terminal it writes
// a line of progress every five seconds.
func (s *services) draw(ctx context.Context, b *board) {
	interval := 5 * time.Second
	if b.width != nil {
		interval = 500 * time.Millisecond
	}
	for bus.Pause(ctx, interval) {
		if b.width != nil {
			b.draw(s.progress(), time.Now())
		} else {
			b.note(s.progress())
		}
	}
	if b.width != nil {
		b.draw(s.progress(), time.Now())
	}
}

func (s *services) progress() string {
	p := s.playing.Load()
	if p == nil {
		return "starting"
	}
	sent, now := p.Counts(), s.aggregate.Counts()
	return fmt.Sprintf("run %s: %d frames sent, %d acknowledged, %d folded, %d late; %d windows open, %d rollups",
		tail(p.run), sent.Sent, sent.Acknowledged, now.Folded-s.before.Folded, now.Late-s.before.Late, now.OpenWindows, now.Rollups-s.before.Rollups)
}
