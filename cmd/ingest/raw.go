package main

import (
	"context"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/bus/kafka"
	"github.com/morphogenetic/oona/internal/worker"
	"github.com/morphogenetic/oona/pipeline/ingest"
)

// rawGroup is how the raw topic is read. Frames that retention has deleted are
// counted by the stage, and no reason to refuse the others.
func (c *config) rawGroup() kafka.GroupOptions {
	return kafka.GroupOptions{Group: c.RawGroup, FromHere: true}
}

// openRaw returns what takes frames from the raw topic.
func (c *config) openRaw(topics oona.Topics, stage *ingest.Stage, w *worker.Worker) (worker.Component, error) {
	raw, err := ingest.NewRaw(stage, topics, w.Registry, w.Logger)
	if err != nil {
		return worker.Component{}, err
	}
	group, err := kafka.NewGroupSubscriber(c.Bus, c.rawGroup(), raw, w.Logger)
	if err != nil {
		return worker.Component{}, err
	}
	w.OnClose("raw topic's consumer group", group.Close)
	return worker.Component{Name: "raw", Run: func(ctx context.Context) error { return raw.Run(ctx, group) }}, nil
}
