package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"runtime"
	"slices"
	"sync/atomic"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/bus"
	"github.com/morphogenetic/oona/bus/kafka"
	"github.com/morphogenetic/oona/internal/access"
	"github.com/morphogenetic/oona/internal/secret"
	"github.com/morphogenetic/oona/pipeline/ingest"
	"github.com/morphogenetic/oona/schemas/avro"
)

var (
	latencyMiddle = figure{name: "post_to_readable_p50_ms", unit: "ms",
		about: "time from when a frame is due until a reader of the topic has it; 1,000 requests per second of 10 frames"}
	latencyTail  = figure{name: "post_to_readable_p99_ms", unit: "ms", goal: 5, below: true, about: "the same, 99th percentile"}
	latencyLate  = figure{name: "post_begun_late_p99_ms", unit: "ms", about: "part of it: time from when a frame is due until its request begins, for which the machine was too busy"}
	singlyMiddle = figure{name: "post_singly_to_readable_p50_ms", unit: "ms", about: "as post_to_readable, with 10,000 requests per second of one frame"}
	singlyTail   = figure{name: "post_singly_to_readable_p99_ms", unit: "ms", about: "the same, 99th percentile"}
	singlyLate   = figure{name: "post_singly_begun_late_p99_ms", unit: "ms", about: "part of it, as post_begun_late"}
)

// volley is the load of a latency measurement. The loop is open: latency counts from when a
// request is due, even if it begins later.
type volley struct {
	rate    int // frames per second
	request int // frames per request
	frames  int // in all, a multiple of request
	warmUp  int // the number of first frames that are not counted

	middle, tail, late figure
}

// The loads: a trainer of ten layers that sends the frames of a step in one request, and
// one that sends each frame in its own request.
var (
	tenThousand       = volley{10_000, 10, 40_000, 10_000, latencyMiddle, latencyTail, latencyLate}
	tenThousandSingly = volley{10_000, 1, 40_000, 10_000, singlyMiddle, singlyTail, singlyLate}
)

const (
	latencySeeds = 32
	// latencyClients is so large that a client is free when a frame is due, unless
	// an answer takes longer than 25 ms.
	latencyClients = 256
)

// ingestFlag makes this program the ingest of the measurement: it accepts frames for a
// topic until its stdin is closed.
const ingestFlag = "--ingest-to"

func (w *wire) measureLatency(ctx context.Context, v volley, into *figures) error {
	return w.onTopics(ctx, func(ctx context.Context, topics oona.Topics) error {
		times, err := w.flyThroughIngest(ctx, v, topics.SeedMetrics)
		if err != nil {
			return err
		}
		var delays, lates []time.Duration
		for n := v.warmUp; n < v.frames; n++ {
			delays = append(delays, times.arrived[n]-v.due(n))
			lates = append(lates, times.begun[n/v.request]-v.due(n))
		}
		into.take(w.named(v.middle), percentile(delays, 50))
		into.take(w.named(v.tail), percentile(delays, 99))
		into.take(w.named(v.late), percentile(lates, 99))
		return nil
	})
}

// flyThroughIngest sends a volley to an ingest in another process, which gets more flags.
func (w *wire) flyThroughIngest(ctx context.Context, v volley, topic string, flags ...string) (*times, error) {
	server, err := w.begin(ctx, ingestFlag, topic, flags...)
	if err != nil {
		return nil, err
	}
	// The frames of other measurements make the heap large, and marking it would
	// affect this measurement.
	runtime.GC()
	times, err := w.fly(ctx, v, topic, server.said)
	return times, errors.Join(err, server.end())
}

// percentile returns a percentile in milliseconds.
func percentile(of []time.Duration, percent int) float64 {
	slices.Sort(of)
	return of[len(of)*percent/100].Seconds() * 1e3
}

// ingestUntilTold runs the ingest in the other process.
func (w *wire) ingestUntilTold(ctx context.Context, topic, spoolDirectory, accessFile string) (err error) {
	publisher, err := kafka.New(w.bus, w.logger).Publisher(bus.PublisherOptions{})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, publisher.Close()) }()
	cfg := ingest.DefaultConfig()
	cfg.Topic, cfg.Instance = topic, "bench"
	if accessFile == "" {
		cfg.MaxInFlight = 2 * latencyClients
	} else if cfg.Access, err = access.Open(secret.NewFiles(w.logger), "--ingest-access", accessFile); err != nil {
		return err
	}
	if cfg.Spool.Directory = spoolDirectory; spoolDirectory != "" {
		if cfg.Spool.Open, err = cfg.OpenSpool(w.logger); err != nil {
			return err
		}
		defer func() { err = errors.Join(err, cfg.Spool.Open.Close()) }()
	}
	stage, err := ingest.New(cfg, publisher, prometheus.NewRegistry(), w.logger)
	if err != nil {
		return err
	}
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	serving, stop := context.WithCancel(ctx)
	served := make(chan error, 1)
	go func() { served <- stage.Run(serving, listener) }()
	if err = await(listener.Addr().String()); errors.Is(err, io.EOF) {
		err = nil
	}
	stop()
	return errors.Join(err, <-served)
}

// times are relative to the start of the volley. They are zero for events that have not
// happened.
type times struct {
	begun   []time.Duration // by request
	arrived []time.Duration // by frame
	others  int             // frames of a spool that arrived meanwhile, after the warm-up
}

