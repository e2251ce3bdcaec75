package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/bus"
	"github.com/morphogenetic/oona/bus/memory"
	"github.com/morphogenetic/oona/internal/catalogue"
	"github.com/morphogenetic/oona/pipeline/layerseries"
	"github.com/morphogenetic/oona/schemas/avro"
	"github.com/morphogenetic/oona/windows"
)

// shownWindows is the number of windows of each layer that an exporter gets. The verdict
// begins with the ninth.
const shownWindows = 10

// layerWindows returns the rollups of both groups of that many windows of a layer, with the
// frames of a corpus.
func layerWindows(n int) (rollups []*oona.Rollup, err error) {
	known, err := catalogue.Default()
	if err != nil {
		return nil, err
	}
	cfg := windows.DefaultConfig()
	cfg.Reducer = windows.Reducer
	engine, err := windows.New(cfg, windows.Always(known.Metric))
	if err != nil {
		return nil, err
	}
	c, start := newCorpus(1, 10*(n+2), 0), windowStart(time.Now())
	for step := range c.steps {
		f := c.frame("bench", start, step, 0)
		out := engine.Fold(windows.Record{
			Offset: int64(step), AppendedAt: f.ObservedAt, Path: "bench", Frame: &f, Checksum: uint64(step),
		}, func(r *oona.Rollup) {
			kept, failed := layerseries.Decode(r.Group, avro.AppendRollup(nil, r)) // r is valid only now
			rollups, err = append(rollups, kept), errors.Join(err, failed)
		})
		if out.Verdict != windows.Folded {
			return nil, fmt.Errorf("frame %d is %s: %s", step, out.Verdict, out.Detail)
		}
	}
	if err == nil && len(rollups) < 2*n {
		err = fmt.Errorf("%d rollups were made, want %d", len(rollups), 2*n)
	}
	if err != nil {
		return nil, err
	}
	return rollups[:2*n], nil
}

// rollupLog has both rollup topics, with a partition each, in memory.
type rollupLog struct {
	bus    *memory.Bus
	topics oona.Topics
}

func newRollupLog(ctx context.Context) (*rollupLog, error) {
	topics, err := oona.NewTopics(oona.DefaultPrefix)
	if err != nil {
		return nil, err
	}
	l := &rollupLog{memory.New(), topics}
	_, err = l.bus.Apply(ctx, []oona.TopicSpec{{Name: topics.LayerHealth, Partitions: 1}, {Name: topics.LayerPerformance, Partitions: 1}})
	return l, err
}

// publish publishes the rollups for each of so many layers, as if the last window had just
// ended. It returns how many records that are.
func (l *rollupLog) publish(ctx context.Context, rollups []*oona.Rollup, layers int) (records int, err error) {
	publisher, err := l.bus.Publisher(bus.PublisherOptions{})
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, publisher.Close()) }()
	names, later := layerNames(layers), oona.MicrosOf(time.Now())-rollups[len(rollups)-1].End
	for i, window := range rollups {
		r := *window
		r.Start, r.End = r.Start+later, r.End+later
		for k, layer := range names {
			r.Layer, r.Trigger = layer, oona.Trigger{Offset: int64(i), Index: int32(k)}
			r.Hash = r.ContentHash()
			message := bus.NewMessage(avro.AppendRollup(nil, &r), bus.Target{Directed: true})
			if err := publisher.Publish(ctx, l.topics.Rollup(r.Group), message); err != nil {
				return 0, err
			}
			records++
		}
	}
	return records, nil
}
