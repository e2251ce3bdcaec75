package main

import (
	"context"
	"fmt"
	"path/filepath"
	"sync"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/morphogenetic/oona/bus"
	"github.com/morphogenetic/oona/replay"
)

// watching shows the progress of reading, and ends it before the disk is full.
type watching struct {
	planned map[place]bus.Range

	mu       sync.Mutex // partitions may be read at the same time
	progress *progress
	space    *space // nil: nothing is written to a disk
	before   int    // records that were read before the ranges
}

// place is a partition of a topic.
type place struct {
	topic     string
	partition int32
}

// watchedLog is a log that is watched.
type watchedLog struct {
	replay.Log
	*watching
}

// watchedArchive is an archive that is watched.
type watchedArchive struct {
	replay.Kept
	*watching
}

// Read reads a range.
func (l watchedLog) Read(ctx context.Context, topic string, r bus.Range, take func(*message.Message) error) error {
	return l.Log.Read(ctx, topic, r, l.take(topic, r.Partition, take))
}

// Read reads a range.
func (l watchedArchive) Read(ctx context.Context, topic string, r bus.Range, take func(*message.Message) error) error {
	return l.Kept.Read(ctx, topic, r, l.take(topic, r.Partition, take))
}

// take returns a function that also counts the records.
func (w *watching) take(topic string, partition int32, take func(*message.Message) error) func(*message.Message) error {
	r := w.planned[place{topic, partition}]
	return func(msg *message.Message) error {
		at, err := bus.PositionOf(msg)
		if err != nil {
			return err
		}
		if err := w.record(at.Offset >= r.From); err != nil {
			return err
		}
		return take(msg)
	}
}

// record counts a record, of a range or from before it.
func (w *watching) record(asked bool) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if asked {
		w.progress.record()
	} else {
		w.before++
		w.progress.what = fmt.Sprintf("records, after %d from before the range", w.before)
		w.progress.add(0)
	}
	return w.space.check()
}

// end removes what the progress shows.
func (w *watching) end() { w.progress.end() }

// watched returns the log with a progress on the terminal, and with a check of the disk. The
// caller ends the watching.
func (r *replayRun) watched(job *replaying, plan []planned) (replay.Log, *watching, error) {
	w := &watching{progress: newProgress(job.messages), planned: make(map[place]bus.Range)}
	if r.NoProgress || r.Lines && terminalSize(job.out) != nil {
		w.progress.to = nil
	}
	var total int64
	for i := range plan {
		p := &plan[i]
		w.planned[place{p.Topic, p.Partition}] = p.read()
		total += p.Records
	}
	w.progress.begin("records", total)
	dir := r.directory()
	if r.Out.OpenMetrics != "" {
		dir = filepath.Dir(r.Out.OpenMetrics)
	}
	if dir != "" {
		space, err := spaceOf(dir)
		if err == nil {
			err = space.now()
		}
		if err != nil {
			return nil, nil, err
		}
		w.space = space
	}
	if job.held != nil {
		return watchedArchive{job.held, w}, w, nil
	}
	return watchedLog{job.log, w}, w, nil
}
