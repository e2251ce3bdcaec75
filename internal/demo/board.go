package demo

import (
	"cmp"
	"fmt"
	"io"
	"math"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/rollups"
)

// board is the table of layers: the last closed window of each.
type board struct {
	out   io.Writer
	width func() int // of the terminal; if nil, out is no terminal, and each closed window is a line

	rollups rollups.Reader

	mu     sync.Mutex
	layers *rollups.Layers[boardRow]
	drawn  int // lines on the screen, which the next draw replaces
}

// stays is how long a layer is shown after its last window, for example a layer of
// the previous run.
const stays = 20 * time.Second

// boardRow holds the last windows of a layer. Its rollups come from two topics.
type boardRow struct {
	health      rollups.Windows[healthWindow]
	performance rollups.Windows[oona.Rates]
}

// healthWindow is the health of a layer in one window, as far as it is shown.
type healthWindow struct {
	seeds oona.SeedCensus
	means [len(shownMetrics)]float64 // NaN: not measured
}

// shownMetrics are the metrics of a row. They are few, so that a row fits the width
// of a terminal. The trend shows the first of them.
var shownMetrics = [...]string{"gradient_norm", "reconstruction_loss"}

// trendWindows is the number of windows in a trend.
const trendWindows = 12

func newBoard(screen Screen) *board {
	return &board{out: screen.Out, width: screen.Width, layers: rollups.NewLayers[boardRow](rollups.Limits{
		Runs: 16, Layers: 1024, Total: 2048, SilentAfter: stays,
	}, nil)}
}

// update adds a rollup that arrived at now.
func (b *board) update(r *oona.Rollup, now time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	y, _ := b.layers.Of(r, now)
	if r.Group == oona.Performance {
		y.Value.performance.Add(r.Rates, r.End, 1)
	} else {
		y.Value.health.Add(healthOf(r), r.End, trendWindows)
	}
	health, _, _ := y.Value.health.Last()
	performance, _, _ := y.Value.performance.Last()
	if b.width == nil && b.layers.Len() <= fewLayers && health == performance {
		fmt.Fprintf(b.out, "window closed  %s  %s\n", r.End.Time().Local().Format("15:04:05.0"), rowText(y, false))
	}
}

func healthOf(r *oona.Rollup) healthWindow {
	w := healthWindow{seeds: r.Seeds}
	for i, name := range shownMetrics {
		w.means[i] = math.NaN()
		for m := range r.Metrics {
			if r.Metrics[m].Name == name && r.Metrics[m].Count > 0 {
				w.means[i] = r.Metrics[m].Mean
			}
		}
	}
	return w
}

// note writes a line of progress. It is used without a terminal. It does not mix with
// the lines of update.
func (b *board) note(line string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	fmt.Fprintln(b.out, line)
}

// legend explains the letters of a bar.
var legend = []string{
	". dormant  g germinated  T training  G grafting  S stabilization  E evaluating",
	"f fine-tuning  F fossilized  x culled  c cancelled  r rolled back",
}

const barWidth = 32

// bar returns barWidth letters, divided between the states in proportion to their
// seeds. A state with a seed has at least one letter.
func bar(c *oona.SeedCensus) string {
	if c.Seen == 0 {
		return strings.Repeat(" ", barWidth)
	}
	var widths [oona.StateCount]int
	total := 0
	for s, n := range c.ByState {
		if n > 0 {
			widths[s] = max(1, int(n*barWidth/c.Seen))
			total += widths[s]
		}
	}
	for total != barWidth {
		widest := slices.Index(widths[:], slices.Max(widths[:]))
		step := cmp.Compare(barWidth, total)
		widths[widest] += step
		total += step
	}
	var text strings.Builder
	for s, n := range widths {
		text.WriteString(strings.Repeat(stateLetters[s], n))
	}
	return text.String()
}

var stateLetters = [oona.StateCount]string{".", "g", "T", "G", "S", "E", "f", "F", "x", "c", "r"}

func rowText(y *rollups.Layer[boardRow], withTrend bool) string {
	_, health, known := y.Value.health.Last()
	_, rates, _ := y.Value.performance.Last()
	var text strings.Builder
	fmt.Fprintf(&text, "%6.6s  %-12s [%s] %3d of %3d active", tail(y.Run), y.ID, bar(&health.seeds), health.seeds.Active, health.seeds.Seen)
	for i, mean := range health.means {
		if !known || math.IsNaN(mean) {
			continue
		}
		fmt.Fprintf(&text, "  %s %.4g", shownMetrics[i], mean)
		if i == 0 && withTrend {
			text.WriteString(" " + trend(&y.Value.health))
		}
	}
	if rates.FramesPerSecond > 0 {
		fmt.Fprintf(&text, "  %.3g frames/s", rates.FramesPerSecond)
	}
	return text.String()
}

// trend draws the means of the first metric over the last windows, on a scale that
// has zero: small changes of a large number look small.
func trend(health *rollups.Windows[healthWindow]) string {
	least, greatest := 0.0, 0.0
	for _, w := range health.All() {
		if mean := w.means[0]; !math.IsNaN(mean) {
			least, greatest = min(least, mean), max(greatest, mean)
		}
	}
	scale := 0.0
	if greatest > least {
		scale = float64(len(levels)-1) / (greatest - least)
	}
	var text strings.Builder
	for _, w := range health.All() {
		if mean := w.means[0]; math.IsNaN(mean) {
			text.WriteRune(' ')
		} else {
			text.WriteRune(levels[int((mean-least)*scale+0.5)])
		}
	}
	return text.String()
}

var levels = [...]rune{'\u2581', '\u2582', '\u2583', '\u2584', '\u2585', '\u2586', '\u2587', '\u2588'}

// tail returns the last characters of a run's ID, as ULIDs of one day begin alike.
func tail(run oona.RunID) oona.RunID { return run[max(0, len(run)-6):] }

// fewLayers is the number of layers up to which each closed window is printed.
const fewLayers = 16

// draw replaces the table on the screen. The last line is status.
func (b *board) draw(status string, now time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	rows := slices.SortedFunc(b.layers.All(now), func(x, y *rollups.Layer[boardRow]) int {
		return cmp.Or(cmp.Compare(x.Run, y.Run), cmp.Compare(x.ID, y.ID))
	})
	const most = 24
	var text strings.Builder
	if b.drawn > 0 {
		fmt.Fprintf(&text, "\x1b[%dA", b.drawn)
	}
	lines, width := 0, b.width()
	line := func(s string) {
		// A line that wraps takes two rows, and the next draw would replace too few.
		runes := []rune(s)
		text.WriteString("\x1b[2K" + string(runes[:min(len(runes), max(width-1, 0))]) + "\n")
		lines++
	}
	for _, s := range legend {
		line(s)
	}
	for i := range rows {
		if i == most {
			line(fmt.Sprintf("... and %d layers more", len(rows)-most))
			break
		}
		line(rowText(rows[i], true))
	}
	line(status)
	text.WriteString("\x1b[J")
	b.drawn = lines
	fmt.Fprint(b.out, text.String())
}
