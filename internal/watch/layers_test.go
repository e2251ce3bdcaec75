package watch

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/bus"
	"github.com/morphogenetic/oona/bus/memory"
	"github.com/morphogenetic/oona/rollups"
	"github.com/morphogenetic/oona/schemas/avro"
)

// layersBus is a bus whose rollup topics a table follows.
type layersBus struct {
	t         *testing.T
	topics    oona.Topics
	bus       *memory.Bus
	publisher bus.PinnedPublisher
}

func newLayersBus(t *testing.T) *layersBus {
	t.Helper()
	topics, err := oona.NewTopics(oona.DefaultPrefix)
	if err != nil {
		t.Fatal(err)
	}
	b := &layersBus{t: t, topics: topics, bus: memory.New()}
	if _, err := b.bus.Apply(t.Context(), topics.Specs(1)); err != nil {
		t.Fatal(err)
	}
	if b.publisher, err = b.bus.Publisher(bus.PublisherOptions{}); err != nil {
		t.Fatal(err)
	}
	return b
}

// window publishes both rollups of a window of ten seconds.
func (b *layersBus) window(run oona.RunID, layer oona.LayerID, n int64) {
	b.t.Helper()
	for g, topic := range map[oona.Group]string{oona.Health: b.topics.LayerHealth, oona.Performance: b.topics.LayerPerformance} {
		r := &oona.Rollup{
			Group: g, Run: run, Layer: layer, Start: oona.Micros(n * 10e6), End: oona.Micros((n + 1) * 10e6), Trigger: oona.Trigger{Offset: n}, Frames: 25,
			Metrics: []oona.MetricSummary{{Name: "gradient_norm", Count: 1, Mean: float64(n)}},
		}
		if g == oona.Health {
			r.Seeds = oona.SeedCensus{Seen: 4, Active: 1, ByState: [oona.StateCount]int64{oona.Dormant: 3, oona.Training: 1}}
		} else {
			r.Metrics[0] = oona.MetricSummary{Name: "latency", Count: 1, Mean: 0.5}
		}
		r.Hash = r.ContentHash()
		if err := b.publisher.Publish(b.t.Context(), topic, message.NewMessage("", avro.AppendRollup(nil, r))); err != nil {
			b.t.Fatal(err)
		}
	}
}

// follow shows the layers for a time, from the beginning of the topics.
func (b *layersBus) follow(o LayersOptions, size func() (int, int), for_ time.Duration) string {
	b.t.Helper()
	reader, err := b.bus.Reader(bus.ReaderOptions{})
	if err != nil {
		b.t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(b.t.Context(), for_)
	defer cancel()
	o.Topics, o.Stay, o.Logger = b.topics, time.Minute, slog.New(slog.DiscardHandler)
	var out bytes.Buffer
	if err := errors.Join(FollowLayers(ctx, reader, o, Screen{Out: &out, Size: size}), reader.Close()); err != nil {
		b.t.Fatal(err)
	}
	return out.String()
}

// In a pipe each window of a layer is a line, and a rollup that is emitted again is none.
func TestLayersAsLines(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newLayersBus(t)
		defer func() { _ = b.publisher.Close() }()
		for _, n := range []int64{1, 2, 3, 1, 2} {
			b.window("run-one", "enc.0", n)
		}
		b.window("run-two", "enc.1", 4)
		const row = "enc.0        [........................TTTTTTTT]    1 of    4 active  gradient_norm %d  2.5 frames/s"
		at := func(n int64) string { return oona.Micros(n * 10e6).Time().Local().Format("15:04:05.0") }
		want := ""
		for n := int64(1); n <= 3; n++ {
			want += fmt.Sprintf("window closed  %s  un-one  "+row+"\n", at(n+1), n)
		}
		if got := b.follow(LayersOptions{Metrics: DefaultMetrics(), Run: "run-one"}, nil, time.Minute); got != want {
			t.Errorf("got\n%s\nwant\n%s", got, want)
		}
		if got := strings.Count(b.follow(LayersOptions{Metrics: DefaultMetrics()}, nil, time.Minute), "\n"); got != 4 {
			t.Errorf("%d lines, want 4", got)
		}
		if got := strings.Count(b.follow(LayersOptions{Metrics: DefaultMetrics(), Count: 2}, nil, time.Minute), "\n"); got != 2 {
			t.Errorf("%d lines, want the 2 that were asked for", got)
		}
		if got := b.follow(LayersOptions{Layer: "enc.1"}, nil, time.Minute); strings.Count(got, "\n") != 1 || !strings.Contains(got, "enc.1") {
			t.Errorf("want one line, of enc.1: %q", got)
		}
		status := func() string { return "status" }
		if got := strings.Count(b.follow(LayersOptions{Status: status, MostLines: 1}, nil, time.Minute), "status\n"); got < 12 {
			t.Errorf("the status was written %d times in a minute", got)
		}
	})
}

