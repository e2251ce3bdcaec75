package watch

import (
	"fmt"
	"math"
	"strings"
	"time"

	"github.com/charmbracelet/x/ansi"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/verdict"
)

// legend explains the letters of the states that occur in the rows.
func legend(rows []Row, width int) []string {
	var seen [oona.StateCount]bool
	for _, r := range rows {
		for s, n := range r.Seeds.ByState {
			seen[s] = seen[s] || n > 0
		}
	}
	var items []string
	for s, shown := range seen {
		if shown {
			name := strings.ToLower(strings.ReplaceAll(oona.State(s).String(), "_", " "))
			items = append(items, StateLetters[s]+" "+name)
		}
	}
	return join(items, "  ", width)
}

// Row is the row of a layer in a table.
type Row struct {
	Run             oona.RunID
	Layer           oona.LayerID
	End             oona.Micros // end of the window that is shown
	Judged          bool        // whether there is a Verdict
	Verdict         verdict.Verdict
	Age             time.Duration // how long the verdict has had its level
	Seeds           oona.SeedCensus
	FramesPerSecond float64
	Main            Cell // the most important metric

	trend  string   // trend of Main
	others []string // less important metrics, each with its name
}

// Cell is a metric and its value.
type Cell struct{ Name, Value string }

const (
	mostName    = 24
	leastName   = 5
	leastTrend  = 6
	leastMetric = len("gradient_norm -1.234e-05")
	gap         = "  "
)

// layout has the widths of the columns. Numbers of the same kind are aligned.
type layout struct {
	width  int
	run    bool // whether the rows have several runs
	color  bool
	name   int
	level  int
	census int
	metric int // width of the name of Main
	value  int
	trend  int // 0 if a trend does not fit
	bar    bool
	others []int // 0 if no row has the metric, or if it does not fit
}

// layoutFor returns the layout of rows of at most width columns. A column that does not fit is left
// out as a whole, so that no number is cut off.
func layoutFor(width int, rows []Row) layout {
	l := layout{width: width}
	for _, r := range rows {
		l.run = l.run || r.Run != rows[0].Run
		l.name = max(l.name, ansi.StringWidth(Plain(string(r.Layer))))
		l.level = max(l.level, ansi.StringWidth(r.Level()))
		l.census = max(l.census, ansi.StringWidth(Census(&r.Seeds, math.MaxInt)))
		l.metric = max(l.metric, ansi.StringWidth(Plain(r.Main.Name)))
		l.value = max(l.value, len(r.Main.Value))
		for i, other := range r.others {
			if i == len(l.others) {
				l.others = append(l.others, 0)
			}
			l.others[i] = max(l.others[i], ansi.StringWidth(other))
		}
	}
	l.name = min(l.name, max(leastName, min(mostName, width/5)))
	left := width - l.name - len(gap) - l.level
	if l.run {
		left -= runWidth + len(gap)
	}
	main := l.metric + len(" ") + l.value
	l.census = max(0, min(l.census, left-2*len(gap)-min(main, leastMetric)))
	left -= len(gap) + l.census + len(gap)
	l.metric = max(0, min(l.metric, left-len(" ")-l.value))
	left -= l.metric + len(" ") + l.value
	if left >= len(gap)+leastTrend {
		l.trend = min(trendWindows, left-len(gap))
		left -= len(gap) + l.trend
	}
	for i, n := range l.others {
		if n == 0 {
			continue
		}
		if left < len(gap)+n {
			l.others = l.others[:i]
			break
		}
		left -= len(gap) + n
	}
	l.bar = left >= len(gap)+barWidth
	return l
}

