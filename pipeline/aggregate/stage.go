// Package aggregate is the stage that folds the records of the seed-metrics topic
// into rollups. Package partition runs it: one machine, which is a window engine,
// for each partition that the worker is assigned.
//
//	record --> decode --> windows.Engine --> outbox --> layer.health, layer.performance
//	              |            |                 +----> late, quarantine, overflow
//	              +------------|----------------------> dead letters
//	                           +-- no records come, and windows are open --> tick
//
// A commit has the engine's state and the offset from which the open windows can
// be folded again (commit.go). The next owner of the partition replays from there and continues. It
// emits again the rollups that were emitted after the commit, with the same content. Readers
// recognise these repeats by their triggers, and drop them.
package aggregate

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/bus"
	"github.com/morphogenetic/oona/internal/tracing"
	"github.com/morphogenetic/oona/pipeline/partition"
	"github.com/morphogenetic/oona/schemas/avro"
	"github.com/morphogenetic/oona/windows"
)

// Config configures the stage.
type Config struct {
	Worker  string // id of the worker, which is written into ticks
	Topics  oona.Topics
	Windows windows.Config
	Limits  oona.FrameLimits // a frame beyond them goes to the overflow topic
	// FromHere continues a partition whose past is lost with the records that the log still
	// has, instead of refusing it. It has no effect on other partitions.
	FromHere bool
	// Retention returns how long the seed-metrics topic keeps a record; 0 means for
	// ever. It is nil if that is not known.
	Retention func(context.Context) (time.Duration, error)
	// Skip names records that become dead letters: configurations that no version
	// can read, and frames that make the fold panic. All aggregators must skip the
	// same records until no replay can reach them.
	Skip []RecordAt
	// Log is used when a partition is assigned. If it is nil, only the assignment and its commit
	// decide how the partition is resumed. Then a lost end of the log is not detected if the log
	// has since grown past the commit.
	Log Log
	// Tracer gets a span for each window that has a sampled frame. If it is nil, there are no
	// traces.
	Tracer *tracing.Tracer
}

// Validate returns an error for the first field that is wrong.
func (c Config) Validate() error {
	if err := oona.CheckID("worker", c.Worker); err != nil {
		return err
	}
	return CheckWindows(c.Windows)
}

// Stage owns the engines of the partitions that are assigned to this worker.
type Stage struct {
	*Folder
	*partition.Runtime
}

// Folder makes the machines that fold partitions. A Stage runs them for the partitions
// that are assigned to a worker. A program that reads a log by itself, such as a replay, runs them
// without a Stage, and gets the same output.
type Folder struct {
	cfg        Config
	catalogues windows.Catalogues
	metrics    *metrics
	logger     *slog.Logger
	// compares makes the folder log a warning if the windows of a log differ from cfg.Windows,
	// because somebody has chosen these settings.
	compares bool
}

// NewFolder returns a Folder. The catalogues give each metric its group and direction.
func NewFolder(cfg Config, catalogues windows.Catalogues, logger *slog.Logger) (*Folder, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("aggregate: %w", err)
	}
	return &Folder{cfg: cfg, catalogues: catalogues, metrics: newMetrics(), logger: logger}, nil
}

// New returns a stage that publishes to publisher. The caller closes the publisher.
// The catalogues give each metric its group and direction.
func New(cfg Config, catalogues windows.Catalogues, publisher bus.Publisher, registerer prometheus.Registerer, logger *slog.Logger) (*Stage, error) {
	folder, err := NewFolder(cfg, catalogues, logger)
	if err != nil {
		return nil, err
	}
	folder.compares = true
	s := &Stage{Folder: folder}
	s.Runtime, err = partition.New(partition.Config{
		Name:         "aggregate",
		Topic:        cfg.Topics.SeedMetrics,
		Open:         s.Open,
		Refuses:      isFinal,
		Tick:         s.tick,
		TickInterval: cfg.Windows.TickInterval,
		Retention:    cfg.Retention,
		Outputs: []string{cfg.Topics.LayerHealth, cfg.Topics.LayerPerformance, cfg.Topics.Late, cfg.Topics.Quarantine,
			cfg.Topics.Overflow, cfg.Topics.SeedMetricsDead},
	}, publisher, registerer, logger)
	if err != nil {
		return nil, err
	}
	s.metrics.running = s.Runtime
	if err := registerer.Register(s.metrics); err != nil {
		return nil, fmt.Errorf("aggregate: register metrics: %w", err)
	}
	return s, nil
}

// tick returns the record that advances the log clock of a quiet partition.
func (s *Stage) tick(now time.Time) *message.Message {
	msg := message.NewMessage("", avro.AppendTick(nil, oona.Tick{Worker: s.cfg.Worker, WrittenAt: oona.MicrosOf(now)}))
	msg.Metadata.Set(oona.HeaderRecord, oona.TickRecord)
	return msg
}

// CheckWindows returns a *oona.FieldError if this worker must not be configured with
// the windows. It is not applied to configurations of a log.
func CheckWindows(cfg windows.Config) error {
	if cfg.TickInterval > 0 && cfg.TickInterval < partition.LeastTick {
		return &oona.FieldError{Field: "TickInterval", Reason: fmt.Sprintf("is %s; give at least %s, because with less an idle aggregator does nothing but look for quiet partitions", cfg.TickInterval, partition.LeastTick)}
	}
	if cfg.MaxTimelines > windows.MostTimelines {
		return &oona.FieldError{Field: "MaxTimelines", Reason: fmt.Sprintf("is %d; give at most %d, because a commit cannot hold more, and a restart would have to read more and more of the log", cfg.MaxTimelines, windows.MostTimelines)}
	}
	return cfg.Validate()
}
