package export_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	dto "github.com/prometheus/client_model/go"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/internal/catalogue"
	"github.com/morphogenetic/oona/schemas/avro"
	"github.com/morphogenetic/oona/windows"
)

const (
	healthyFor  = 30 * time.Minute
	scrapeEvery = 15 * time.Second
	maxSpeed    = 0 // all frames in two seconds
	thinFrom    = 5 // speeds from here on play one frame in four, to save time
)

// No alert on the network and on the exporter fires while the recorded training run, in
// which nothing is known to be wrong, is played again and again as `oona demo` does, at
// any speed. (Below a twentieth, windows have no frames of some layers.)
func TestNoAlertFiresInAHealthyDemo(t *testing.T) {
	if testing.Short() {
		t.Skip("it plays a recording at five speeds")
	}
	promtool := requirePromtool(t)
	frames := recordedFrames(t)
	for _, speed := range []float64{0.05, 0.25, 1, 10, maxSpeed} {
		t.Run(fmt.Sprint(speed), func(t *testing.T) {
			t.Parallel()
			var scraped scrapes
			synctest.Test(t, func(t *testing.T) { scraped = play(t, frames, speed) })
			if len(scraped.values) < 20 {
				t.Fatalf("there are only %d series", len(scraped.values))
			}
			file := filepath.Join(t.TempDir(), "test.yml")
			if err := os.WriteFile(file, []byte(scraped.alertTest(t)), 0o600); err != nil {
				t.Fatal(err)
			}
			if out, err := exec.CommandContext(t.Context(), promtool, "test", "rules", file).CombinedOutput(); err != nil {
				t.Errorf("promtool: %v\n%.3000s", err, out)
			}
		})
	}
}

