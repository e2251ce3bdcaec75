package main

import (
	"context"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/bus"
	"github.com/morphogenetic/oona/internal/buswatch"
	"github.com/morphogenetic/oona/internal/worker"
	"github.com/morphogenetic/oona/pipeline/ingest"
)

// rawReadAhead is about the size of the largest batch of a topic. A larger value would not
// be faster.
const rawReadAhead = 1 << 20

// rawGroup returns how ingest joins the group of the raw topic.
func (c *config) rawGroup() bus.MemberOptions {
	return bus.MemberOptions{Group: c.RawGroup, ReadAhead: rawReadAhead, ReadAheadAll: c.Ingest.RawReadAhead()}
}

// openRaw returns the components that read frames from the raw topic.
func (c *config) openRaw(ctx context.Context, b bus.Bus, topics oona.Topics, stage *ingest.Stage, w *worker.Worker) ([]worker.Component, error) {
	others := buswatch.Group{Bus: b, Flag: "--raw-group", Name: c.RawGroup, Topics: []string{topics.SeedRaw}, Logger: w.Logger}
	if err := others.Start(ctx); err != nil {
		return nil, err
	}
	raw, err := ingest.NewRaw(stage, topics, w.Registry, w.Logger)
	if err != nil {
		return nil, err
	}
	group, err := b.Member(c.rawGroup(), raw)
	if err != nil {
		return nil, err
	}
	w.OnClose("raw topic's consumer group", group.Close)
	return []worker.Component{
		{Name: "raw", Run: func(ctx context.Context) error { return raw.Run(ctx, group) }},
		{Name: "raw group watch", Run: others.Run},
	}, nil
}