// fly posts frames at their times, and records when the reader of the topic gets them.
func (w *wire) fly(ctx context.Context, v volley, topic, address string) (*times, error) {
	reader, err := kafka.New(w.bus, w.logger).Reader(bus.ReaderOptions{})
	if err != nil {
		return nil, err
	}
	messages, err := reader.Subscribe(ctx, topic)
	if err != nil {
		return nil, errors.Join(err, reader.Close())
	}
	began := time.Now().Add(50 * time.Millisecond)
	t := &times{begun: make([]time.Duration, v.frames/v.request), arrived: make([]time.Duration, v.frames)}
	read := make(chan error, 1)
	go func() { read <- t.note(messages, began, v.warmUp) }()
	err = v.post(ctx, address, began, t.begun)
	if err != nil {
		return nil, errors.Join(err, reader.Close(), <-read) // closing ends the messages
	}
	return t, errors.Join(<-read, reader.Close())
}

// note reads the frames and records when each arrived.
func (t *times) note(messages <-chan *message.Message, began time.Time, warmUp int) error {
	var decoder avro.FrameDecoder
	var f oona.Frame
	arrived := t.arrived
	for n := 0; n < len(arrived); {
		msg, ok := <-messages
		if !ok {
			return fmt.Errorf("the reader got %d of %d frames", n, len(arrived))
		}
		now := time.Since(began)
		if _, err := decoder.Decode(msg.Payload, &f); err != nil {
			return err
		}
		if f.Run == spooledRun {
			if n >= warmUp {
				t.others++
			}
			msg.Ack()
			continue
		}
		if arrived[f.Sequence] != 0 {
			return fmt.Errorf("the reader got frame %d twice", f.Sequence)
		}
		arrived[f.Sequence] = now
		n++
		msg.Ack()
	}
	return nil
}

// due returns when to send a frame, relative to the start.
func (v volley) due(n int) time.Duration {
	return time.Duration(n-n%v.request) * time.Second / time.Duration(v.rate)
}

// post sends the frames.
func (v volley) post(ctx context.Context, address string, began time.Time, begun []time.Duration) error {
	template := smallFrame()
	var next atomic.Int64
	clients, ctx := errgroup.WithContext(ctx)
	for range latencyClients {
		clients.Go(func() error {
			client, err := dial(ctx, address)
			if err != nil {
				return err
			}
			defer client.Close()
			f := template
			for ctx.Err() == nil {
				n := int(next.Add(int64(v.request))) - v.request
				if n >= v.frames {
					return nil
				}
				client.body = client.body[:0]
				for i := range v.request {
					f.Sequence = int64(n + i)
					client.body = avro.AppendFrame(client.body, &f)
				}
				time.Sleep(time.Until(began.Add(v.due(n))))
				begun[n/v.request] = time.Since(began)
				if err := client.post(); err != nil {
					return fmt.Errorf("post frame %d: %w", n, err)
				}
			}
			return ctx.Err()
		})
	}
	return clients.Wait()
}

// client is a connection to ingest. The client of net/http would take more processor time
// than ingest.
type client struct {
	net.Conn
	answers *bufio.Reader
	token   string // "": it has none
	index   int    // among the clients of its kind
	body    []byte
	request []byte
}

// answerError is an answer other than 200.
type answerError struct {
	status string
	text   []byte
	closes bool // the connection takes no further request
}

func (e *answerError) Error() string { return fmt.Sprintf("ingest answered %s: %s", e.status, e.text) }

// header begins a request with frames. more is the end of its header.
func (c *client) header(into []byte, more string, args ...any) []byte {
	into = append(into, "POST /v1/frames HTTP/1.1\r\nHost: bench\r\nContent-Type: application/avro\r\n"...)
	if c.token != "" {
		into = fmt.Appendf(into, "Authorization: Bearer %s\r\n", c.token)
	}
	return fmt.Appendf(into, more, args...)
}

func dial(ctx context.Context, address string) (*client, error) {
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	if deadline, ok := ctx.Deadline(); ok {
		if err := conn.SetDeadline(deadline); err != nil {
			return nil, errors.Join(err, conn.Close())
		}
	}
	return &client{Conn: conn, answers: bufio.NewReader(conn)}, nil
}

// post sends the body and waits for the answer.
func (c *client) post() error {
	c.request = c.header(c.request[:0], "Content-Length: %d\r\n\r\n", len(c.body))
	c.request = append(c.request, c.body...)
	if _, err := c.Write(c.request); err != nil {
		return err
	}
	answer, err := http.ReadResponse(c.answers, nil)
	if err != nil {
		return err
	}
	text, err := io.ReadAll(answer.Body)
	if err = errors.Join(err, answer.Body.Close()); err != nil {
		return err
	}
	if answer.StatusCode != http.StatusOK {
		return &answerError{answer.Status, text, answer.Close}
	}
	return nil
}

// smallFrame returns a frame of 32 seeds by 8 metrics, about 1.2 kB.
func smallFrame() oona.Frame {
	c := newCorpus(1, 1, 0)
	f := c.frame("bench", oona.MicrosOf(time.Now()), 0, 0)
	f.Seeds, f.States = f.Seeds[:latencySeeds], f.States[:latencySeeds]
	for i, column := range f.Metrics {
		f.Metrics[i].Values = column.Values[:latencySeeds]
	}
	return f
}