// On a terminal the table is drawn over itself. It shows the last window of each layer,
// of a metric of the performance topic, too.
func TestLayersOnATerminal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newLayersBus(t)
		defer func() { _ = b.publisher.Close() }()
		for n := range int64(3) {
			b.window("run-one", "enc.0", n)
		}
		drawings := strings.Split(b.follow(LayersOptions{Metrics: []string{"gradient_norm", "latency"}}, func() (int, int) { return 160, 50 }, 2*time.Second), "\x1b[J")
		if first := drawings[0]; !strings.Contains(first, b.topics.LayerHealth) {
			t.Errorf("before the first window, it does not say what it waits for: %q", first)
		}
		last := drawings[len(drawings)-2] // behind the last is nothing
		if !strings.HasPrefix(last, "\x1b[4A") || strings.Count(last, "enc.0") != 1 {
			t.Errorf("want a layer, drawn over the 4 lines of the drawing before: %q", last)
		}
		for _, want := range []string{"1 of    4 active", "gradient_norm 2  ", "latency 0.5", " \u2581\u2585\u2588 ", "2.5 frames/s", "\x1b[2K3 windows"} {
			if !strings.Contains(last, want) {
				t.Errorf("%q is missing in %q", want, last)
			}
		}
	})
}

// A topic that does not exist is an error, and a writer that fails ends it.
func TestLayersFail(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newLayersBus(t)
		defer func() { _ = b.publisher.Close() }()
		b.window("run-one", "enc.0", 1)
		reader, err := b.bus.Reader(bus.ReaderOptions{})
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = reader.Close() }()
		errFull := errors.New("the disk is full")
		if err := FollowLayers(t.Context(), reader, LayersOptions{Topics: b.topics, Stay: time.Minute}, Screen{Out: failing{errFull}}); !errors.Is(err, errFull) {
			t.Errorf("the error is %v", err)
		}
		another, err := b.bus.Reader(bus.ReaderOptions{})
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = another.Close() }()
		if err := b.bus.DeleteTopic(b.topics.LayerPerformance); err != nil {
			t.Fatal(err)
		}
		if err := FollowLayers(t.Context(), another, LayersOptions{Topics: b.topics}, Screen{Out: &bytes.Buffer{}}); !errors.Is(err, bus.ErrNoTopic) {
			t.Errorf("without a topic, the error is %v", err)
		}
	})
}

type failing struct{ err error }

func (f failing) Write([]byte) (int, error) { return 0, f.err }

func layerRow(id oona.LayerID) *rollups.Layer[layerWindows] {
	y := &rollups.Layer[layerWindows]{Run: "01RUN", ID: id}
	y.Value.health.Add(healthWindow{seeds: oona.SeedCensus{Seen: 1000, Active: 1000, ByState: [oona.StateCount]int64{oona.Training: 1000}}, framesPerSecond: 1234.5}, 1, 1)
	y.Value.means = make([]rollups.Windows[float64], 2)
	for range trendWindows {
		y.Value.means[0].Add(-0.00001234, 1, trendWindows)
		y.Value.means[1].Add(-0.00001234, 1, trendWindows)
	}
	return y
}

// At each width, what is shown is whole. 80 columns have room for a metric.
func TestLayout(t *testing.T) {
	widths := map[string]int{}
	for _, id := range []oona.LayerID{"enc.0", "transformer.encoder.blocks.11.attention"} {
		y := layerRow(id)
		for width := 40; width < 200; width++ {
			row := layoutFor(width, DefaultMetrics(), []*rollups.Layer[layerWindows]{y}).row(DefaultMetrics(), y)
			if n := len([]rune(row)); n > width && width >= 54 {
				t.Errorf("at %d columns, %d are needed: %s", width, n, row)
			}
			for _, part := range []string{"gradient_norm -1.234e-05", "reconstruction_loss -1.234e-05", "1.23e+03 frames/s", strings.Repeat("\u2581", 12), "[" + strings.Repeat("T", widestBar) + "]"} {
				switch at, found := widths[string(id[:3])+part], strings.Contains(row, part); {
				case found && at == 0:
					widths[string(id[:3])+part] = width
				case !found && at > 0 && !strings.HasPrefix(part, "["):
					t.Errorf("%q is shown at %d columns and not at %d", part, at, width)
				}
			}
		}
	}
	for part, most := range map[string]int{"encgradient_norm -1.234e-05": 79, "tragradient_norm -1.234e-05": 79, "encreconstruction_loss -1.234e-05": 140, "enc1.23e+03 frames/s": 159} {
		if at := widths[part]; at == 0 || at > most {
			t.Errorf("%s is first shown at %d columns, want at most %d", part, at, most)
		}
	}
}

