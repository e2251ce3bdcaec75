package top

import (
	"cmp"
	"math"
	"slices"
	"strings"

	"github.com/charmbracelet/x/ansi"

	"github.com/morphogenetic/oona/internal/watch"
)

// table is the content of a tab: a row for each T.
type table[T any] struct {
	title   string
	row     string // the kind of the rows; it is the first word of plain lines
	of      func(Snapshot) []T
	columns []column[T]
}

// column is a column of a table. The last column gets the rest of the width.
type column[T any] struct {
	title   string
	right   bool
	rank    int  // columns with the greatest rank are left out first; those with 0 never
	tells   bool // whether the column is left out before all others if its value is the same in all rows
	cell    func(T) string
	fit     func(t T, width int) string // used instead of cell in the last column
	paint   func(t T, text string) string
	compare func(x, y T) int
}

// look says which rows of a table are shown, and how.
type look struct {
	width   int
	filter  string // only rows with this text are shown; case does not matter
	sort    int    // number of the column to sort by, from 1; 0: the order of the snapshot
	reverse bool
	color   bool
}

const (
	gap = "  "
	// leastRest is the minimum width of the last column, as long as other columns can be left out.
	leastRest = 24
	wide      = 1 << 20
)

func (t table[T]) name() string { return t.title }

func (t table[T]) count(s Snapshot) int { return len(t.of(s)) }

// next returns the value of sort that follows the given one.
func (t table[T]) next(sort int) int { return (sort + 1) % (len(t.columns) + 1) }

// lines returns the header and the rows that l selects, in the order of l.
func (t table[T]) lines(s Snapshot, l look) (header string, lines []string) {
	rows := t.selected(s, l)
	widths := t.widths(rows)
	t.leaveOut(widths, rows, l.width)
	titles := make([]string, len(t.columns))
	for i, c := range t.columns {
		titles[i] = c.title
		if i == l.sort-1 {
			titles[i] += order(l.reverse)
		}
		if widths[i] >= 0 {
			widths[i] = max(widths[i], ansi.StringWidth(titles[i]))
		}
	}
	header = ansi.Truncate(t.join(widths, func(i int) string { return titles[i] }, nil), l.width, mark)
	for _, row := range rows {
		rest := l.width
		line := t.join(widths, func(i int) string {
			if c := t.columns[i]; c.fit != nil {
				return c.fit(row, max(0, rest))
			}
			rest -= widths[i] + len(gap)
			return t.columns[i].cell(row)
		}, func(i int, text string) string {
			if paint := t.columns[i].paint; paint != nil && l.color {
				return paint(row, text)
			}
			return text
		})
		lines = append(lines, ansi.Truncate(line, l.width, mark))
	}
	return header, lines
}

const mark = "\u2026"

func order(reverse bool) string {
	if reverse {
		return "\u25bc"
	}
	return "\u25b2"
}

// plain returns all rows with all their columns, below a header.
func (t table[T]) plain(s Snapshot) []string {
	rows := t.of(s)
	widths := t.widths(rows)
	for i, c := range t.columns {
		widths[i] = max(widths[i], len(c.title))
	}
	lines := []string{"# " + t.row + gap + strings.ToLower(t.join(widths, func(i int) string { return t.columns[i].title }, nil))}
	for _, row := range rows {
		lines = append(lines, t.row+gap+t.join(widths, func(i int) string { return t.columns[i].text(row, wide) }, nil))
	}
	return lines
}

func (c column[T]) text(row T, width int) string {
	if c.fit != nil {
		return c.fit(row, width)
	}
	return c.cell(row)
}

// selected returns the rows that l selects, in the order of l.
func (t table[T]) selected(s Snapshot, l look) []T {
	rows := slices.Clone(t.of(s))
	rows = slices.DeleteFunc(rows, func(row T) bool {
		var text strings.Builder
		for _, c := range t.columns {
			text.WriteString(c.text(row, wide) + " ")
		}
		return !strings.Contains(strings.ToLower(text.String()), strings.ToLower(l.filter))
	})
	if l.sort > 0 {
		slices.SortStableFunc(rows, t.columns[l.sort-1].compare)
	}
	if l.reverse {
		slices.Reverse(rows)
	}
	return rows
}

// widths returns the width of each column without its title.
func (t table[T]) widths(rows []T) []int {
	widths := make([]int, len(t.columns))
	for i, c := range t.columns {
		for _, row := range rows {
			if c.fit == nil {
				widths[i] = max(widths[i], ansi.StringWidth(c.cell(row)))
			}
		}
	}
	return widths
}

// leaveOut sets the width of each column for which there is no room to -1.
func (t table[T]) leaveOut(widths []int, rows []T, width int) {
	ranks := make([]int, len(t.columns))
	for i, c := range t.columns {
		ranks[i] = c.rank
		if c.tells && !slices.ContainsFunc(rows, func(row T) bool { return c.compare(row, rows[0]) != 0 }) {
			ranks[i] = math.MaxInt
		}
	}
	for {
		total, last := leastRest-len(gap), -1
		for i, c := range t.columns {
			if widths[i] < 0 {
				continue
			}
			if c.fit == nil {
				total += max(widths[i], ansi.StringWidth(c.title)) + len(gap)
			}
			if ranks[i] > 0 && (last < 0 || ranks[i] > ranks[last]) {
				last = i
			}
		}
		if total <= width || last < 0 {
			return
		}
		widths[last] = -1
	}
}

// join makes a line of cells.
func (t table[T]) join(widths []int, cell func(i int) string, paint func(i int, text string) string) string {
	var parts []string
	for i, c := range t.columns {
		if widths[i] < 0 {
			continue
		}
		text := watch.Plain(cell(i))
		space := strings.Repeat(" ", max(0, widths[i]-ansi.StringWidth(text)))
		if paint != nil {
			text = paint(i, text)
		}
		if c.right {
			parts = append(parts, space+text)
		} else {
			parts = append(parts, text+space)
		}
	}
	return strings.TrimRight(strings.Join(parts, gap), " ")
}

// by compares by a value.
func by[T any, V cmp.Ordered](value func(T) V) func(x, y T) int {
	return func(x, y T) int { return cmp.Compare(value(x), value(y)) }
}

// byKnown compares by a value that may be missing. A missing value comes last.
func byKnown[T any, V cmp.Ordered](value func(T) *V) func(x, y T) int {
	return func(x, y T) int {
		a, b := value(x), value(y)
		switch {
		case a == nil && b == nil:
			return 0
		case a == nil:
			return 1
		case b == nil:
			return -1
		}
		return cmp.Compare(*a, *b)
	}
}
