package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/morphogenetic/oona"
)

var (
	sustainedSpeed = figure{name: "sustained_msamples", unit: "M samples/s", goal: 24,
		about: "the same, while another process publishes them"}
	sparseSustainedSpeed = figure{name: "sparse_sustained_msamples", unit: "M samples/s",
		about: "the same for frames whose seeds mostly have no measurement"}
)

// publishFlag makes this program the other process: it publishes a corpus to a topic and
// ends.
const publishFlag = "--publish-to"

// measureSustained drains a topic while another process fills it.
func (w *wire) measureSustained(ctx context.Context, c *corpus, f figure, into *figures) error {
	return w.onTopics(ctx, func(ctx context.Context, topics oona.Topics) error {
		publisher, err := w.begin(ctx, publishFlag, topics.SeedMetrics,
			"--layers", strconv.Itoa(len(c.layers)), "--steps", strconv.Itoa(c.steps), "--unmeasured", fmt.Sprint(c.unmeasured))
		if err != nil {
			return err
		}
		drained, err := w.drain(ctx, topics, c, publisher.proceed)
		if err = errors.Join(err, publisher.end()); err != nil {
			return err
		}
		into.take(w.named(f), float64(c.records())*samplesPerFrame/drained.Seconds()/1e6)
		return nil
	})
}

// publishWhenTold publishes the corpus in the other process.
func (w *wire) publishWhenTold(ctx context.Context, topic string, c *corpus) error {
	const run = oona.RunID("bench")
	c.encode(run, windowStart(time.Now()))
	if err := await("ready"); err != nil {
		return fmt.Errorf("nothing is published: %w", err)
	}
	return w.publish(ctx, topic, c, run)
}
