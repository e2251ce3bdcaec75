package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/bus"
	"github.com/morphogenetic/oona/bus/memory"
	"github.com/morphogenetic/oona/internal/catalogue"
	"github.com/morphogenetic/oona/internal/worker"
	"github.com/morphogenetic/oona/pipeline/export"
)

var scrapeTime = figure{name: "scrape_layers", unit: "ms",
	about: "processor time of a scrape of 1,024 layers with verdicts, as protobuf"}

// scrapedLayers is the number of layers that an exporter shows, and scrapes the number of
// scrapes.
const scrapedLayers, scrapes = 1024, 4

// protobuf is what a Prometheus accepts that scrapes native histograms.
const protobuf = "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited"

// exporter is the stage of cmd/exporter, with what it shows.
type exporter struct {
	reader bus.Reader
	parts  parts
	stop   context.CancelFunc
	ended  chan error
}

// parts are registries of one collector each, as in a worker.
type parts struct {
	prometheus.Registerer // nil: the stage calls only Register
	all                   []prometheus.Gatherer
}

// Register implements prometheus.Registerer.
func (p *parts) Register(c prometheus.Collector) error {
	registry := prometheus.NewRegistry()
	p.all = append(p.all, worker.WithPrefix(registry, oona.DefaultPrefix))
	return registry.Register(c)
}

// startExporter starts an exporter of an empty log. What is published afterwards counts in
// its sums.
func startExporter(ctx context.Context, l *rollupLog, layers int, logger *slog.Logger) (*exporter, error) {
	known, err := catalogue.Default()
	if err != nil {
		return nil, err
	}
	reader, err := l.bus.Reader(bus.ReaderOptions{})
	if err != nil {
		return nil, err
	}
	cfg := export.DefaultConfig()
	cfg.Topics, cfg.MaxLayers, cfg.MaxTotalLayers = l.topics, layers, layers
	e := &exporter{reader: reader, ended: make(chan error, 1)}
	stage, err := export.New(cfg, reader, known, &e.parts, logger)
	if err != nil {
		return nil, errors.Join(err, reader.Close())
	}
	ctx, e.stop = context.WithCancel(ctx)
	go func() { e.ended <- stage.Run(ctx) }()
	for stage.Ready() != nil {
		select {
		case <-time.After(time.Millisecond):
		case err := <-e.ended:
			e.ended <- err
			return nil, errors.Join(errors.New("the exporter has ended before it was ready"), e.close())
		}
	}
	return e, nil
}

// close stops the exporter and waits for its end.
func (e *exporter) close() error {
	e.stop()
	return errors.Join(<-e.ended, e.reader.Close())
}

// shows returns how many series of a name the exporter has.
func (e *exporter) shows(name string) (series int, err error) {
	for _, part := range e.parts.all {
		families, err := part.Gather()
		if err != nil {
			return 0, err
		}
		for _, f := range families {
			if f.GetName() == name {
				series += len(f.Metric)
			}
		}
	}
	return series, nil
}

// answer counts what a handler answers.
type answer struct {
	header        http.Header
	status, bytes int
}

func (a *answer) Header() http.Header    { return a.header }
func (a *answer) WriteHeader(status int) { a.status = status }
func (a *answer) Write(p []byte) (int, error) {
	a.bytes += len(p)
	return len(p), nil
}

// measureScrape scrapes an exporter that has read these rollups of so many layers. The
// rollups are of one layer.
func (b *bench) measureScrape(ctx context.Context, rollups []*oona.Rollup, layers int) (err error) {
	l, err := newRollupLog(ctx)
	if err != nil {
		return err
	}
	e, err := startExporter(ctx, l, layers, b.logger)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, e.close()) }()
	if _, err := l.publish(ctx, rollups, layers); err != nil {
		return err
	}
	if err := e.reader.(*memory.Reader).CaughtUp(ctx); err != nil {
		return fmt.Errorf("the exporter does not read all rollups: %w", err)
	}
	switch n, err := e.shows("kasmina_layer_verdict"); {
	case err != nil:
		return err
	case n != layers:
		return fmt.Errorf("the exporter shows verdicts on %d layers, want %d", n, layers)
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "/metrics", http.NoBody)
	if err != nil {
		return err
	}
	request.Header.Set("Accept", protobuf)
	handler := worker.MetricsHandler(b.logger, e.parts.all...)
	used, _, err := metered(func() error {
		for range scrapes {
			a := answer{header: make(http.Header), status: http.StatusOK}
			if handler.ServeHTTP(&a, request); a.status != http.StatusOK || a.bytes == 0 {
				return fmt.Errorf("the answer to a scrape has status %d and %d bytes", a.status, a.bytes)
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	b.all.take(scrapeTime, float64(used.Microseconds())/1e3/scrapes)
	return nil
}
