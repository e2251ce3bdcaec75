// Package demo runs all of Oona in one process, with the packages that the
// separate binaries use: a broker (embedded, or a given Kafka), ingest,
// aggregate and exporter, and a load generator that sends a recorded run to ingest over
// HTTP. At the end it reconciles what was sent with what every service has
// counted.
package demo

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/oklog/ulid/v2"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/bus"
	lives "github.com/morphogenetic/oona/internal/audit"
	"github.com/morphogenetic/oona/internal/loadgen"
	"github.com/morphogenetic/oona/internal/watch"
	"github.com/morphogenetic/oona/schemas/avro"
)

// Run plays until the end that cfg asks for, or until ctx is done. It then waits
// for what is on its way and returns the reconciliation. An error means that the
// demo failed to run. Counts that disagree are not an error; the report has them.
func Run(ctx context.Context, cfg Config, screen watch.Screen, logger *slog.Logger) (*Report, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	recording, err := load(cfg)
	if err != nil {
		return nil, err
	}
	// Stopping loadgen must not stop the services: they settle first.
	services, err := start(context.WithoutCancel(ctx), ctx.Done(), cfg, screen.Out, logger)
	if err != nil {
		return nil, err
	}
	services.recording = recording
	report, err := services.play(ctx, cfg, screen)
	return report, errors.Join(err, services.stop())
}

// play runs loadgen once or repeatedly, and reconciles the counts.
func (s *services) play(ctx context.Context, cfg Config, screen watch.Screen) (*Report, error) {
	// Wait until nothing is on its way: ticks may still be closing windows of an
	// older run.
	before, settled, err := s.settle(ctx, false, cfg.Idle)
	if err != nil {
		return nil, err
	}
	if !settled && ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	if !settled {
		return nil, fmt.Errorf("the records on the topics were not read within %s; stop other load on this machine, or use an empty --data directory", cfg.Patience)
	}
	s.before = before.aggregate
	fmt.Fprint(s.out, s.banner(cfg))
	if cfg.For > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, cfg.For)
		defer cancel()
	}
	show, err := s.show(cfg, screen)
	if err != nil {
		return nil, err
	}
	audit, err := s.startAudit(context.WithoutCancel(ctx))
	if err != nil {
		show()
		return nil, err
	}
	played, playErr := s.repeat(ctx, cfg)
	most := s.limit(cfg.Once, cfg.Idle)
	after, settled, err := s.settleWithin(context.WithoutCancel(ctx), cfg.Once, most)
	show()
	report := before.until(after, played)
	if err == nil {
		err = s.auditEvents(context.WithoutCancel(ctx), report)
	}
	report.Tensors = audit.finish(context.WithoutCancel(ctx), most, report.Records)
	if err := errors.Join(playErr, err); err != nil {
		return nil, err
	}
	report.reconcile(cfg.Once)
	if !settled {
		within := cfg.Patience
		if most.stopping {
			within = cfg.Grace
		}
		fmt.Fprintf(screen.Out, "Not everything arrived within %s.\n", within)
	}
	return report, nil
}

// load reads the recording. It returns nil for synthetic load.
func load(cfg Config) ([]byte, error) {
	if cfg.Synthetic != "" {
		return nil, nil
	}
	recording, err := os.ReadFile(cfg.Recording)
	if err != nil {
		return nil, fmt.Errorf("read the recording (run from the repository, or name one with --recording, or generate load with --synthetic layers=8,seeds=100,rate=50): %w", err)
	}
	if _, err := avro.NewRecordingReader(bytes.NewReader(recording)); err != nil {
		return nil, fmt.Errorf("%s is not a recording: %w", cfg.Recording, err)
	}
	return recording, nil
}

// repeat plays one run after another until ctx is done, or one run with --once. A
// run starts when all windows of the previous run have closed.
func (s *services) repeat(ctx context.Context, cfg Config) (loadgen.Counts, error) {
	var total loadgen.Counts
	for {
		result, err := s.playRun(ctx, cfg)
		total.Sent += result.Sent
		total.Acknowledged += result.Acknowledged
		total.Refused += result.Refused
		total.Tensors += result.Tensors
		if err == nil {
			total.Events += result.Events
		} else { // it was stopped, so not all are sent
			total.Events += result.EventsAcknowledged
		}
		total.EventsSent += result.EventsSent
		total.EventsAcknowledged += result.EventsAcknowledged
		total.Ended += result.Ended
		switch {
		case ctx.Err() != nil:
			return total, nil
		case err != nil:
			return total, err
		case cfg.Once:
			return total, nil
		}
		for s.aggregate.Counts().OpenWindows > 0 {
			if !bus.Pause(ctx, pollInterval) {
				return total, nil
			}
		}
	}
}

// auditEvents reads back the events of the runs that were played. It adds their number to the report,
// and how much is wrong with them. It reads the topics once for all runs, of which there are thousands
// after a day. Records that are no events are not counted, because other programs may write them. If
// one of them should have been an event of these runs, there are fewer events than were acknowledged.
func (s *services) auditEvents(ctx context.Context, r *Report) error {
	if len(s.runs) == 0 {
		return nil
	}
	_, err := lives.Run(ctx, s.bus, lives.Options{Topics: s.topics, Runs: s.runs, Seed: oona.AnySeed}, func(l *lives.Life) error {
		r.EventsRead += int64(len(l.Events))
		for _, e := range l.Events {
			r.EventFaults += int64(len(e.Faults))
		}
		return nil
	})
	if err != nil {
		return err
	}
	return s.readRunEnds(ctx, r)
}

// readRunEnds counts the runs that were played whose end is on its topic.
func (s *services) readRunEnds(ctx context.Context, r *Report) error {
	topic := s.topics.RunEnded
	extents, err := s.bus.Extents(ctx, topic)
	if err != nil {
		return fmt.Errorf("read the ends of runs: %w", err)
	}
	ended := make(map[oona.RunID]bool, len(s.runs)) // of each run that was played
	for _, run := range s.runs {
		ended[run] = false
	}
	for partition, extent := range extents[topic] {
		err := s.bus.Read(ctx, topic, bus.Range{Partition: int32(partition), From: extent.Start, End: extent.End}, func(m *message.Message) error {
			var e oona.RunEnd
			if _, err := avro.DecodeRunEnd(m.Payload, &e); err != nil {
				return nil
			}
			if already, played := ended[e.Run]; played && !already {
				ended[e.Run] = true
				r.RunsEndedRead++
			}
			return nil
		})
		if err != nil {
			return fmt.Errorf("read the ends of runs: %w", err)
		}
	}
	return nil
}

// run is a loadgen.Player and the run that it plays.
type run struct {
	*loadgen.Player
	run oona.RunID
}

func (s *services) playRun(ctx context.Context, cfg Config) (loadgen.Result, error) {
	playing := loadgen.DefaultConfig()
	playing.URL = s.ingestURL
	playing.Run, playing.Events = oona.RunID(ulid.Make().String()), true
	playing.Logger = s.logger
	var err error
	if playing.Speed, err = loadgen.ParseSpeed(cfg.Speed); err != nil {
		return loadgen.Result{}, err
	}
	if cfg.Synthetic != "" {
		if playing.Synthetic, err = loadgen.ParseSynthetic(cfg.Synthetic); err != nil {
			return loadgen.Result{}, err
		}
	} else {
		playing.Recording = bytes.NewReader(s.recording)
	}
	p, err := loadgen.New(playing)
	if err != nil {
		return loadgen.Result{}, err
	}
	s.playing.Store(&run{p, playing.Run})
	s.runs = append(s.runs, playing.Run)
	return p.Run(ctx)
}
