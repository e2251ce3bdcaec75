package tracing

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/otel/attribute"
	sdk "go.opentelemetry.io/otel/sdk/trace"

	"github.com/morphogenetic/oona/internal/secret"
)

const (
	queueLength = 4096 // spans that wait
	batchLength = 512  // spans that are sent together
	// linger is how long a span waits for others, and the time that a span may need from
	// its end to the collector.
	linger = time.Second
	// warnEvery is the least time between two log lines about spans that were dropped.
	warnEvery = 10 * time.Second
)

// Attribute is an attribute of a span or a link.
type Attribute = attribute.KeyValue

// Tracer sends spans. A nil *Tracer is off: it records nothing. It is safe for concurrent
// use.
type Tracer struct {
	Sampler Sampler

	exporter sdk.SpanExporter
	maker    *maker
	logger   *slog.Logger
	queue    chan Span
	done     chan struct{} // closed by Close
	ended    chan struct{} // closed when run has ended
	once     sync.Once
	abort    context.CancelFunc // ends the export that is running
	counts   counts
	drops    drops
}

// counts are the metrics of a tracer.
type counts struct {
	sent    prometheus.Counter
	dropped *prometheus.CounterVec
}

// Why spans were dropped.
const (
	droppedQueue  = "queue"
	droppedExport = "export"
)

func newCounts() counts {
	c := counts{
		sent: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "oona_trace_spans_total",
			Help: "Spans that the collector has accepted.",
		}),
		dropped: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "oona_trace_spans_dropped_total",
			Help: "Spans that were dropped because too many waited (queue), or because the collector did not accept them (export).",
		}, []string{"reason"}),
	}
	c.dropped.WithLabelValues(droppedQueue)
	c.dropped.WithLabelValues(droppedExport)
	return c
}

// Process says which process the spans are of.
type Process struct {
	Name     string // of the worker
	Instance string // may be empty
	Version  string
	Prefix   string // of the topics
}

// Open returns a tracer that sends spans as the flags say, or nil if they say none. The
// caller closes it.
func Open(f Flags, process Process, files *secret.Files, registerer prometheus.Registerer, logger *slog.Logger) (*Tracer, error) {
	if !f.On() {
		return nil, nil
	}
	exporter, err := f.openExporter(context.Background(), files)
	if err != nil {
		return nil, fmt.Errorf("open the exporter of traces: %w", err)
	}
	t := New(exporter, NewSampler(f.SampleRatio), process, logger)
	for _, c := range []prometheus.Collector{t.counts.sent, t.counts.dropped} {
		if err := registerer.Register(c); err != nil {
			return nil, fmt.Errorf("register metrics of traces: %w", err)
		}
	}
	logger.Info("traces are sent", "exporter", f.Exporter, "endpoint", f.Endpoint, "sample_ratio", f.SampleRatio)
	return t, nil
}

// New returns a tracer that sends spans with an exporter. The caller closes it.
func New(exporter sdk.SpanExporter, sampler Sampler, process Process, logger *slog.Logger) *Tracer {
	t := &Tracer{
		Sampler:  sampler,
		exporter: exporter,
		maker:    newMaker(process),
		logger:   logger,
		queue:    make(chan Span, queueLength),
		done:     make(chan struct{}),
		ended:    make(chan struct{}),
		counts:   newCounts(),
	}
	var ctx context.Context
	ctx, t.abort = context.WithCancel(context.Background())
	go t.run(ctx)
	return t
}

// Record sends a span that has ended. A span that is not sampled is sent only if it ended
// in an error. It never waits: if too many spans wait, it drops the span and counts it.
func (t *Tracer) Record(s Span) {
	if t == nil || !s.Context.Sampled && s.Error == "" {
		return
	}
	select {
	case t.queue <- s:
	default:
		t.drop(droppedQueue, 1, errFull)
	}
}

var errFull = errors.New("too many spans wait to be sent")

// drops is what the next log line about dropped spans will say.
type drops struct {
	mu    sync.Mutex
	spans int
	said  time.Time
}

// longestError is how much of an error a log line has, as a collector's answer is in it.
const longestError = 500

// drop counts spans that were dropped, and logs them at most once in warnEvery.
func (t *Tracer) drop(reason string, spans int, err error) {
	t.counts.dropped.WithLabelValues(reason).Add(float64(spans))
	d := &t.drops
	d.mu.Lock()
	defer d.mu.Unlock()
	d.spans += spans
	if now := time.Now(); now.Sub(d.said) >= warnEvery {
		t.logger.Warn("spans were dropped; the work that they describe is not affected", "reason", reason, "spans", d.spans, "err", fmt.Sprintf("%.*s", longestError, err.Error()))
		d.spans, d.said = 0, now
	}
}

// run sends what is in the queue until Close, and then what is left.
func (t *Tracer) run(ctx context.Context) {
	defer close(t.ended)
	defer t.abort()
	batch := make([]Span, 0, batchLength)
	ticks := time.NewTicker(linger)
	defer ticks.Stop()
	closing := false
	for {
		select {
		case s := <-t.queue:
			batch = append(batch, s)
			if len(batch) < batchLength {
				continue
			}
		case <-ticks.C:
		case <-t.done:
			closing = true
			batch = t.rest(batch)
		}
		t.send(ctx, batch)
		clear(batch)
		batch = batch[:0]
		if closing && len(t.queue) == 0 {
			break
		}
	}
	if err := t.exporter.Shutdown(ctx); err != nil && ctx.Err() == nil {
		t.logger.Warn("the exporter of traces did not end in order", "err", err)
	}
}

// rest appends what is in the queue, up to a batch.
func (t *Tracer) rest(batch []Span) []Span {
	for len(batch) < batchLength {
		select {
		case s := <-t.queue:
			batch = append(batch, s)
		default:
			return batch
		}
	}
	return batch
}

// send sends a batch. What the collector does not accept in time is dropped.
func (t *Tracer) send(ctx context.Context, batch []Span) {
	if len(batch) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, exportTimeout)
	defer cancel()
	if err := t.exporter.ExportSpans(ctx, t.maker.make(batch)); err != nil {
		t.drop(droppedExport, len(batch), err)
		return
	}
	t.counts.sent.Add(float64(len(batch)))
}

// Close sends the spans that wait, for at most the given time, and ends the tracer. Spans
// that are recorded later are lost. It returns no error if the collector does not answer, because
// the worker has done its own work.
func (t *Tracer) Close(within time.Duration) error {
	if t == nil {
		return nil
	}
	t.once.Do(func() { close(t.done) })
	defer time.AfterFunc(within, t.abort).Stop()
	<-t.ended
	return nil
}
