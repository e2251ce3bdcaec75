package watch

import (
	"fmt"
	"io"
	"log/slog"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/charmbracelet/x/ansi"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/bus"
	"github.com/morphogenetic/oona/verdict"
)

// sick returns a table of layers, some of which are unhealthy in different ways after 30
// windows of 10 s: the gradient of enc.2 is much higher than before, enc.10 has infinite values, and
// enc.11 has stopped sending.
func sick(out io.Writer, columns, rows int, color bool) *table {
	start := time.Unix(0, 0)
	t := newTable(LayersOptions{
		Status: func() string { return "run 01RUN1: the status" },
		BoardOptions: BoardOptions{
			Metrics: DefaultMetrics(), Stay: time.Hour, Rule: judged, Logger: slog.New(slog.DiscardHandler),
		},
	}, Screen{Out: out, Colours: color, Size: func() (int, int) { return columns, rows }})
	for n := range int64(30) {
		for layer := range 14 {
			id := oona.LayerID(fmt.Sprintf("enc.%d", layer))
			if layer == 11 && n >= 20 || layer == 13 && n < 27 {
				continue
			}
			r := &oona.Rollup{
				Run: "01RUN1", Layer: id, Start: oona.Micros(n * 10e6), End: oona.Micros((n + 1) * 10e6), Frames: 25,
				Seeds:   oona.SeedCensus{Seen: 96, Active: 16, ByState: [oona.StateCount]int64{12, 0, 15, 1, 0, 0, 0, 4, 54, 8, 2}},
				Metrics: []oona.MetricSummary{samples("gradient_norm", 0.04), samples("reconstruction_loss", 0.5)},
			}
			switch {
			case layer == 2 && n >= 25:
				r.Metrics[0] = samples("gradient_norm", 4.1)
			case layer == 10 && n >= 26:
				r.Metrics[1].Infinite = 3
			}
			t.board.add(r, start)
		}
	}
	return t
}

// samples returns a summary of samples that are all v.
func samples(name string, v float64) oona.MetricSummary {
	const n = 100
	return oona.MetricSummary{
		Name: name, Count: n, Sum: n * v, Min: v, Max: v, Mean: v,
		Histogram: oona.Histogram{Positive: oona.Buckets{Indexes: []int32{int32(math.Ceil(32 * math.Log2(v)))}, Counts: []uint64{n}}},
	}
}

// The whole table on terminals of different sizes.
func TestTableOfUnhealthyLayers(t *testing.T) {
	for _, size := range [][2]int{{80, 24}, {120, 40}, {60, 10}, {170, 12}} {
		table := sick(io.Discard, size[0], size[1], false)
		lines := table.lines(time.Unix(1, 0), size[0]-1, size[1]-1)
		for _, line := range lines {
			if ansi.StringWidth(line) >= size[0] {
				t.Errorf("at %v: a line is too wide: %s", size, line)
			}
		}
		golden(t, fmt.Sprintf("layers-%dx%d.txt", size[0], size[1]), strings.Join(lines, "\n")+"\n")
	}
}

// golden compares with a file. With OONA_UPDATE_GOLDEN, it writes the file.
func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if os.Getenv("OONA_UPDATE_GOLDEN") != "" {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("got\n%s\nwant %s\n%s", got, path, want)
	}
}

// A reason is shortened to the width. Its number is shown completely or not at all.
func TestReasonFits(t *testing.T) {
	reasons := []verdict.Reason{
		{Metric: "reconstruction_loss", Kind: verdict.High, Level: verdict.Critical, Median: 1234, Low: 0.02, High: 0.083},
		{Kind: verdict.SilentSeeds, Part: 20, Of: 96},
	}
	full := map[int]int{}
	for i, numbers := range []string{"1234", "20 of 96"} {
		r := Row{Verdict: verdict.Verdict{Level: verdict.Critical, Reasons: []verdict.Reason{reasons[i], reasons[1-i]}}}
		for width := range 120 {
			text := r.Reason(width)
			if n := ansi.StringWidth(text); n > width {
				t.Errorf("%q has %d columns, want at most %d", text, n, width)
			}
			if strings.ContainsAny(text, "0123456789") && !strings.Contains(text, numbers) && !strings.Contains(text, "1.23e+03") {
				t.Errorf("in %d columns, a number is cut: %q", width, text)
			}
			if text == reasons[i].String()+"; 1 more" && full[i] == 0 {
				full[i] = width
			}
		}
		if full[i] == 0 {
			t.Errorf("reason %d is never shown in full", i)
		}
	}
}

// Colours are used only if the screen has them, and take no columns.
func TestColours(t *testing.T) {
	at := time.Unix(1, 0)
	without := strings.Join(sick(io.Discard, 80, 24, false).lines(at, 79, 23), "\n")
	with := strings.Join(sick(io.Discard, 80, 24, true).lines(at, 79, 23), "\n")
	if strings.Contains(without, "\x1b") {
		t.Errorf("escape sequences without colours: %q", without)
	}
	if !strings.Contains(with, "\x1b[1;31mcritical") || !strings.Contains(with, "\x1b[33mwarning") || ansi.Strip(with) != without {
		t.Errorf("with colours: %q", with)
	}
}

// ranges is a reader that has only Ranges.
type ranges struct {
	bus.Reader
	of map[string][]bus.Range
}

func (r ranges) Ranges(topic string) []bus.Range { return r.of[topic] }

// No layer is reported as stalled before all partitions are read up to where they ended at the start.
// Until then, other layers may have newer windows only because they were read first. Layers of a run
// that ended long ago are not shown.
func TestBoardOfOldRollups(t *testing.T) {
	table := sick(io.Discard, 80, 24, false)
	level := func(now time.Time) verdict.Level {
		for _, r := range table.board.Rows(now) {
			if r.Layer == "enc.11" {
				return r.Verdict.Level
			}
		}
		t.Fatal("enc.11 is missing")
		return 0
	}
	now := time.Unix(100, 0)
	table.board.expect(ranges{nil, map[string][]bus.Range{
		"t": {{Partition: 0, From: 2, End: 2}, {Partition: 1, From: 3, End: 5}},
		"u": {{Partition: 1, From: 0, End: 1}},
	}}, "t", "u")
	for _, read := range []struct {
		at   bus.Position
		want verdict.Level
	}{
		{bus.Position{Topic: "t", Partition: 1, Offset: 3}, verdict.OK},
		{bus.Position{Topic: "t", Partition: 0, Offset: 9}, verdict.OK},
		{bus.Position{Topic: "u", Partition: 1, Offset: 0}, verdict.OK},
		{bus.Position{Topic: "t", Partition: 1, Offset: 7}, verdict.Warning}, // the records in between were deleted
	} {
		msg := message.NewMessage("", []byte("not a rollup"))
		msg.SetContext(bus.WithPosition(t.Context(), read.at))
		table.board.Read(msg, now)
		if got := level(now); got != read.want {
			t.Errorf("after %+v, enc.11 is %s, want %s", read.at, got, read.want)
		}
	}
	table.board.Ended = time.Minute
	for seconds, want := range map[int64]int{300 + 60: 14, 300 + 61: 0} {
		if rows := table.board.Rows(time.Unix(seconds, 0)); len(rows) != want {
			t.Errorf("%d s after the end of the run, %d layers are shown, want %d", seconds-300, len(rows), want)
		}
	}
	table.board.Rows(time.Unix(3601, 0))
	if n := len(table.board.runs); n != 0 {
		t.Errorf("after its layers, %d runs are kept", n)
	}
}
