package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/internal/bus"
	"github.com/morphogenetic/oona/pipeline/ingest"
	"github.com/morphogenetic/oona/schemas/avro"
)

var (
	latencyMiddle = figure{name: "post_to_readable_p50_ms", unit: "ms",
		about: "from the moment a frame is due to be sent over HTTP to a reader of the topic having it, 10,000 a second"}
	latencyTail = figure{name: "post_to_readable_p99_ms", unit: "ms", goal: 5, below: true, about: "likewise"}
)

// The load of the latency's measure: one frame a request, open loop: a request
// that is late counts from when it was due.
type volley struct {
	rate   int // frames a second
	frames int
	warmUp int // of these frames, not counted
}

var tenThousand = volley{rate: 10_000, frames: 40_000, warmUp: 10_000}

const (
	latencySeeds   = 32
	latencyClients = 64
)

func (w *wire) measureLatency(ctx context.Context, v volley, into *figures) (err error) {
	topics, err := w.topics(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, w.forget(topics)) }()
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	publisher, err := bus.NewPublisher(w.bus, bus.PublisherOptions{})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, publisher.Close()) }()
	cfg := ingest.DefaultConfig()
	cfg.Topic, cfg.Instance, cfg.MaxInFlight = topics.SeedMetrics, "bench", 4*latencyClients
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
	defer func() {
		stop()
		err = errors.Join(err, <-served)
	}()
	delays, err := w.fly(ctx, v, topics.SeedMetrics, "http://"+listener.Addr().String()+"/v1/frames")
	if err != nil {
		return err
	}
	slices.Sort(delays)
	into.take(w.named(latencyMiddle), milliseconds(delays[len(delays)/2]))
	into.take(w.named(latencyTail), milliseconds(delays[len(delays)*99/100]))
	return nil
}

func milliseconds(d time.Duration) float64 { return d.Seconds() * 1e3 }

// fly posts frames at their times and returns how long each took to come out of
// the topic.
func (w *wire) fly(ctx context.Context, v volley, topic, url string) ([]time.Duration, error) {
	reader, err := bus.NewLogReader(w.bus, bus.LogReaderOptions{}, w.logger)
	if err != nil {
		return nil, err
	}
	messages, err := reader.Subscribe(ctx, topic)
	if err != nil {
		return nil, errors.Join(err, reader.Close())
	}
	began := time.Now().Add(50 * time.Millisecond)
	arrived := make([]time.Duration, v.frames) // since began, by sequence
	read := make(chan error, 1)
	go func() { read <- note(messages, began, arrived) }()
	err = v.post(ctx, url, began)
	if err != nil {
		return nil, errors.Join(err, reader.Close(), <-read) // closing ends the messages
	}
	if err := errors.Join(<-read, reader.Close()); err != nil {
		return nil, err
	}
	var delays []time.Duration
	for n := v.warmUp; n < v.frames; n++ {
		delays = append(delays, arrived[n]-v.due(n))
	}
	return delays, nil
}

// note reads the frames and writes down when each came.
func note(messages <-chan *message.Message, began time.Time, arrived []time.Duration) error {
	var decoder avro.FrameDecoder
	var f oona.Frame
	for n := range arrived {
		msg, ok := <-messages
		if !ok {
			return fmt.Errorf("%d frames of %d came out of the topic", n, len(arrived))
		}
		now := time.Since(began)
		if _, err := decoder.Decode(msg.Payload, &f); err != nil {
			return err
		}
		arrived[f.Sequence] = now
		msg.Ack()
	}
	return nil
}

// due is when a frame is to be sent, after the beginning.
func (v volley) due(n int) time.Duration {
	return time.Duration(n) * time.Second / time.Duration(v.rate)
}

// post sends the frames.
func (v volley) post(ctx context.Context, url string, began time.Time) error {
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: latencyClients}}
	defer client.CloseIdleConnections()
	template := smallFrame()
	var next atomic.Int64
	var clients sync.WaitGroup
	failed := make(chan error, latencyClients)
	for range latencyClients {
		clients.Go(func() {
			f := template
			var body []byte
			for {
				n := int(next.Add(1) - 1)
				if n >= v.frames {
					return
				}
				f.Sequence = int64(n)
				body = avro.AppendFrame(body[:0], &f)
				time.Sleep(time.Until(began.Add(v.due(n))))
				if err := post(ctx, client, url, body); err != nil {
					failed <- err
					return
				}
			}
		})
	}
	clients.Wait()
	close(failed)
	return <-failed
}

func post(ctx context.Context, client *http.Client, url string, body []byte) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(body))
	if err != nil {
		return err
	}
	request.Header.Set("Content-Type", "application/avro")
	answer, err := client.Do(request)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if err != nil {
		return err
	}
	if answer.StatusCode != http.StatusOK {
		return fmt.Errorf("ingest answered %s: %s", answer.Status, text)
	}
	return nil
}

// smallFrame is of 32 seeds by 8 metrics, about 1.2 kB.
func smallFrame() oona.Frame {
	c := newCorpus(1, 1, 0)
	f := c.frame("bench", oona.MicrosOf(time.Now()), 0, 0)
	f.Seeds, f.States = f.Seeds[:latencySeeds], f.States[:latencySeeds]
	for i, column := range f.Metrics {
		f.Metrics[i].Values = column.Values[:latencySeeds]
	}
	return f
}
