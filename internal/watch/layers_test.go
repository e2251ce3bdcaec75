package watch

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/charmbracelet/x/ansi"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/bus"
	"github.com/morphogenetic/oona/bus/memory"
	"github.com/morphogenetic/oona/rollups"
	"github.com/morphogenetic/oona/schemas/avro"
	"github.com/morphogenetic/oona/verdict"
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
	o.Topics, o.Stay, o.Logger, o.Rule = b.topics, time.Minute, slog.New(slog.DiscardHandler), judged
	var out bytes.Buffer
	if err := errors.Join(FollowLayers(ctx, reader, o, Screen{Out: &out, Size: size}), reader.Close()); err != nil {
		b.t.Fatal(err)
	}
	return out.String()
}

// Without a terminal, each window of a layer is printed as one line. A rollup that is emitted again
// prints nothing.
func TestLayersAsLines(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newLayersBus(t)
		defer func() { _ = b.publisher.Close() }()
		for _, n := range []int64{1, 2, 3, 1, 2} {
			b.window("run-one", "enc.0", n)
		}
		b.window("run-two", "enc.1", 4)
		const row = "enc.0         learning  .3 T1  gradient_norm %d  1 of 4 active  2.5 frames/s"
		at := func(n int64) string { return oona.Micros(n * 10e6).Time().Local().Format("15:04:05.0") }
		want := ""
		for n := int64(1); n <= 3; n++ {
			want += fmt.Sprintf("window closed  %s  un-one  "+row+"\n", at(n+1), n)
		}
		if got := b.follow(LayersOptions{BoardOptions: BoardOptions{Metrics: DefaultMetrics(), Run: "run-one"}}, nil, time.Minute); got != want {
			t.Errorf("got\n%s\nwant\n%s", got, want)
		}
		if got := strings.Count(b.follow(LayersOptions{BoardOptions: BoardOptions{Metrics: DefaultMetrics()}}, nil, time.Minute), "\n"); got != 4 {
			t.Errorf("%d lines, want 4", got)
		}
		if got := strings.Count(b.follow(LayersOptions{BoardOptions: BoardOptions{Metrics: DefaultMetrics()}, Count: 2}, nil, time.Minute), "\n"); got != 2 {
			t.Errorf("%d lines, want the 2 that were asked for", got)
		}
		if got := b.follow(LayersOptions{BoardOptions: BoardOptions{Layer: "enc.1"}}, nil, time.Minute); strings.Count(got, "\n") != 1 || !strings.Contains(got, "enc.1") {
			t.Errorf("want one line, of enc.1: %q", got)
		}
		status := func() string { return "status" }
		if got := strings.Count(b.follow(LayersOptions{Status: status, MostLines: 1}, nil, time.Minute), "status\n"); got < 12 {
			t.Errorf("the status was written %d times in a minute", got)
		}
	})
}

// On a terminal the table is drawn over itself. It shows the last window of each layer, also with
// metrics of the performance topic.
func TestLayersOnATerminal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newLayersBus(t)
		defer func() { _ = b.publisher.Close() }()
		for n := range int64(3) {
			b.window("run-one", "enc.0", n)
		}
		drawings := strings.Split(b.follow(LayersOptions{BoardOptions: BoardOptions{Metrics: []string{"gradient_norm", "latency"}}}, func() (int, int) { return 160, 50 }, 2*time.Second), "\x1b[J")
		if first := drawings[0]; !strings.Contains(first, b.topics.LayerHealth) {
			t.Errorf("before the first window, it does not say what it waits for: %q", first)
		}
		last := drawings[len(drawings)-2] // the last element is the empty text after the last drawing
		if !strings.HasPrefix(last, "\x1b[3A") || strings.Count(last, "enc.0") != 1 {
			t.Errorf("want a layer, drawn over the 3 lines of the drawing before: %q", last)
		}
		for _, want := range []string{". dormant  T training", "enc.0  learning  .3 T1  gradient_norm 2  \u2581\u2585\u2588 ", "1 of 4 active", "latency 0.5", "2.5 frames/s", "\n3 windows"} {
			if !strings.Contains(last, want) {
				t.Errorf("%q is missing in %q", want, last)
			}
		}
	})
}

