package main

import (
	"bytes"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/morphogenetic/oona/bus/kafka"
)

// TestOthers builds and runs the other programs, which takes minutes the first time. Their
// results are tested in bench/peers.
func TestOthers(t *testing.T) {
	if os.Getenv("OONA_PEERS") != "1" {
		t.Skip("OONA_PEERS=1 builds and runs VictoriaMetrics, Telegraf and, where OONA_KAFKA names brokers, Kafka Streams")
	}
	cfg := config{Peers: true}
	if brokers := os.Getenv("OONA_KAFKA"); brokers != "" {
		cfg.Kafka = strings.Split(brokers, ",")
	}
	var all figures
	var progress bytes.Buffer
	b := bench{cfg: &cfg, corpus: few(t), all: &all, progress: &progress, logger: slog.New(slog.DiscardHandler)}
	if err := b.prepareOthers(t.Context(), t.TempDir()); err != nil {
		t.Fatal(err)
	}
	if err := b.others.fold(t.Context(), &all); err != nil {
		t.Fatal(err)
	}
	want := []figure{victoriaSpeed, telegrafSpeed}
	if len(cfg.Kafka) > 0 {
		want = append(want, streamsSpeed)
		w := &wire{suffix: kafkaSuffix, bus: kafka.Config{Brokers: cfg.Kafka, ClientID: "bench"}, logger: b.logger}
		topics, err := w.topics(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if err := w.publish(t.Context(), topics.SeedMetrics, b.corpus, "bench"); err != nil {
			t.Fatal(err)
		}
		if err := b.others.drain(t.Context(), w, topics, b.corpus, &all); err != nil {
			t.Error(err)
		}
		if err := w.forget(topics); err != nil {
			t.Error(err)
		}
	}
	for _, f := range want {
		if !(all.latest(f) > 0) {
			t.Errorf("%s is %v; %s", f.name, all.latest(f), progress.String())
		}
	}
}

// Without Go, Java or Kafka, the rest is measured.
func TestOthersThatCannotBeHad(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	var progress bytes.Buffer
	b := bench{cfg: &config{Peers: true}, corpus: few(t), all: new(figures), progress: &progress}
	if err := b.prepareOthers(t.Context(), t.TempDir()); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(progress.String(), "SKIPPED: VictoriaMetrics") {
		t.Errorf("it says %q", progress.String())
	}
	if err := b.others.fold(t.Context(), b.all); err != nil || len(b.all.list) > 0 {
		t.Errorf("%d figures, %v", len(b.all.list), err)
	}
}

func TestWhatPeersSay(t *testing.T) {
	p := &peers{program: filepath.Join(t.TempDir(), "peers"), frames: bytes.Repeat([]byte("frame"), 100_000)}
	var all figures
	all.take(decodeFold, 300)
	for script, want := range map[string]string{
		`cat >/dev/null; echo '{"victoriametrics_msamples_core": 3, "telegraf_msamples_core": 1.5}'`: "",
		`cat >/dev/null; echo '{"victoriametrics_msamples_core": 3}'`:                                "has no telegraf_msamples_core",
		`cat >/dev/null; echo 'window 1 lacks a count' >&2; exit 1`:                                  "window 1 lacks a count",
		`cat >/dev/null; echo 3 samples`:                                                             "parse the output of bench/peers",
	} {
		if err := os.WriteFile(p.program, []byte("#!/bin/sh\n"+script+"\n"), 0o755); err != nil {
			t.Fatal(err)
		}
		switch err := p.measure(t.Context(), &all); {
		case want == "" && err != nil, want != "" && (err == nil || !strings.Contains(err.Error(), want)):
			t.Errorf("%s: error is %v, want %q", script, err, want)
		}
	}
	if got := all.latest(overVictoria); got != 100 {
		t.Errorf("the ratio is %v, want 300 / 3", got)
	}
}

func TestClosed(t *testing.T) {
	c := newCorpus(16, 25, 0)
	c.encode("bench", windowStart(time.Now()))
	// The corpus begins in the middle of a window of 10 s: 5 steps, 10 steps, and 10 in
	// the window that is open until 6 s after its end.
	if got, want := c.closed(), 15*16+15*16/100; got != want {
		t.Errorf("%d frames, want %d", got, want)
	}
	if got, want := c.closedRollups(), 2*2*16; got != want {
		t.Errorf("%d rollups, want %d", got, want)
	}
	// The repeats of a frame follow it.
	if !slices.Equal(c.payloads[99], c.payloads[100]) {
		t.Error("the 100th frame is not sent twice")
	}
}
