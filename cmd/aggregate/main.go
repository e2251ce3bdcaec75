// Command aggregate folds the frames of the seed-metrics topic into rollups.
//
//	                            +-----------+     layer.health, layer.performance
//	seed.metrics --> partitions | aggregate | --> late, quarantine, overflow, dead letters
//	      ^                     +-----------+
//	      +------- ticks ------------+
package main

import (
	"context"
	"time"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/bus"
	"github.com/morphogenetic/oona/bus/kafka"
	"github.com/morphogenetic/oona/internal/buswatch"
	"github.com/morphogenetic/oona/internal/remedy"
	"github.com/morphogenetic/oona/internal/settings"
	"github.com/morphogenetic/oona/internal/worker"
	"github.com/morphogenetic/oona/pipeline/aggregate"
)

func main() {
	cfg := defaults()
	worker.Main("aggregate", "Folds frames into rollups of each layer's health and performance.", cfg,
		func(ctx context.Context, w *worker.Worker) error { return remedy.Add(run(ctx, cfg, w)) })
}

func run(ctx context.Context, cfg *config, w *worker.Worker) error {
	topics, err := oona.NewTopics(cfg.Prefix)
	if err != nil {
		return err
	}
	cfg.Bus.Secrets = w.Secrets
	b := kafka.New(cfg.Bus, w.Logger)
	limits, err := bus.WithoutLimits(b.Check(ctx, topics.Specs(0)))
	if err != nil {
		return err
	}
	for _, f := range limits {
		w.Logger.Warn("larger records of a topic will be lost, as its limit is another than oona topics apply sets", "topic", f.Topic, "fault", f.Fault)
	}
	group := buswatch.Group{Bus: b, Flag: "--group", Name: cfg.Group, Topics: []string{topics.SeedMetrics}, Logger: w.Logger}
	if err := group.Start(ctx); err != nil {
		return err
	}
	own, err := ownCatalogue(cfg.Catalogue)
	if err != nil {
		return err
	}
	publisher, err := b.Publisher(bus.RollupOptions())
	if err != nil {
		return err
	}
	w.OnClose("publisher", publisher.Close)

	shared := settings.NewCatalogues(b, topics, w.Logger)
	stage, err := aggregate.New(aggregate.Config{
		Worker:   cfg.WorkerID,
		Topics:   topics,
		Windows:  cfg.Windows,
		Limits:   oona.DefaultFrameLimits,
		FromHere: cfg.FromHere,
		Retention: func(ctx context.Context) (time.Duration, error) {
			kept, err := b.Retention(ctx, topics.SeedMetrics)
			return kept.Age, err
		},
		Skip:   cfg.Skip,
		Tracer: w.Tracer,
		Log:    settings.Log{Bus: b, Topics: topics, Worker: cfg.WorkerID},
	}, shared.ForWindows(ctx, own), publisher, w.Registry, w.Logger)
	if err != nil {
		return err
	}
	member, err := b.Member(cfg.group(), stage)
	if err != nil {
		return err
	}
	w.OnClose("consumer group", member.Close)

	watch, err := buswatch.New(b, []string{topics.SeedMetrics}, nil, w.Registry, w.Logger)
	if err != nil {
		return err
	}
	w.Admin.ReadyWhen("aggregate", stage.Ready)
	w.Admin.Note("bus", watch.Note)
	return w.Run(ctx,
		worker.Component{Name: "aggregate", Run: func(ctx context.Context) error { return stage.Run(ctx, member) }},
		worker.Component{Name: "bus watch", Run: watch.Run},
		worker.Component{Name: "group watch", Run: group.Run},
	)
}