// recordedFrames returns the frames of the recorded run.
func recordedFrames(t *testing.T) (frames []*oona.Frame) {
	t.Helper()
	text, err := os.ReadFile("../../testdata/digits.avro")
	if err != nil {
		t.Fatal(err)
	}
	reader, err := avro.NewRecordingReader(bytes.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	for {
		entry, err := reader.Next()
		if errors.Is(err, io.EOF) {
			return frames
		}
		if err != nil {
			t.Fatal(err)
		}
		if entry.Frame != nil {
			frames = append(frames, entry.Frame)
		}
	}
}

// play folds the frames into rollups of two seconds, run after run, passes them to a
// stage, and scrapes it.
func play(t *testing.T, frames []*oona.Frame, speed float64) (s scrapes) {
	f := start(t, nil)
	d := newDemo(t, f)
	length := time.Duration(frames[len(frames)-1].ObservedAt-frames[0].ObservedAt) * time.Microsecond
	every := 1
	if speed == maxSpeed || speed >= thinFrom {
		every = 4
	}
	if speed == maxSpeed {
		speed = length.Seconds() / 2
	}
	end := time.Now().Add(healthyFor)
	for run := 0; time.Now().Before(end); run++ {
		began, next := time.Now(), 0
		for ended := time.Duration(float64(length)/speed) + 10*time.Second; time.Since(began) < ended && time.Now().Before(end); {
			time.Sleep(d.tick)
			for next < len(frames) {
				at := began.Add(time.Duration(float64(frames[next].ObservedAt-frames[0].ObservedAt) * 1e3 / speed))
				if at.After(time.Now()) {
					break
				}
				frame := *frames[next]
				frame.Run, frame.ObservedAt = oona.RunID(fmt.Sprint("run-", run)), oona.MicrosOf(at)
				d.fold(frame.ObservedAt, &frame)
				next += every
			}
			d.fold(oona.MicrosOf(time.Now()), nil)
			if time.Since(s.last) >= scrapeEvery {
				s.add(f.gather())
			}
		}
	}
	return s
}

// demo is an aggregator with the windows of `oona demo`.
type demo struct {
	f      *fixture
	engine *windows.Engine
	tick   time.Duration
	offset int64
}

func newDemo(t *testing.T, f *fixture) *demo {
	known, err := catalogue.Default()
	if err != nil {
		t.Fatal(err)
	}
	cfg := windows.DefaultConfig()
	cfg.Length, cfg.OutOfOrderness, cfg.AllowedLateness = 2*time.Second, 200*time.Millisecond, 500*time.Millisecond
	cfg.TickInterval, cfg.IdleHorizon, cfg.Reducer = 250*time.Millisecond, 5*time.Second, windows.Reducer
	engine, err := windows.New(cfg, windows.Always(known.Metric))
	if err != nil {
		t.Fatal(err)
	}
	return &demo{f: f, engine: engine, tick: cfg.TickInterval}
}

func (d *demo) fold(at oona.Micros, frame *oona.Frame) {
	d.offset++
	record := windows.Record{Offset: d.offset, AppendedAt: at, Path: "ingest", Checksum: uint64(d.offset), Frame: frame}
	out := d.engine.Fold(record, func(r *oona.Rollup) {
		d.f.append(topics.Rollup(r.Group), 0, avro.AppendRollup(nil, r))
	})
	if frame != nil && out.Verdict != windows.Folded {
		d.f.t.Fatalf("a frame is %v: %v", out.Verdict, out.Detail)
	}
}

// scrapes are the values of series at each scrape, as promtool reads them.
type scrapes struct {
	last   time.Time
	n      int
	values map[string][]string
}

func (s *scrapes) add(families map[string]*dto.MetricFamily) {
	if s.values == nil {
		s.values = make(map[string][]string)
	}
	s.last = time.Now()
	for name, family := range families {
		for _, m := range family.Metric {
			if m.Gauge == nil && m.Counter == nil {
				continue
			}
			var labels []string
			for _, l := range m.Label {
				labels = append(labels, fmt.Sprintf("%s=%q", l.GetName(), l.GetValue()))
			}
			series := name + "{" + strings.Join(labels, ",") + "}"
			s.fill(series)
			s.values[series] = append(s.values[series], fmt.Sprint(m.GetGauge().GetValue()+m.GetCounter().GetValue()))
		}
	}
	s.n++
	for series := range s.values {
		s.fill(series)
	}
}

// fill says that a series was not there since its last value.
func (s *scrapes) fill(series string) {
	for len(s.values[series]) < s.n {
		absent := "stale"
		if before := s.values[series]; len(before) == 0 || before[len(before)-1] == "stale" || before[len(before)-1] == "_" {
			absent = "_"
		}
		s.values[series] = append(s.values[series], absent)
	}
}

// alertTest returns a test for promtool, in which no alert fires in any minute.
func (s *scrapes) alertTest(t *testing.T) string {
	var text strings.Builder
	alerts := map[string]bool{}
	fmt.Fprintln(&text, "rule_files:")
	for _, name := range []string{"network-alerts.yml", "oona-alerts.yml"} {
		path, err := filepath.Abs("../../deploy/prometheus/" + name)
		if err != nil {
			t.Fatal(err)
		}
		rules, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&text, "  - %q\n", path)
		for _, found := range regexp.MustCompile(`alert: (\w+)`).FindAllSubmatch(rules, -1) {
			if name == "network-alerts.yml" || bytes.Contains(found[1], []byte("Exporter")) {
				alerts[string(found[1])] = true
			}
		}
	}
	fmt.Fprintf(&text, "evaluation_interval: %s\ntests:\n  - interval: %s\n    input_series:\n", scrapeEvery, scrapeEvery)
	for series, values := range s.values {
		if strings.HasPrefix(series, "kasmina_layer_verdict") || strings.Contains(series, "_state{") || strings.Contains(series, "timestamp") || strings.HasPrefix(series, "oona_exporter_") {
			fmt.Fprintf(&text, "      - {series: '%s', values: '%s'}\n", series, strings.Join(values, " "))
		}
	}
	fmt.Fprintln(&text, "    alert_rule_test:")
	for alert := range alerts {
		for minute := range int(healthyFor / time.Minute) {
			fmt.Fprintf(&text, "      - {eval_time: %dm, alertname: %s}\n", minute, alert)
		}
	}
	return text.String()
}
