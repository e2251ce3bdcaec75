package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/bus"
	"github.com/morphogenetic/oona/internal/watch"
	"github.com/morphogenetic/oona/replay"
	"github.com/morphogenetic/oona/replay/records"
)

// lines prints the records as JSON.
func (r *replayRun) lines(ctx context.Context, job *replaying, to streams) error {
	read, err := r.extract(ctx, job, &linesOutput{job.topics, to.out})
	if errors.Is(err, errInterrupted) {
		return errors.New("interrupted; the last line that was printed says its partition and offset")
	}
	if err != nil {
		return err
	}
	return read.nothing
}

// linesOutput is a replay.Output that prints records.
type linesOutput struct {
	topics oona.Topics
	out    io.Writer
}

func (o *linesOutput) Open(_ context.Context, topic string, r bus.Range) (replay.Writer, int64, error) {
	buffer := bufio.NewWriterSize(o.out, 1<<16)
	return &linesWriter{buffer, watch.NewLines(o.topics, topic, buffer)}, r.From, nil
}

type linesWriter struct {
	buffer *bufio.Writer
	lines  *watch.Lines
}

func (w *linesWriter) Write(r *records.Record) error {
	switch {
	case !r.Selected, r.Whole && r.Part > 0: // the whole body was printed already
		return nil
	case r.Whole:
		_, err := w.lines.Write(r.Body, r.Frame, r.Rollup)
		return err
	}
	_, err := w.lines.Write(r.Message, r.Frame, r.Rollup)
	return err
}

func (w *linesWriter) Close(int64) error {
	if err := w.buffer.Flush(); err != nil {
		return fmt.Errorf("print lines: %w", err)
	}
	return nil
}

func (w *linesWriter) Abort() error { return w.Close(0) }
