package main

import (
	"context"
	"time"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/internal/bus"
	"github.com/morphogenetic/oona/internal/worker"
	"github.com/morphogenetic/oona/pipeline/ingest"
)

// rawPatience is short: a record is tried again for as long as it takes by who
// publishes it, and tells of each time that failed.
const rawPatience = 3 * time.Second

func (c *config) rawPublisher(topics oona.Topics) bus.PublisherOptions {
	options := c.publisher(topics)
	// Records keep their order.
	options.Ordered, options.Patience = true, rawPatience
	// A dead letter is a record as it was, and why it is there. Frames are put
	// together only to what their own topic takes.
	options.BatchBytes, options.MaxMessageBytes = options.MaxMessageBytes, max(options.MaxMessageBytes, oona.MaxSideBytes)
	return options
}

// rawGroup is how the raw topic is read. Frames that retention has deleted are
// counted by the stage, and no reason to refuse the others.
func (c *config) rawGroup() bus.GroupOptions {
	return bus.GroupOptions{Group: c.RawGroup, FromHere: true}
}

// openRaw returns what takes frames from the raw topic.
func (c *config) openRaw(topics oona.Topics, stage *ingest.Stage, w *worker.Worker) (worker.Component, error) {
	publisher, err := bus.NewPublisher(c.Bus, c.rawPublisher(topics))
	if err != nil {
		return worker.Component{}, err
	}
	w.OnClose("publisher of the raw topic's frames", publisher.Close)
	raw, err := ingest.NewRaw(stage, topics, publisher, w.Registry, w.Logger)
	if err != nil {
		return worker.Component{}, err
	}
	group, err := bus.NewGroupSubscriber(c.Bus, c.rawGroup(), raw, w.Logger)
	if err != nil {
		return worker.Component{}, err
	}
	w.OnClose("raw topic's consumer group", group.Close)
	run := func(ctx context.Context) error {
		// A bus that is down must not keep the worker from ending: what was not
		// forwarded is not committed.
		stop := context.AfterFunc(ctx, func() { _ = publisher.Close() }) // its error comes again when the worker closes
		defer stop()
		return raw.Run(ctx, group)
	}
	return worker.Component{Name: "raw", Run: run}, nil
}
