// Command exporter shows the rollups of layers to Prometheus: sums over all windows,
// and the last closed window.
//
//	layer.health ------> export.Stage --> /metrics of the admin server
//	layer.performance --^    (of any number of partitions)      ^
//	events.seed.* -----> export.Transitions --------------------+
//
// It reads the topics without a consumer group, so any number of exporters may run at
// the same time, and each shows everything. With --remote-write-url, they also share the
// partitions in a consumer group (remotewrite.Stage), and send each rollup once.
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
	stage.Tracer = w.Tracer
	known, err := catalogue.Open(c.Catalogue)
	if err != nil {
		return err
	}
	rollups := []oona.TopicSpec{{Name: stage.Topics.LayerHealth}, {Name: stage.Topics.LayerPerformance}}
	c.Bus.Secrets = w.Secrets
	b := kafka.New(c.Bus, w.Logger)
	if err := b.Check(ctx, rollups); err != nil {
		return err
	}
	log, err := b.Reader(bus.ReaderOptions{From: c.from(time.Now()), ReadAheadAll: rollupsAhead})
	if err != nil {
		return err
	}
	w.OnClose("reader of the log", log.Close)
	exporter, err := export.New(stage, log, known, w.Admin.Apart(), w.Logger)
	if err != nil {
		return err
	}
	watch, err := buswatch.New(b, []string{stage.Topics.LayerHealth, stage.Topics.LayerPerformance}, exporter.SetEnds, w.Registry, w.Logger)
	if err != nil {
		return err
	}
	// Topics of events may get more partitions at any time. Those of rollups may not.
	events, err := b.Reader(bus.ReaderOptions{From: c.from(time.Now()), ReadAheadAll: eventsAhead, AddedEvery: bus.DefaultAddedEvery})
	if err != nil {
		return err
	}
	w.OnClose("reader of events", events.Close)
	transitions, err := export.NewTransitions(stage, w.Registry, w.Logger)
	if err != nil {
		return err
	}
	sending, err := c.remoteWrite(ctx, b, stage, w)
	if err != nil {
		return err
	}
	w.Admin.Serve(export.StatusPath, export.StatusSays, exporter.Status(b))
	w.Admin.ReadyWhen("rollups", exporter.Ready)
	w.Admin.Note("bus", watch.Note)
	return w.Run(ctx, append(sending, worker.Component{Name: "exporter", Run: exporter.Run},
		worker.Component{Name: "events", Run: func(ctx context.Context) error { return transitions.Run(ctx, events, exporter.End) }}, worker.Component{Name: "bus watch", Run: watch.Run})...)
}

// How many bytes of a topic, on the bus, are read ahead when the exporter starts.
const (
	rollupsAhead = 32 << 20
	eventsAhead  = 2 << 20 // of each topic of events, which are small and take several times as much
)
