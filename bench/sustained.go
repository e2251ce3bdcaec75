package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"time"

	"github.com/morphogenetic/oona"
)

var (
	sustainedSpeed = figure{name: "sustained_msamples", unit: "M samples/s", goal: 24,
		about: "the same, while another process publishes them"}
	sparseSustainedSpeed = figure{name: "sparse_sustained_msamples", unit: "M samples/s",
		about: "likewise, of frames most of whose seeds measure nothing"}
)

// The flag under which this program is the other process: it publishes a
// corpus to a topic and ends.
const publishFlag = "--publish-to"

// measureSustained drains a topic that a process of its own fills meanwhile.
func (w *wire) measureSustained(ctx context.Context, c *corpus, f figure, into *figures) (err error) {
	topics, err := w.topics(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, w.forget(topics)) }()
	self, err := os.Executable()
	if err != nil {
		return fmt.Errorf("find this program: %w", err)
	}
	child := exec.CommandContext(ctx, self, publishFlag, topics.SeedMetrics, "--kafka", strings.Join(w.bus.Brokers, ","),
		"--layers", strconv.Itoa(len(c.layers)), "--steps", strconv.Itoa(c.steps), "--unmeasured", fmt.Sprint(c.unmeasured))
	child.Stderr = os.Stderr
	start, err := child.StdinPipe() // it prepares its frames and waits for this to close
	if err != nil {
		return err
	}
	ready, err := child.StdoutPipe()
	if err != nil {
		return err
	}
	if err := child.Start(); err != nil {
		return fmt.Errorf("start the publishing process: %w", err)
	}
	if _, err := ready.Read(make([]byte, 1)); err != nil {
		return errors.Join(fmt.Errorf("the publishing process did not begin: %w", err), child.Wait())
	}
	drained, err := w.drain(ctx, topics, c.records(), c.frames(), func() { _ = start.Close() })
	if err = errors.Join(err, child.Wait()); err != nil {
		return err
	}
	into.take(w.named(f), float64(c.records())*samplesPerFrame/drained.Seconds()/1e6)
	return nil
}

// publishWhenTold is the other process.
func (w *wire) publishWhenTold(ctx context.Context, topic string, c *corpus) error {
	const run = oona.RunID("bench")
	c.encode(run, windowStart(time.Now()))
	if _, err := os.Stdout.WriteString("!"); err != nil {
		return err
	}
	if _, err := os.Stdin.Read(make([]byte, 1)); err == nil {
		return errors.New("something came on stdin, which was to be closed")
	}
	return w.publish(ctx, topic, c, run)
}
