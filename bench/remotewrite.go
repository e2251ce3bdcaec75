package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/bus"
	"github.com/morphogenetic/oona/pipeline/remotewrite"
)

var remoteWriteSpeed = figure{name: "remote_write_rollups", unit: "k rollups/s",
	about: "from the record of a rollup to a remote-write request that was accepted, by processor time and core"}

// acceptor is a receiver that accepts all requests.
type acceptor struct{ requests atomic.Int64 }

// RoundTrip implements http.RoundTripper.
func (a *acceptor) RoundTrip(r *http.Request) (*http.Response, error) {
	_, err := io.Copy(io.Discard, r.Body)
	a.requests.Add(1)
	return &http.Response{StatusCode: http.StatusNoContent, Body: http.NoBody}, err
}

// measureRemoteWrite sends these rollups of so many layers. The rollups are of one layer.
func (b *bench) measureRemoteWrite(ctx context.Context, rollups []*oona.Rollup, layers int) error {
	l, err := newRollupLog(ctx)
	if err != nil {
		return err
	}
	records, err := l.publish(ctx, rollups, layers)
	if err != nil {
		return err
	}
	var a acceptor
	registry := prometheus.NewRegistry()
	used, _, err := metered(func() error { return l.send(ctx, records, layers, &a, registry, b.logger) })
	if err != nil {
		return err
	}
	if err := sent(registry, int(a.requests.Load())); err != nil {
		return err
	}
	b.all.take(remoteWriteSpeed, float64(records)/used.Seconds()/1e3)
	return nil
}

// send sends the records of the log, until all are settled.
func (l *rollupLog) send(ctx context.Context, records, layers int, to http.RoundTripper, registry *prometheus.Registry, logger *slog.Logger) (err error) {
	stage, err := remotewrite.New(remotewrite.Config{
		Topics: l.topics, Prefix: oona.DefaultPrefix, URL: "http://receiver/api/v1/write", Transport: to,
		MaxRuns: 1, MaxLayers: layers, MaxTotalLayers: layers, MaxMetrics: metricsPerFrame, WorstSeeds: 5, SilentAfter: time.Hour,
	}, registry, logger)
	if err != nil {
		return err
	}
	health, err := l.bus.Member(bus.MemberOptions{Group: "bench"}, stage)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, health.Close()) }()
	performance, err := l.bus.Member(bus.MemberOptions{Group: "bench"}, stage)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, performance.Close()) }()
	ctx, stop := context.WithCancel(ctx)
	ended := make(chan error, 1)
	go func() { ended <- stage.Run(ctx, [2]bus.Member{health, performance}) }()
	defer func() {
		stop()
		err = errors.Join(err, <-ended)
	}()
	for {
		switch settled, err := total(registry, "oona_exporter_remote_write_next_offset"); {
		case err != nil:
			return err
		case int(settled) == records:
			return nil
		}
		select {
		case <-time.After(20 * time.Millisecond):
		case err := <-ended:
			ended <- err
			return errors.New("sending has ended before everything was sent")
		}
	}
}

// sent checks that nothing was left out of the requests.
func sent(registry prometheus.Gatherer, requests int) error {
	samples, err := total(registry, "oona_exporter_remote_write_samples_total")
	if err != nil {
		return err
	}
	beyond, err := total(registry, "oona_exporter_remote_write_beyond_total")
	if err == nil && (samples == 0 || requests == 0 || beyond > 0) {
		err = fmt.Errorf("%.0f samples were sent in %d requests, and %.0f rollups or metrics were not sent", samples, requests, beyond)
	}
	return err
}

// total returns the sum of the series of a counter or gauge.
func total(from prometheus.Gatherer, name string) (sum float64, err error) {
	families, err := from.Gather()
	for _, f := range families {
		if f.GetName() != name {
			continue
		}
		for _, m := range f.Metric {
			sum += m.GetCounter().GetValue() + m.GetGauge().GetValue()
		}
	}
	return sum, err
}
