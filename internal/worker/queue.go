package worker

import (
	"context"
	"io"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

const (
	// queueBytes is the capacity of the queue.
	queueBytes = 4 << 20
	// errorBytes is the part of it that only errors use, so that they are dropped
	// last.
	errorBytes = 1 << 20
	// lineOverhead is the memory of a waiting line in addition to its text.
	lineOverhead = 64
	// flushTimeout is the time limit for writing the remaining lines at the exit.
	flushTimeout = time.Second
)

// logQueue is a queue between the loggers of a worker and its log, so that a logger
// does not wait for a slow reader of the log. One goroutine writes the lines. A line
// that does not fit into the queue, or that cannot be written, is dropped and counted.
type logQueue struct {
	out  io.Writer
	full atomic.Int64 // lines that did not fit
	lost atomic.Int64 // lines that could not be written

	mu      sync.Mutex
	lines   [][]byte
	size    int // of lines, and of the one that is being written
	closed  bool
	changed chan struct{} // has a token when lines or closed may have changed
	ended   chan struct{} // closed when the writer has ended

	note *slog.Logger // logs that lines were dropped; set before the first line
}

// newLogQueue returns a queue that writes to out until it is closed.
func newLogQueue(out io.Writer) *logQueue {
	q := &logQueue{out: out, changed: make(chan struct{}, 1), ended: make(chan struct{})}
	go q.write()
	return q
}

// logger returns a logger that writes to the queue. It must be called once.
func (q *logQueue) logger(cfg LogConfig) *slog.Logger {
	terminal := isTerminal(q.out)
	q.note = slog.New(newHandler(cfg, queueShare{q, queueBytes}, terminal))
	return slog.New(byLevel{
		others: newHandler(cfg, queueShare{q, queueBytes - errorBytes}, terminal),
		errors: q.note.Handler(),
	})
}

// close makes the queue refuse further lines, and waits for the others to be written,
// for at most flushTimeout.
func (q *logQueue) close() {
	q.mu.Lock()
	q.closed = true
	q.mu.Unlock()
	q.wake()
	timer := time.NewTimer(flushTimeout)
	defer timer.Stop()
	select {
	case <-q.ended:
	case <-timer.C: // the writer is blocked and abandoned
	}
}

func (q *logQueue) wake() {
	select {
	case q.changed <- struct{}{}:
	default:
	}
}

// add adds a line if the size of the queue stays within limit.
func (q *logQueue) add(line []byte, limit int) {
	q.mu.Lock()
	fits := !q.closed && q.size+len(line)+lineOverhead <= limit
	if fits {
		q.lines = append(q.lines, append([]byte(nil), line...))
		q.size += len(line) + lineOverhead
	}
	q.mu.Unlock()
	if !fits {
		q.full.Add(1)
		return
	}
	q.wake()
}

// write writes lines until the queue is closed and empty.
func (q *logQueue) write() {
	defer close(q.ended)
	told := int64(0)
	for {
		lines, closed := q.take()
		for _, line := range lines {
			if _, err := q.out.Write(line); err != nil {
				q.lost.Add(1)
			}
			q.release(len(line) + lineOverhead)
		}
		if len(lines) > 0 {
			told = q.tell(told)
			continue
		}
		if closed {
			return
		}
		<-q.changed
	}
}

// take removes and returns the waiting lines. The queue's size includes them until
// release.
func (q *logQueue) take() (lines [][]byte, closed bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	lines, q.lines = q.lines, nil
	return lines, q.closed
}

func (q *logQueue) release(size int) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.size -= size
}

// tell logs how many lines did not fit, beyond the number told, and returns the new
// number.
func (q *logQueue) tell(told int64) int64 {
	full := q.full.Load()
	if full > told {
		q.note.Warn("log lines were dropped, as the reader of the log was too slow", "lines", full-told)
	}
	return full
}

func (q *logQueue) collectors() []prometheus.Collector {
	counter := func(reason string, n *atomic.Int64) prometheus.Collector {
		return prometheus.NewCounterFunc(prometheus.CounterOpts{
			Name:        "oona_log_lines_dropped_total",
			Help:        "Log lines that were dropped because the queue was full (full), or because they could not be written (write).",
			ConstLabels: prometheus.Labels{"reason": reason},
		}, func() float64 { return float64(n.Load()) })
	}
	return []prometheus.Collector{counter("full", &q.full), counter("write", &q.lost)}
}

// queueShare is a writer of lines into the queue, up to a limit of its size.
type queueShare struct {
	queue *logQueue
	limit int
}

// Write adds a line to the queue. It neither fails nor waits.
func (s queueShare) Write(line []byte) (int, error) {
	s.queue.add(line, s.limit)
	return len(line), nil
}

// byLevel is a handler that passes errors to one handler and the rest to another.
type byLevel struct{ others, errors slog.Handler }

func (h byLevel) Enabled(ctx context.Context, level slog.Level) bool {
	return h.of(level).Enabled(ctx, level)
}

func (h byLevel) Handle(ctx context.Context, r slog.Record) error {
	return h.of(r.Level).Handle(ctx, r)
}

func (h byLevel) WithAttrs(attrs []slog.Attr) slog.Handler {
	return byLevel{h.others.WithAttrs(attrs), h.errors.WithAttrs(attrs)}
}

func (h byLevel) WithGroup(name string) slog.Handler {
	return byLevel{h.others.WithGroup(name), h.errors.WithGroup(name)}
}

func (h byLevel) of(level slog.Level) slog.Handler {
	if level >= slog.LevelError {
		return h.errors
	}
	return h.others
}