// line returns the text of a row.
func (l layout) line(r Row) string {
	var columns []string
	if l.run {
		columns = append(columns, pad(Plain(string(tail(r.Run))), runWidth))
	}
	level := pad(r.Level(), l.level)
	if l.color {
		level = r.Paint(level)
	}
	columns = append(columns, pad(CutLeft(Plain(string(r.Layer)), l.name), l.name), level, pad(Census(&r.Seeds, l.census), l.census))
	if len(r.Verdict.Reasons) > 0 {
		line := strings.Join(columns, gap) + gap
		return line + r.Reason(l.width-ansi.StringWidth(line))
	}
	columns = append(columns, pad(cutMiddle(Plain(r.Main.Name), l.metric), l.metric)+" "+pad(r.Main.Value, l.value))
	if l.trend > 0 {
		last := []rune(r.trend)
		columns = append(columns, pad(string(last[max(0, len(last)-l.trend):]), l.trend))
	}
	for i, n := range l.others {
		if n > 0 && i < len(r.others) {
			columns = append(columns, pad(r.others[i], n))
		}
	}
	if l.bar {
		columns = append(columns, "["+bar(&r.Seeds, barWidth-len("[]"))+"]")
	}
	return strings.TrimRight(strings.Join(columns, gap), " ")
}

// plainLine returns the row as a line for output that is not a terminal, without leaving out anything.
func (r Row) plainLine() string {
	columns := []string{pad(string(tail(r.Run)), runWidth), pad(string(r.Layer), 12), pad(r.Level(), 8), Census(&r.Seeds, math.MaxInt)}
	if r.Main.Name != "" {
		columns = append(columns, r.Main.Name+" "+r.Main.Value)
	}
	for _, other := range r.others {
		if other != "" {
			columns = append(columns, other)
		}
	}
	for _, reason := range r.Verdict.Reasons {
		columns = append(columns, reason.String())
	}
	return Plain(strings.Join(columns, gap))
}

// Level returns the level of the verdict and, if the layer is unhealthy, how long it has been so.
func (r Row) Level() string {
	switch {
	case !r.Judged:
		return "-"
	case r.Verdict.Learning:
		return "learning"
	case r.Verdict.Level == verdict.OK:
		return r.Verdict.Level.String()
	}
	return r.Verdict.Level.String() + " " + Short(r.Age)
}

// Paint colours the text of the level.
func (r Row) Paint(text string) string {
	switch {
	case !r.Judged:
		return text
	case r.Verdict.Level == verdict.Critical:
		return "\x1b[1;31m" + text + "\x1b[m"
	case r.Verdict.Level == verdict.Warning:
		return "\x1b[33m" + text + "\x1b[m"
	case r.Verdict.Learning:
		return "\x1b[2m" + text + "\x1b[m"
	}
	return "\x1b[32m" + text + "\x1b[m"
}

// Reason describes the reasons of the verdict in at most width columns: the worst reason, and the
// number of further ones. If this does not fit, it leaves out parts, but never cuts off a number.
// There must be a reason.
func (r Row) Reason(width int) string {
	worst := r.Verdict.Reasons[0]
	full, metric, fault := Plain(worst.String()), Plain(worst.Metric), brief(worst)
	more := ""
	if n := len(r.Verdict.Reasons) - 1; n > 0 {
		more = fmt.Sprintf("; %d more", n)
	}
	short := strings.TrimSpace(metric + " " + fault)
	room := width - len(" ") - ansi.StringWidth(fault)
	switch {
	case ansi.StringWidth(full+more) <= width:
		return full + more
	case ansi.StringWidth(full) <= width:
		return full
	case ansi.StringWidth(short) <= width:
		return short
	case metric != "" && room >= leastName:
		return cutMiddle(metric, room) + " " + fault
	case room >= -1:
		return fault
	}
	return cutMiddle(worst.Kind.String(), width)
}

// brief describes a reason in a few words, with the most important number.
func brief(r verdict.Reason) string {
	switch r.Kind {
	case verdict.High, verdict.Low, verdict.Regressed, verdict.Drift:
		return fmt.Sprintf("%s: %.3g", r.Kind, r.Median)
	case verdict.Outlier:
		return fmt.Sprintf("%s: %.3g", r.Kind, r.Value)
	case verdict.Stuck, verdict.Stalled:
		return r.Kind.String()
	}
	return fmt.Sprintf("%s: %d of %d", r.Kind, r.Part, r.Of)
}

const (
	runWidth = 6
	barWidth = 34
)

// tail returns the last characters of a run's ID, because ULIDs of one day have the same beginning.
func tail(run oona.RunID) oona.RunID { return run[max(0, len(run)-runWidth):] }
