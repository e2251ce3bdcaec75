package main

import (
	"log/slog"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/morphogenetic/oona/bus/kafka"
	"github.com/morphogenetic/oona/bus/kafka/embedded"
)

// BenchmarkRead is for profiles of read_msamples, and the others are for the figures with
// their names. With OONA_KAFKA they use real brokers, whose work is not in the profile, and
// otherwise the embedded one.
func BenchmarkRead(b *testing.B)    { benchWire(b, "read") }
func BenchmarkDrain(b *testing.B)   { benchWire(b, "drain") }
func BenchmarkLatency(b *testing.B) { benchWire(b, "latency") }
func BenchmarkSingly(b *testing.B)  { benchWire(b, "singly") }

func benchWire(b *testing.B, what string) {
	w := &wire{bus: kafka.Config{ClientID: "bench"}, logger: slog.New(slog.DiscardHandler)}
	if brokers := os.Getenv("OONA_KAFKA"); brokers != "" {
		w.bus.Brokers = strings.Split(brokers, ",")
	} else {
		broker, err := embedded.Start(b.Context(), embedded.Options{})
		if err != nil {
			b.Fatal(err)
		}
		defer broker.Close()
		w.bus.Brokers = broker.Addrs
	}
	topics, err := w.topics(b.Context())
	if err != nil {
		b.Fatal(err)
	}
	c := newCorpus(1024, 25, 0)
	c.encode("bench", windowStart(time.Now()))
	if what == "read" || what == "drain" {
		err = w.publish(b.Context(), topics.SeedMetrics, c, "bench")
	}
	var all figures
	for b.Loop() && err == nil {
		switch what {
		case "read":
			_, err = w.read(b.Context(), topics.SeedMetrics, len(c.payloads))
		case "drain":
			_, err = w.drain(b.Context(), topics, c, nil)
		case "latency":
			err = w.measureLatency(b.Context(), tenThousand, &all)
		case "singly":
			err = w.measureLatency(b.Context(), tenThousandSingly, &all)
		}
	}
	if err != nil {
		b.Fatal(err)
	}
	for _, f := range all.list {
		b.ReportMetric(f.median(), f.name)
	}
	if err := w.forget(topics); err != nil {
		b.Error(err)
	}
}
