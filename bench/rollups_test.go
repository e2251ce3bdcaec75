package main

import (
	"bytes"
	"encoding/json"
	"log/slog"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/internal/catalogue"
	"github.com/morphogenetic/oona/verdict"
)

func TestRollupFigures(t *testing.T) {
	health, err := healthyLayer()
	if err != nil {
		t.Fatal(err)
	}
	both, err := layerWindows(shownWindows)
	if err != nil {
		t.Fatal(err)
	}
	var all figures
	b := &bench{all: &all, logger: slog.New(slog.DiscardHandler)}
	const rounds = 2
	for range rounds {
		for _, measure := range []func() error{
			func() error { return measureVerdict(health, 8, 2, &all) },
			func() error { return b.measureScrape(t.Context(), both, 8) },
			func() error { return b.measureRemoteWrite(t.Context(), both, 8) },
		} {
			if err := measure(); err != nil {
				t.Fatal(err)
			}
		}
	}
	wantFigures(t, &all, rounds, verdictSpeed, scrapeTime, remoteWriteSpeed)
	// Of too few windows there is no verdict, and no figure.
	if err := b.measureScrape(t.Context(), both[:6], 8); err == nil || !strings.Contains(err.Error(), "verdicts on 0 layers, want 8") {
		t.Errorf("error is %v", err)
	}
}

// There is no figure if layers have no verdict, or one of an earlier window.
func TestWhatIsNotJudgedIsAnError(t *testing.T) {
	health, err := healthyLayer()
	if err != nil {
		t.Fatal(err)
	}
	known, err := catalogue.Default()
	if err != nil {
		t.Fatal(err)
	}
	end := health[len(health)-1].End
	for _, c := range []struct {
		want    string
		rollups []*oona.Rollup
		layers  int
		end     oona.Micros
	}{{"", health, 4, end}, {"4 layers have a verdict, want 5", health, 5, end}, {"ends at", health[:100], 4, end}, {"still learning: true", health[:3], 4, health[2].End}} {
		run := verdict.NewRun(known.Rule)
		if err := judge(run, c.rollups, layerNames(4)); err != nil {
			t.Fatal(err)
		}
		if err := judged(run, c.layers, c.end); (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("error is %v, want one with %q", err, c.want)
		}
	}
}

// There is no figure if layers are beyond a limit, and are not sent.
func TestWhatIsNotSentIsAnError(t *testing.T) {
	both, err := layerWindows(2)
	if err != nil {
		t.Fatal(err)
	}
	// How many depends on the order in which the two topics are read.
	for limit, want := range map[int]string{4: "", 3: "rollups or metrics were not sent"} {
		l, err := newRollupLog(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		records, err := l.publish(t.Context(), both, 4)
		if err != nil || records != 16 {
			t.Fatalf("%d records, want 16; error is %v", records, err)
		}
		var a acceptor
		registry := prometheus.NewRegistry()
		if err := l.send(t.Context(), records, limit, &a, registry, slog.New(slog.DiscardHandler)); err != nil {
			t.Fatal(err)
		}
		if err := sent(registry, int(a.requests.Load())); (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("error is %v, want one with %q", err, want)
		}
	}
}

// Of the chosen figures, only what they need is prepared.
func TestOnlyVerdict(t *testing.T) {
	if testing.Short() {
		t.Skip("it measures with 1,024 layers")
	}
	var out, progress bytes.Buffer
	if err := run(t.Context(), &config{Rounds: 2, Layers: 1024, Steps: 25, Only: []string{"verdict"}, JSON: true}, &out, &progress); err != nil {
		t.Fatal(err)
	}
	var got map[string]any
	if err := json.Unmarshal(out.Bytes(), &got); err != nil {
		t.Fatal(err)
	}
	if len(got) != 3 || got[verdictSpeed.name] == nil || strings.Count(progress.String(), "\n") != 2 {
		t.Errorf("the object is %v; progress is\n%s", got, progress.String())
	}
}
