package demo

import (
	"cmp"
	"fmt"
	"io"
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
	width func() int // of the terminal; nil: no terminal, a line a closed window

	rollups rollups.Reader

	mu    sync.Mutex
	rows  map[layerOf]boardRow
	drawn int // lines on the screen that the next drawing replaces
}

type layerOf struct {
	run   oona.RunID
	layer oona.LayerID
}

// stays is how long a layer is shown after its last window, e.g. of the run
// before.
const stays = 20 * time.Second

// boardRow is a layer's last windows: its two rollups come by two topics.
type boardRow struct {
	layerOf
	came   time.Time
	ends   [2]oona.Micros // by group
	seeds  oona.SeedCensus
	health []metricMean
	rates  oona.Rates
}

type metricMean struct {
	name string
	mean float64
}

func newBoard(screen Screen) *board {
	return &board{out: screen.Out, width: screen.Width, rows: make(map[layerOf]boardRow)}
}

// update takes in a rollup that came now.
func (b *board) update(r *oona.Rollup, now time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	of := layerOf{r.Run, r.Layer}
	row := b.rows[of]
	row.layerOf = of
	row.came = now
	row.ends[r.Group] = r.End
	if r.Group == oona.Performance {
		row.rates = r.Rates
	} else {
		row.seeds = r.Seeds
		row.health = row.health[:0]
		for i := range r.Metrics {
			if m := &r.Metrics[i]; m.Count > 0 {
				row.health = append(row.health, metricMean{m.Name, m.Mean})
			}
		}
	}
	if b.width == nil && len(b.rows) <= fewLayers && row.ends[oona.Health] == row.ends[oona.Performance] {
		fmt.Fprintf(b.out, "window closed  %s  %s\n", r.End.Time().Local().Format("15:04:05.0"), row.text())
	}
	b.rows[of] = row
}

// note writes a line where there is no terminal, and none of update's into it.
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

// bar draws a layer's seeds in proportion to their states; a state that has a
// seed has at least one letter.
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

func (r *boardRow) text() string {
	var text strings.Builder
	fmt.Fprintf(&text, "%6.6s  %-12s [%s] %3d of %3d active", tail(r.run), r.layer, bar(&r.seeds), r.seeds.Active, r.seeds.Seen)
	for _, m := range r.health {
		if shown(m.name) {
			fmt.Fprintf(&text, "  %s %.4g", m.name, m.mean)
		}
	}
	if r.rates.FramesPerSecond > 0 {
		fmt.Fprintf(&text, "  %.3g frames/s", r.rates.FramesPerSecond)
	}
	return text.String()
}

// tail tells runs apart: ULIDs begin alike.
func tail(run oona.RunID) oona.RunID { return run[max(0, len(run)-6):] }

// shown keeps a row within a terminal's width.
func shown(metric string) bool {
	return metric == "reconstruction_loss" || metric == "gradient_norm"
}

// fewLayers have a line for each window; more would bury the rest.
const fewLayers = 16

// draw writes the table over the one drawn before. status is its last line.
func (b *board) draw(status string, now time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	rows := make([]boardRow, 0, len(b.rows))
	for of, row := range b.rows {
		if now.Sub(row.came) > stays {
			delete(b.rows, of)
			continue
		}
		rows = append(rows, row)
	}
	slices.SortFunc(rows, func(x, y boardRow) int {
		return cmp.Or(cmp.Compare(x.run, y.run), cmp.Compare(x.layer, y.layer))
	})
	const most = 24
	var text strings.Builder
	if b.drawn > 0 {
		fmt.Fprintf(&text, "\x1b[%dA", b.drawn)
	}
	lines, width := 0, b.width()
	line := func(s string) {
		// A line that wraps would be two, and the next drawing would miss.
		text.WriteString("\x1b[2K" + s[:min(len(s), max(width-1, 0))] + "\n")
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
		line(rows[i].text())
	}
	line(status)
	text.WriteString("\x1b[J")
	b.drawn = lines
	fmt.Fprint(b.out, text.String())
}