func TestTrend(t *testing.T) {
	var means rollups.Windows[float64]
	for n, mean := range []float64{8, 1, math.NaN(), 4.5} {
		means.Add(mean, oona.Micros(n), trendWindows)
	}
	if got := trend(&means); got != "\u2588\u2582 \u2585" {
		t.Errorf("the trend is %q", got)
	}
	var flat rollups.Windows[float64]
	flat.Add(0, 1, trendWindows)
	if got := trend(&flat); got != "\u2581" {
		t.Errorf("the trend of one window is %q", got)
	}
}

func TestBarShowsEveryState(t *testing.T) {
	c := oona.SeedCensus{Seen: 1000}
	c.ByState[oona.Dormant] = 990
	c.ByState[oona.Culled] = 1
	c.ByState[oona.Training] = 9
	for _, width := range []int{narrowestBar, widestBar} {
		got := bar(&c, width)
		if len(got) != width || strings.Count(got, "x") != 1 || strings.Count(got, "T") != 1 {
			t.Errorf("bar is %q", got)
		}
		if empty := bar(&oona.SeedCensus{}, width); len(empty) != width {
			t.Errorf("bar of nothing is %q", empty)
		}
	}
}

// A status that is wider than the terminal takes several lines, and the next drawing
// replaces all of them.
func TestStatusWrapsBetweenWords(t *testing.T) {
	var out bytes.Buffer
	status := "run 7EJX24: 1203 frames sent, 1203 acknowledged, 1203 folded, 0 late; 2 windows open, 160 rollups"
	b := newTable(LayersOptions{Status: func() string { return status }, Stay: time.Minute}, Screen{Out: &out, Size: func() (int, int) { return 40, 24 }})
	b.draw(time.Now())
	b.draw(time.Now())
	_, second, found := strings.Cut(out.String(), "\x1b[5A") // 2 of the legend, 3 of the status
	lines := strings.Split(strings.ReplaceAll(second, "\x1b[2K", ""), "\n")
	if !found || len(lines) != 6 || strings.Join(lines[2:5], " ") != status {
		t.Errorf("the drawings are %q", out.String())
	}
	for _, width := range []int{-1, 0, 5} {
		if got := wrap("of 12345 words", width); len(got) != 3 {
			t.Errorf("at %d columns: %q", width, got)
		}
	}
}

// A terminal's table is drawn over itself, and no line is wider than the
// terminal: it would wrap and shift all the others. Nor is it higher.
func TestTableRedrawsInPlace(t *testing.T) {
	var out bytes.Buffer
	const stay = 20 * time.Second
	rows := 24
	b := newTable(LayersOptions{Status: func() string { return "status" }, Stay: stay}, Screen{Out: &out, Size: func() (int, int) { return 40, rows }})
	now := time.Now()
	b.add(&oona.Rollup{Run: "r", Layer: "enc.0", Seeds: oona.SeedCensus{Seen: 2, ByState: [oona.StateCount]int64{oona.Dormant: 2}}}, now)
	b.draw(now)
	out.Reset()
	b.add(&oona.Rollup{Run: "r", Layer: "enc.1"}, now.Add(stay))
	b.draw(now.Add(stay))
	lines := strings.Split(out.String(), "\n")
	if !strings.HasPrefix(lines[0], "\x1b[4A") { // 2 of the legend, a layer, the status
		t.Errorf("the second drawing begins with %q, want it to go up 4 lines", lines[0])
	}
	if len(lines) != 6 || !strings.HasSuffix(lines[4], "status") {
		t.Errorf("the second drawing is %q", lines)
	}
	for _, line := range lines {
		if text := line[strings.LastIndex(line, "\x1b[2K")+1:]; len(text) > 3+39 {
			t.Errorf("%q is wider than the terminal", text)
		}
	}
	out.Reset()
	b.draw(now.Add(stay + time.Second))
	if text := out.String(); strings.Contains(text, "enc.0") || !strings.Contains(text, "enc.1") {
		t.Errorf("want the layer that fell silent gone and the other shown: %q", text)
	}
	for n := range 30 {
		b.add(&oona.Rollup{Run: "r", Layer: oona.LayerID(fmt.Sprintf("many.%d", n))}, now.Add(stay))
	}
	for rows = range 40 {
		out.Reset()
		b.draw(now.Add(stay))
		if n := strings.Count(out.String(), "\n"); n >= max(rows, 6) {
			t.Errorf("%d lines on a terminal of %d rows", n, rows)
		}
	}
}
