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
	"net"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/bus"
	"github.com/morphogenetic/oona/bus/kafka"
	"github.com/morphogenetic/oona/internal/buswatch"
	"github.com/morphogenetic/oona/internal/remedy"
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
	c.Bus.Secrets, c.Tensors.S3.Secrets = w.Secrets, w.Secrets
	worker.WarnOfClearCredentials(w.Logger, c.Bus.Security.SASL, c.Bus.Security.TLS)
	b := kafka.New(c.Bus, w.Logger)
	connected, err := b.Publisher(c.publisher(topics))
	if err != nil {
		return err
	}
	publisher := advised{connected}
	w.OnClose("publisher", publisher.Close)
	// After the publisher was made, as it records the number of partitions: a change
	// between the two must be noticed.
	if _, err := bus.WithoutLimits(b.Check(ctx, c.checkedTopics(topics))); err != nil { // aggregate warns of them
		return err
	}
	settings := c.stage(topics)
	if settings.Tensors, err = c.tensorStore(); err != nil {
		return err
	}
	if settings.Access, err = c.openListenAccess(w.Secrets); err != nil {
		return err
	}
	stage, err := ingest.New(settings, publisher, w.Registry, w.Logger)
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
	worker.WarnOfClearText(w.Logger, "--listen-access-file", settings.Access != nil && secure == nil)
	plain, err := worker.Listen(ctx, "--listen", c.Listen)
	if err != nil {
		return err
	}
	listener := worker.Secure(plain, secure)
	w.Admin.ReadyWhen("frames", stage.Ready)
	w.Admin.ReadyWhen("partitions", publisher.Pinned)
	w.Admin.Note("bus", watch.Note)
	w.Admin.Note("tensor store", stage.StoreNote)
	components := []worker.Component{component(stage, listener), {Name: "bus watch", Run: watch.Run}}
	if c.Raw {
		raw, err := c.openRaw(ctx, b, topics, stage, w)
		if err != nil {
			return errors.Join(err, listener.Close())
		}
		components = append(components, raw...)
	}
	return w.Run(ctx, components...)
}

func component(stage *ingest.Stage, listener net.Listener) worker.Component {
	return worker.Component{Name: "ingest", Run: func(ctx context.Context) error { return stage.Run(ctx, listener) }}
}