// FollowLayers returns an error if a topic does not exist, or if the output cannot be written.
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
		if err := FollowLayers(t.Context(), reader, LayersOptions{Topics: b.topics, BoardOptions: BoardOptions{Stay: time.Minute, Rule: judged}}, Screen{Out: failing{errFull}}); !errors.Is(err, errFull) {
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

// judged returns the same rule for each metric.
func judged(string) verdict.Rule {
	return verdict.Rule{Judged: true, Level: verdict.Both, Warn: 2, Critical: 10}
}

type failing struct{ err error }

func (f failing) Write([]byte) (int, error) { return 0, f.err }

// No line is wider than the terminal. What does not fit is left out completely, or a mark shows that
// it is cut off.
func TestLayout(t *testing.T) {
	many := oona.SeedCensus{Seen: 1000, Active: 72}
	for s := range many.ByState {
		many.ByState[s] = int64(1000 >> s)
	}
	few := oona.SeedCensus{Seen: 3, ByState: [oona.StateCount]int64{2, 0, 1}}
	for _, rows := range [][]Row{
		{{Run: "01RUN", Layer: "enc.0", Seeds: few, Main: Cell{"gradient_norm", "0.5"}}},
		{{Run: "01RUN-A", Layer: "enc.0", Seeds: many, Main: Cell{"gradient_norm", "-1.234e-05"}, trend: strings.Repeat("\u2581", 12), others: []string{"loss 12345", "", "72 of 1000 active"}},
			{Run: "01RUN-B", Layer: "transformer.encoder.blocks.11.attention", Seeds: few, Main: Cell{"a_metric_with_a_very_long_name_of_its_own", "1.234e-05"}, others: []string{"", "1.23e+03 frames/s"}}},
		{{Run: "r", Layer: "\u5c64.\u5c64.\u5c64.\u5c64.\u5c64.\u5c64.\u5c64.\u5c64.\u5c64.\u5c64", Seeds: many, Main: Cell{"\u640d\u5931\u640d\u5931\u640d\u5931\u640d\u5931", "0.25"}}},
	} {
		l := layoutFor(400, rows)
		for _, r := range rows {
			if line := l.line(r); strings.Contains(line, mark) && len(r.Layer) < 30 || !strings.Contains(line, Census(&r.Seeds, math.MaxInt)) {
				t.Errorf("on a wide terminal, something is cut: %s", line)
			}
		}
		for width := 1; width < 200; width++ {
			l := layoutFor(width, rows)
			for _, r := range rows {
				line := l.line(r)
				if n := ansi.StringWidth(line); n > width && width >= 40 {
					t.Errorf("at %d columns, %d are needed: %s", width, n, line)
				}
				if width >= 40 && !strings.Contains(line, " "+r.Main.Value) {
					t.Errorf("at %d columns, the number %s is not whole: %s", width, r.Main.Value, line)
				}
				if width >= 79 && !strings.Contains(line, "gradient_norm "+r.Main.Value) && r.Main.Name == "gradient_norm" && len(rows) == 1 {
					t.Errorf("at %d columns, the metric is not shown: %s", width, line)
				}
				for _, other := range r.others {
					if name, _, _ := strings.Cut(other, " "); name != "" && strings.Contains(line, name+" ") && !strings.Contains(line, other) {
						t.Errorf("at %d columns, %s is cut: %s", width, other, line)
					}
				}
			}
		}
	}
}

func TestCensus(t *testing.T) {
	c := oona.SeedCensus{ByState: [oona.StateCount]int64{oona.Dormant: 990, oona.Training: 9, oona.Culled: 1}}
	for width, want := range map[int]string{math.MaxInt: ".990 T9 x1", 0: "", 10: ".990 T9 x1", 9: ".990 T9 \u2026", 8: ".990 \u2026", 4: "\u2026", 1: "\u2026"} {
		if got := Census(&c, width); got != want {
			t.Errorf("in %d columns: %q, want %q", width, got, want)
		}
	}
	if got := Census(&oona.SeedCensus{}, 5); got != "" {
		t.Errorf("of no seeds: %q", got)
	}
}

func TestCut(t *testing.T) {
	for _, c := range []struct {
		cut   func(string, int) string
		text  string
		width int
		want  string
	}{
		{CutLeft, "enc.10", 6, "enc.10"}, {CutLeft, "enc.10", 4, "\u2026.10"}, {CutLeft, "enc", 0, ""},
		{cutMiddle, "gradient_norm", 7, "gra\u2026orm"}, {cutMiddle, "gradient_norm", 13, "gradient_norm"}, {cutMiddle, "norm", 1, "\u2026"}, {cutMiddle, "norm", 0, ""},
		{CutLeft, "\u5c64\u5c64\u5c64", 4, "\u2026\u5c64"}, {cutMiddle, "\u5c64\u5c64\u5c64", 4, "\u5c64\u2026"},
	} {
		if got := c.cut(c.text, c.width); got != c.want {
			t.Errorf("%q in %d columns: %q, want %q", c.text, c.width, got, c.want)
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
	for _, width := range []int{8, barWidth} {
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
	b := newTable(LayersOptions{Status: func() string { return status }, BoardOptions: BoardOptions{Stay: time.Minute, Rule: judged}}, Screen{Out: &out, Size: func() (int, int) { return 40, 24 }})
	b.draw(time.Now())
	b.draw(time.Now())
	_, second, found := strings.Cut(out.String(), "\x1b[3A") // of the status
	lines := strings.Split(strings.ReplaceAll(second, "\x1b[K", ""), "\n")
	if !found || len(lines) != 4 || strings.Join(lines[:3], " ") != status {
		t.Errorf("the drawings are %q", out.String())
	}
	for _, width := range []int{-1, 0, 5} {
		if got := wrap("of 12345 words", width); len(got) != 3 {
			t.Errorf("at %d columns: %q", width, got)
		}
	}
}

// On a terminal, the table is drawn over itself. No line is wider than the terminal, because it would
// wrap and move all lines below it. The table is not higher than the terminal, either.
func TestTableRedrawsInPlace(t *testing.T) {
	var out bytes.Buffer
	const stay = 20 * time.Second
	b := newTable(LayersOptions{Status: func() string { return "status" }, BoardOptions: BoardOptions{Stay: stay, Rule: judged}}, Screen{Out: &out, Size: func() (int, int) { return 40, 24 }})
	now := time.Now()
	b.board.add(&oona.Rollup{Run: "r", Layer: "enc.0", Seeds: oona.SeedCensus{Seen: 2, ByState: [oona.StateCount]int64{oona.Dormant: 2}}}, now)
	b.draw(now)
	out.Reset()
	b.board.add(&oona.Rollup{Run: "r", Layer: "enc.1"}, now.Add(stay))
	b.draw(now.Add(stay))
	lines := strings.Split(out.String(), "\n")
	if !strings.HasPrefix(lines[0], "\x1b[3A") { // the legend, a layer, the status
		t.Errorf("the second drawing begins with %q, want it to go up 3 lines", lines[0])
	}
	if len(lines) != 5 || !strings.HasSuffix(lines[3], "status\x1b[K") {
		t.Errorf("the second drawing is %q", lines)
	}
	for _, line := range lines {
		if ansi.StringWidth(line) > 39 {
			t.Errorf("%q is wider than the terminal", line)
		}
	}
	out.Reset()
	b.draw(now.Add(stay + time.Second))
	if text := out.String(); strings.Contains(text, "enc.0") || !strings.Contains(text, "enc.1") {
		t.Errorf("the silent layer is still shown, or the other is missing: %q", text)
	}
}

// manyLayers returns a table of the layers enc.0 to enc.29. The caller may change columns and rows,
// the size of the terminal.
func manyLayers(out io.Writer, columns, rows *int) *table {
	b := newTable(LayersOptions{Status: func() string { return "the status" }, BoardOptions: BoardOptions{Stay: time.Minute, Rule: judged}}, Screen{Out: out, Size: func() (int, int) { return *columns, *rows }})
	for n := range 30 {
		b.board.add(&oona.Rollup{Run: "r", Layer: oona.LayerID(fmt.Sprintf("enc.%d", n)), Seeds: oona.SeedCensus{Seen: 1, ByState: [oona.StateCount]int64{1}}}, time.Unix(1, 0))
	}
	return b
}

// The table is never higher than the terminal, because the terminal would scroll. Layers that are left
// out are counted. enc.2 is above enc.10.
func TestTableFitsTheHeight(t *testing.T) {
	var out bytes.Buffer
	columns, rows := 80, 0
	b := manyLayers(&out, &columns, &rows)
	for rows = range 50 {
		out.Reset()
		b.draw(time.Unix(1, 0))
		n, shown := strings.Count(out.String(), "\n"), strings.Count(out.String(), "enc.")
		if n > max(rows-1, 1) {
			t.Errorf("%d lines on a terminal of %d rows", n, rows)
		}
		if more := fmt.Sprintf("%d more layers", 30-shown); rows > 2 && shown < 30 && !strings.Contains(out.String(), more) {
			t.Errorf("on %d rows, %q is missing: %q", rows, more, out.String())
		}
		if !strings.Contains(out.String(), "the status") || rows >= 10 && !strings.Contains(out.String(), ". dormant") {
			t.Errorf("on %d rows, the status or the legend is missing: %q", rows, out.String())
		}
	}
	if at, after := strings.Index(out.String(), "enc.2 "), strings.Index(out.String(), "enc.10 "); at < 0 || at > after {
		t.Errorf("enc.2 is at %d, enc.10 at %d: %q", at, after, out.String())
	}
}

// After a resize the terminal is cleared, because it has moved the lines.
func TestTableOfAResizedTerminal(t *testing.T) {
	var out bytes.Buffer
	columns, rows := 80, 24
	b := manyLayers(&out, &columns, &rows)
	b.draw(time.Unix(1, 0))
	for _, size := range [][2]int{{60, 24}, {60, 30}, {100, 10}} {
		out.Reset()
		columns, rows = size[0], size[1]
		b.draw(time.Unix(1, 0))
		if text := out.String(); !strings.HasPrefix(text, "\x1b[H"+wipe) || strings.Contains(text, "\x1b[H\x1b[J") || strings.Count(text, "\n") != rows-1 {
			t.Errorf("at %v: %q", size, text)
		}
		out.Reset()
		b.draw(time.Unix(1, 0))
		if text := out.String(); !strings.HasPrefix(text, fmt.Sprintf("\x1b[%dA", rows-1)) {
			t.Errorf("the next drawing at %v: %q", size, text)
		}
	}
}

// When the size of the terminal changes, the table is drawn at once.
func TestResizedAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newLayersBus(t)
		defer func() { _ = b.publisher.Close() }()
		reader, err := b.bus.Reader(bus.ReaderOptions{})
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = reader.Close() }()
		ctx, cancel := context.WithCancel(t.Context())
		var out bytes.Buffer
		var columns atomic.Int64
		columns.Store(80)
		resized := make(chan os.Signal, 1)
		ended := make(chan error)
		go func() {
			ended <- FollowLayers(ctx, reader, LayersOptions{Topics: b.topics, BoardOptions: BoardOptions{Stay: time.Minute, Rule: judged}},
				Screen{Out: &out, Size: func() (int, int) { return int(columns.Load()), 24 }, Resized: resized})
		}()
		time.Sleep(drawInterval / 4)
		columns.Store(40)
		resized <- os.Interrupt // any signal will do
		synctest.Wait()
		if !strings.Contains(out.String(), "\x1b[H"+wipe) {
			t.Errorf("it has not drawn yet: %q", out.String())
		}
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}

// The text above the table is drawn again with the table if there is room for both.
func TestHeadOfAResizedTerminal(t *testing.T) {
	var out bytes.Buffer
	columns, rows := 80, 24
	b := manyLayers(&out, &columns, &rows)
	b.Head = "first\nsecond\n"
	b.draw(time.Unix(1, 0))
	for _, c := range []struct {
		rows int
		head bool
	}{{36, true}, {34, false}} { // the 30 layers, the legend, the status and the cursor need most of them
		out.Reset()
		rows = c.rows
		b.draw(time.Unix(1, 0))
		if got := strings.Contains(out.String(), "Hfirst\nsecond\n"); got != c.head {
			t.Errorf("on %d rows the head is drawn: %t; %q", rows, got, out.String())
		}
	}
}

// A log line is written above the table, and the next drawing does not replace it. After the table has
// ended, log lines are written below it.
func TestLogAboveTheTable(t *testing.T) {
	var out bytes.Buffer
	columns, rows := 80, 6
	b := manyLayers(&out, &columns, &rows)
	logger := slog.New(b.screen.Region.Above(&out, slog.NewTextHandler(&out, &slog.HandlerOptions{ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
		if a.Key == slog.TimeKey {
			return slog.Attr{}
		}
		return a
	}}))).With("a", 1)
	want := ""
	log := func(before string) {
		t.Helper()
		logger.Warn("trouble")
		want += before + "level=WARN msg=trouble a=1\n"
		if out.String() != want {
			t.Errorf("got %q, want %q", out.String(), want)
		}
	}
	log("")
	b.draw(time.Unix(1, 0))
	want = out.String()
	log("\x1b[5A" + wipe)
	log("")
	b.draw(time.Unix(1, 0))
	if text := strings.TrimPrefix(out.String(), want); strings.Contains(text, "A") {
		t.Errorf("the drawing replaces the log: %q", text)
	}
	want = out.String()
	b.leave()
	log("")
}
