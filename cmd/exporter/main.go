// Command exporter shows the rollups of layers to Prometheus: sums over all windows,
// and the last closed window.
//
//	layer.health ------> export.Stage --> /metrics of the admin server
//	layer.performance --^    (of any number of partitions)
//
// It reads the topics without a consumer group, so any number of exporters may run at
// the same time, and each shows everything.
package main

import (
	"context"
	"time"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/bus"
	"github.com/morphogenetic/oona/bus/kafka"
	"github.com/morphogenetic/oona/internal/buswatch"
	"github.com/morphogenetic/oona/internal/catalogue"
	"github.com/morphogenetic/oona/internal/remedy"
	"github.com/morphogenetic/oona/internal/worker"
	"github.com/morphogenetic/oona/pipeline/export"
)

func main() {
	cfg := defaults()
	worker.Main("exporter", "Shows the layers' rollups to Prometheus, at /metrics of the admin address.", cfg,
		func(ctx context.Context, w *worker.Worker) error { return remedy.Add(cfg.run(ctx, w)) })
}

func (c *config) run(ctx context.Context, w *worker.Worker) error {
	stage, err := c.stage()
	if err != nil {
		return err
	}
	known, err := catalogue.Open(c.Catalogue)
	if err != nil {
		return err
	}
	rollups := []oona.TopicSpec{{Name: stage.Topics.LayerHealth}, {Name: stage.Topics.LayerPerformance}}
	c.Bus.Secrets = w.Secrets
	worker.WarnOfClearCredentials(w.Logger, c.Bus.Security.SASL, c.Bus.Security.TLS)
	b := kafka.New(c.Bus, w.Logger)
	if err := b.Check(ctx, rollups); err != nil {
		return err
	}
	log, err := b.Reader(bus.ReaderOptions{From: c.from(time.Now())})
	if err != nil {
		return err
	}
	w.OnClose("reader of the log", log.Close)
	exporter, err := export.New(stage, log, known, w.Registry, w.Logger)
	if err != nil {
		return err
	}
	watch, err := buswatch.New(b, []string{stage.Topics.LayerHealth, stage.Topics.LayerPerformance}, exporter.SetEnds, w.Registry, w.Logger)
	if err != nil {
		return err
	}
	w.Admin.ReadyWhen("rollups", exporter.Ready)
	w.Admin.Note("bus", watch.Note)
	return w.Run(ctx, worker.Component{Name: "exporter", Run: exporter.Run}, worker.Component{Name: "bus watch", Run: watch.Run})
}
