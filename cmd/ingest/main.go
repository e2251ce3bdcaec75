// Command ingest receives frames from trainers over HTTP and publishes them to the
// seed-metrics topic.
//
//	trainer --POST /v1/frames--> ingest.Stage ----+--> publisher --> seed.metrics, seed.raw.dead
//	        --PUT /v1/tensors-->      |           |                  (checked at the start, and held
//	                                  v           |                   to its number of partitions)
//	                             tensor store     |
//	                                  ^           |
//	        --Kafka: seed.raw---> ingest.Raw -----+
//	          (--raw)
//
// Any number of ingests may run behind a load balancer. Each needs its own instance
// ID.
package main

import (
	"context"
	"errors"
	"log/slog"
	"net"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/bus"
	"github.com/morphogenetic/oona/bus/kafka"
	"github.com/morphogenetic/oona/internal/buswatch"
	"github.com/morphogenetic/oona/internal/remedy"
	"github.com/morphogenetic/oona/internal/settings"
	"github.com/morphogenetic/oona/internal/worker"
	"github.com/morphogenetic/oona/pipeline/ingest"
)

const description = "Receives frames from trainers over HTTP (POST /v1/frames) and publishes them to the bus; keeps large tensors in a store."

func main() {
	cfg := defaults()
	worker.Main("ingest", description, cfg, func(ctx context.Context, w *worker.Worker) error { return remedy.Add(cfg.run(ctx, w)) })
}

func (c *config) run(ctx context.Context, w *worker.Worker) error {
	topics, err := oona.NewTopics(c.Prefix)
	if err != nil {
		return err
	}
	c.Bus.Secrets, c.Tensors.S3.Secrets, c.Registry.Secrets = w.Secrets, w.Secrets, w.Secrets
	b := kafka.New(c.Bus, w.Logger)
	connected := &connecting{logger: w.Logger, connect: func(ctx context.Context) (bus.PinnedPublisher, error) { return c.connect(ctx, b, topics) }}
	if err := connected.start(ctx); err != nil {
		return err
	}
	if err := connected.cause; err != nil && (c.Ingest.Spool.Directory == "" || c.Raw) {
		return err
	}
	publisher := advised{connected}
	w.OnClose("publisher", publisher.Close)
	cfg := c.stage(topics)
	if cfg.Tensors, err = c.tensorStore(); err != nil {
		return err
	}
	if cfg.Access, err = c.openListenAccess(w.Secrets); err != nil {
		return err
	}
	if cfg.Registry, err = c.schemaRegistry(ctx, w); err != nil {
		return err
	}
	if cfg.Spool.Open, err = c.Ingest.OpenSpool(w.Logger); err != nil {
		return err
	}
	if cfg.Spool.Open != nil {
		w.OnClose("spool", cfg.Spool.Open.Close)
	}
	cfg.Tracer = w.Tracer
	stage, err := ingest.New(cfg, publisher, w.Registry, w.Logger)
	if err != nil {
		return err
	}
	if err := stage.ProbeStore(ctx); err != nil {
		return err
	}
	watch, err := buswatch.New(b, []string{topics.SeedMetrics}, nil, w.Registry, w.Logger)
	if err != nil {
		return err
	}
	secure, err := c.openListenTLS(w.Secrets)
	if err != nil {
		return err
	}
	plain, err := worker.Listen(ctx, "--listen", c.Listen)
	if err != nil {
		return err
	}
	listener := worker.Secure(plain, secure)
	w.Admin.ReadyWhen("frames", stage.Ready)
	w.Admin.ReadyWhen("partitions", publisher.Pinned)
	w.Admin.Note("bus", watch.Note)
	w.Admin.Note("tensor store", stage.StoreNote)
	components := []worker.Component{component(stage, listener), {Name: "bus watch", Run: watch.Run}, {Name: "publisher", Run: connected.Run}, limits(b, topics, stage, w.Logger)}
	if c.Raw {
		raw, err := c.openRaw(ctx, b, topics, stage, w)
		if err != nil {
			return errors.Join(err, listener.Close())
		}
		components = append(components, raw...)
	}
	return w.Run(ctx, components...)
}

// connect returns a publisher to topics that are as they must be.
func (c *config) connect(ctx context.Context, b bus.Bus, topics oona.Topics) (bus.PinnedPublisher, error) {
	publisher, err := b.Publisher(c.publisher(topics))
	if err != nil {
		return nil, err
	}
	// After the publisher was made, as it records the number of partitions: a change
	// between the two must be noticed.
	if _, err := bus.WithoutLimits(b.Check(ctx, c.checkedTopics(topics))); err != nil { // aggregate warns of them
		return nil, errors.Join(err, publisher.Close())
	}
	return publisher, nil
}

// limits returns the component that tells the stage with which limits to compare frames.
// Ingest does not depend on it: without limits, no frame is judged.
func limits(b bus.Bus, topics oona.Topics, stage *ingest.Stage, logger *slog.Logger) worker.Component {
	return worker.Component{Name: "limits", Run: func(ctx context.Context) error {
		settings.FollowLimits(ctx, b, topics, logger, stage.SetLimits)
		return nil
	}}
}

func component(stage *ingest.Stage, listener net.Listener) worker.Component {
	return worker.Component{Name: "ingest", Run: func(ctx context.Context) error { return stage.Run(ctx, listener) }}
}
