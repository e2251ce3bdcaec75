package watch

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/rollups"
)

// legend explains the letters of a bar.
var legend = []string{
	". dormant  g germinated  T training  G grafting  S stabilization  E evaluating",
	"f fine-tuning  F fossilized  x culled  c cancelled  r rolled back",
}

var stateLetters = [oona.StateCount]string{".", "g", "T", "G", "S", "E", "f", "F", "x", "c", "r"}

// layout says which columns the rows of a table have. A column that does not fit is
// left out as a whole, so that no number lacks digits.
type layout struct {
	name    int // columns for the layer's ID
	bar     int // letters of the bar; 0: there is none
	trend   bool
	metrics int // the first of them are shown
	frames  bool
	aligned bool // values of the same kind stand below each other
}

// everything is the layout of lines that are not on a terminal.
var everything = layout{name: 12, bar: widestBar, metrics: math.MaxInt, frames: true}

const (
	widestBar    = 32
	narrowestBar = 8 // is still of use
	leastName    = 6
	mostName     = 24
	numberWidth  = 10 // such as -1.234e-05
	trendWidth   = 1 + trendWindows
	framesWidth  = len("  1.23e+03 frames/s")
)

// layoutFor returns the layout for rows of at most width columns. The first metric is
// shown before all else, then its trend, a bar of full width, and the rest.
func layoutFor(width int, metrics []string, rows []*rollups.Layer[layerWindows]) layout {
	l := layout{name: leastName, aligned: true}
	for _, y := range rows {
		l.name = max(l.name, min(mostName, len([]rune(y.ID))))
	}
	left := width - len("NW95VE  ") - l.name - len("  100 of  100 active")
	take := func(columns int) bool {
		fits := columns <= left
		if fits {
			left -= columns
		}
		return fits
	}
	const brackets = len(" []")
	if len(metrics) > 0 && take(metricWidth(metrics[0])) {
		l.metrics = 1
		if left >= trendWidth+brackets+narrowestBar {
			l.trend = take(trendWidth)
		}
	}
	if bar := min(widestBar, left-brackets); bar >= narrowestBar {
		l.bar = bar
		left -= brackets + bar
	}
	for l.metrics > 0 && l.metrics < len(metrics) && take(metricWidth(metrics[l.metrics])) {
		l.metrics++
	}
	l.frames = l.metrics == len(metrics) && take(framesWidth)
	return l
}

func metricWidth(name string) int { return len("  ") + len([]rune(name)) + len(" ") + numberWidth }

// row returns the text of a layer.
func (l layout) row(metrics []string, y *rollups.Layer[layerWindows]) string {
	end, health, known := y.Value.health.Last()
	var text strings.Builder
	id := []rune(y.ID)
	if l.aligned && len(id) > l.name { // layers often begin alike
		id = append([]rune{'\u2026'}, id[len(id)-l.name+1:]...)
	}
	fmt.Fprintf(&text, "%6.6s  %-*s", tail(y.Run), l.name, string(id))
	if l.bar > 0 {
		fmt.Fprintf(&text, " [%s]", bar(&health.seeds, l.bar))
	}
	fmt.Fprintf(&text, " %4d of %4d active", health.seeds.Active, health.seeds.Seen)
	for i := range y.Value.means[:min(l.metrics, len(y.Value.means))] {
		windows := &y.Value.means[i]
		measured, mean, found := windows.Last()
		switch {
		case found && measured >= end && !math.IsNaN(mean) && l.aligned:
			fmt.Fprintf(&text, "  %s %-*.4g", metrics[i], numberWidth, mean)
		case found && measured >= end && !math.IsNaN(mean):
			fmt.Fprintf(&text, "  %s %.4g", metrics[i], mean)
		case l.aligned:
			text.WriteString(strings.Repeat(" ", metricWidth(metrics[i])))
		}
		if i == 0 && l.trend {
			fmt.Fprintf(&text, " %-*s", trendWindows, trend(windows))
		}
	}
	if l.frames && known {
		fmt.Fprintf(&text, "  %.3g frames/s", health.framesPerSecond)
	}
	return strings.TrimRight(plain(text.String()), " ")
}

// tail returns the last characters of a run's ID, as ULIDs of one day begin alike.
func tail(run oona.RunID) oona.RunID { return run[max(0, len(run)-6):] }

// bar returns width letters, divided between the states in proportion to their
// seeds. A state with a seed has at least one letter, if there are enough.
func bar(c *oona.SeedCensus, width int) string {
	if c.Seen == 0 {
		return strings.Repeat(" ", width)
	}
	var widths [oona.StateCount]int
	total := 0
	for s, n := range c.ByState {
		if n > 0 {
			widths[s] = max(1, int(n*int64(width)/c.Seen))
			total += widths[s]
		}
	}
	for total != width {
		widest := slices.Index(widths[:], slices.Max(widths[:]))
		step := cmp.Compare(width, total)
		widths[widest] += step
		total += step
	}
	var text strings.Builder
	for s, n := range widths {
		text.WriteString(strings.Repeat(stateLetters[s], n))
	}
	return text.String()
}

var levels = [...]rune{'\u2581', '\u2582', '\u2583', '\u2584', '\u2585', '\u2586', '\u2587', '\u2588'}

// trend draws the last values, on a scale that has zero: small changes of a large
// number look small.
func trend(values *rollups.Windows[float64]) string {
	least, greatest := 0.0, 0.0
	for _, v := range values.All() {
		if !math.IsNaN(v) {
			least, greatest = min(least, v), max(greatest, v)
		}
	}
	scale := 0.0
	if greatest > least {
		scale = float64(len(levels)-1) / (greatest - least)
	}
	var text strings.Builder
	for _, v := range values.All() {
		if math.IsNaN(v) {
			text.WriteRune(' ')
		} else {
			text.WriteRune(levels[int((v-least)*scale+0.5)])
		}
	}
	return text.String()
}
