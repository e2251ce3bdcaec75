package watch

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/charmbracelet/x/ansi"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/rollups"
)

// StateLetters are short names of the states, for tables.
var StateLetters = [oona.StateCount]string{".", "g", "T", "G", "S", "E", "f", "F", "x", "c", "r"}

// mark is put where text was cut off.
const mark = "\u2026"

// wrap divides text between words into lines of at most width columns. A word that is
// longer has a line of its own.
func wrap(text string, width int) []string { return join(strings.Fields(text), " ", width) }

// join puts items into lines of at most width columns, with a separator between two. An
// item that is longer has a line of its own.
func join(items []string, separator string, width int) (lines []string) {
	for _, item := range items {
		if last := len(lines) - 1; last >= 0 && ansi.StringWidth(lines[last])+len(separator)+ansi.StringWidth(item) <= width {
			lines[last] += separator + item
			continue
		}
		lines = append(lines, item)
	}
	return lines
}

// Census returns the states of seeds as letters and counts, in at most width columns, for example
// ".12 T3 x1". If not all of them fit, the states with the fewest seeds are left out, and a mark
// follows at the end.
func Census(c *oona.SeedCensus, width int) string {
	var left [oona.StateCount]bool
	for {
		var text strings.Builder
		least, fewest, cut := -1, int64(math.MaxInt64), false
		for s, n := range c.ByState {
			if n == 0 || left[s] {
				cut = cut || left[s]
				continue
			}
			if text.Len() > 0 {
				text.WriteByte(' ')
			}
			fmt.Fprintf(&text, "%s%d", StateLetters[s], n)
			if n < fewest {
				least, fewest = s, n
			}
		}
		if cut {
			text.WriteString(" " + mark)
		}
		if least < 0 || ansi.StringWidth(text.String()) <= width {
			return ansi.Truncate(strings.TrimLeft(text.String(), " "), width, "")
		}
		left[least] = true
	}
}

// Short formats a duration. Below a hundred days, it has at most three characters.
func Short(d time.Duration) string {
	switch {
	case d < 100*time.Second:
		return fmt.Sprintf("%ds", max(0, d/time.Second))
	case d < 100*time.Minute:
		return fmt.Sprintf("%dm", d/time.Minute)
	case d < 100*time.Hour:
		return fmt.Sprintf("%dh", d/time.Hour)
	}
	return fmt.Sprintf("%dd", d/(24*time.Hour))
}

// pad appends spaces to text, up to width columns.
func pad(text string, width int) string {
	return text + strings.Repeat(" ", max(0, width-ansi.StringWidth(text)))
}

// CutLeft shortens text at its beginning, because the names of layers often begin in the same way.
func CutLeft(text string, width int) string {
	if ansi.StringWidth(text) <= width {
		return text
	}
	if width <= 0 {
		return ""
	}
	return mark + end(text, width-1)
}

// cutMiddle shortens text in its middle.
func cutMiddle(text string, width int) string {
	if ansi.StringWidth(text) <= width {
		return text
	}
	if width <= 0 {
		return ""
	}
	right := (width - 1) / 2
	return ansi.Truncate(text, width-1-right, "") + mark + end(text, right)
}

// end returns the end of text, of at most width columns: one less if a wide character does
// not fit.
func end(text string, width int) string {
	for n := ansi.StringWidth(text) - width; ; n++ {
		if rest := ansi.TruncateLeft(text, n, ""); ansi.StringWidth(rest) <= width {
			return rest
		}
	}
}

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
		text.WriteString(strings.Repeat(StateLetters[s], n))
	}
	return text.String()
}

var heights = [...]rune{'\u2581', '\u2582', '\u2583', '\u2584', '\u2585', '\u2586', '\u2587', '\u2588'}

// trend draws the last values. The scale includes zero, so that small changes of a large number look
// small.
func trend(values *rollups.Windows[float64]) string {
	least, greatest := 0.0, 0.0
	for _, v := range values.All() {
		if !math.IsNaN(v) {
			least, greatest = min(least, v), max(greatest, v)
		}
	}
	scale := 0.0
	if greatest > least {
		scale = float64(len(heights)-1) / (greatest - least)
	}
	var text strings.Builder
	for _, v := range values.All() {
		if math.IsNaN(v) {
			text.WriteRune(' ')
		} else {
			text.WriteRune(heights[int((v-least)*scale+0.5)])
		}
	}
	return text.String()
}
