package top

import (
	"cmp"
	"fmt"
	"math"
	"strings"
	"time"

	"github.com/charmbracelet/x/ansi"

	"github.com/morphogenetic/oona/internal/watch"
	"github.com/morphogenetic/oona/verdict"
)

// tab is a table, whatever the type of its rows.
type tab interface {
	name() string
	count(s Snapshot) int
	next(sort int) int
	lines(s Snapshot, l look) (header string, lines []string)
	plain(s Snapshot) []string
}

func tabs() []tab { return []tab{layersTab(), partitionsTab(), sidesTab(), ingestsTab()} }

const mostName = 24

func layersTab() tab {
	return table[watch.Row]{
		title: "Layers", row: "layer", of: func(s Snapshot) []watch.Row { return s.Layers },
		columns: []column[watch.Row]{
			{title: "RUN", rank: 1, tells: true, cell: func(r watch.Row) string { return string(r.Run[max(0, len(r.Run)-6):]) }, compare: by(func(r watch.Row) string { return string(r.Run) })},
			{title: "LAYER", cell: func(r watch.Row) string { return watch.CutLeft(string(r.Layer), mostName) }, compare: func(x, y watch.Row) int { return verdict.CompareLayers(x.Layer, y.Layer) }},
			{title: "VERDICT", cell: watch.Row.Level, paint: watch.Row.Paint, compare: func(x, y watch.Row) int {
				return cmp.Or(-cmp.Compare(x.Verdict.Level, y.Verdict.Level), -cmp.Compare(x.Age, y.Age))
			}},
			{title: "SEEDS", rank: 2, cell: func(r watch.Row) string { return watch.Census(&r.Seeds, math.MaxInt) }, compare: by(func(r watch.Row) int64 { return -r.Seeds.Active })},
			{title: "FRAMES/S", rank: 3, right: true, cell: func(r watch.Row) string { return number(r.FramesPerSecond) }, compare: by(func(r watch.Row) float64 { return -r.FramesPerSecond })},
			{title: "REASONS", fit: why, compare: by(func(r watch.Row) string { return why(r, wide) })},
		},
	}
}

// why returns the reasons of the verdict. If there are none, it returns the main metric.
func why(r watch.Row, width int) string {
	if len(r.Verdict.Reasons) > 0 {
		return r.Reason(width)
	}
	return cut(strings.TrimSpace(r.Main.Name+" "+r.Main.Value), width)
}

// cut shortens text between words.
func cut(text string, width int) string {
	words := strings.Fields(text)
	for n := len(words); n > 0; n-- {
		short := strings.Join(words[:n], " ")
		if n < len(words) {
			short += " " + mark
		}
		if ansi.StringWidth(short) <= width {
			return short
		}
	}
	return ansi.Truncate(text, width, mark)
}

func partitionsTab() tab {
	return table[Partition]{
		title: "Partitions", row: "partition", of: func(s Snapshot) []Partition { return s.Partitions },
		columns: []column[Partition]{
			{title: "PARTITION", right: true, cell: func(p Partition) string { return fmt.Sprint(p.Partition) }, compare: by(func(p Partition) int32 { return p.Partition })},
			{title: "LAG", right: true, cell: func(p Partition) string { return count(p.Lag) }, compare: most(func(p Partition) *int64 { return p.Lag })},
			{title: "SECONDS", right: true, cell: func(p Partition) string { return known(p.LagSeconds) }, compare: most(func(p Partition) *float64 { return p.LagSeconds })},
			{title: "RECORDS/S", right: true, cell: func(p Partition) string { return known(p.PerSecond) }, compare: most(func(p Partition) *float64 { return p.PerSecond })},
			{title: "END", rank: 1, right: true, cell: func(p Partition) string { return fmt.Sprint(p.End) }, compare: by(func(p Partition) int64 { return -p.End })},
			{title: "OWNER", fit: func(p Partition, width int) string {
				owner := cmp.Or(p.Owner, "nobody")
				if p.Fault != "" {
					owner += ": " + p.Fault
				}
				return ansi.Truncate(owner, width, mark)
			}, compare: by(func(p Partition) string { return p.Owner })},
		},
	}
}

func sidesTab() tab {
	return table[Side]{
		title: "Side topics", row: "side", of: func(s Snapshot) []Side { return s.Sides },
		columns: []column[Side]{
			{title: "RECORDS", right: true, cell: func(s Side) string { return fmt.Sprint(s.Records) }, compare: by(func(s Side) int64 { return -s.Records })},
			{title: "PER SECOND", right: true, cell: func(s Side) string { return known(s.PerSecond) }, compare: most(func(s Side) *float64 { return s.PerSecond })},
			{title: "LAST MINUTE", right: true, cell: func(s Side) string { return whole(s.PerMinute) }, compare: most(func(s Side) *float64 { return s.PerMinute })},
			{title: "OF", cell: func(s Side) string { return s.Name }, compare: by(func(s Side) string { return s.Name })},
			{title: "TOPIC", fit: func(s Side, width int) string { return watch.CutLeft(s.Topic, width) }, compare: by(func(s Side) string { return s.Topic })},
		},
	}
}

// seen is an ingest in a snapshot of a given time.
type seen struct {
	Ingest
	at time.Time
}

func ingestsTab() tab {
	return table[seen]{
		title: "Ingests", row: "ingest",
		of: func(s Snapshot) (all []seen) {
			for _, i := range s.Ingests {
				all = append(all, seen{i, s.At})
			}
			return all
		},
		columns: []column[seen]{
			{title: "NAME", cell: func(i seen) string { return watch.CutLeft(cmp.Or(i.Name, "-"), mostName) }, compare: by(func(i seen) string { return i.Name })},
			{title: "LAST FRAME", right: true, cell: seen.age, compare: func(x, y seen) int { return y.Seen.Compare(x.Seen) }},
			{title: "FRAMES/S", right: true, cell: func(i seen) string { return i.frames() }, compare: most(func(i seen) *float64 { return i.PerSecond })},
			{title: "REFUSED/S", rank: 1, right: true, cell: func(i seen) string { return known(i.Refused) }, compare: most(func(i seen) *float64 { return i.Refused })},
			{title: "STATE", fit: func(i seen, width int) string { return ansi.Truncate(i.state(), width, mark) }, compare: by(func(i seen) string { return i.state() })},
		},
	}
}

func (i seen) age() string {
	if i.Seen.IsZero() {
		return "-"
	}
	return watch.Short(i.at.Sub(i.Seen)) + " ago"
}

// frames returns the rate, with the mark ~ if it is an estimate.
func (i seen) frames() string {
	if i.PerSecond != nil && i.BusUp == nil {
		return "~" + number(*i.PerSecond)
	}
	return known(i.PerSecond)
}

func (i seen) state() string {
	switch {
	case i.Fault != "":
		return i.Fault
	case i.BusUp == nil:
		return "seen on the bus"
	case *i.BusUp:
		return "bus up, " + i.Worker
	}
	return "bus down, " + i.Worker
}

// number formats a rate.
func number(x float64) string {
	switch {
	case x == 0:
		return "0"
	case x < 10:
		return fmt.Sprintf("%.2f", x)
	case x < 100:
		return fmt.Sprintf("%.1f", x)
	}
	return fmt.Sprintf("%.0f", x)
}

func known(x *float64) string {
	if x == nil {
		return "-"
	}
	return number(*x)
}

func whole(x *float64) string {
	if x == nil {
		return "-"
	}
	return fmt.Sprintf("%.0f", *x)
}

func count(n *int64) string {
	if n == nil {
		return "-"
	}
	return fmt.Sprint(*n)
}

// most compares by a value that may be missing. The greatest value comes first, a missing one last.
func most[T any, V int64 | float64](value func(T) *V) func(x, y T) int {
	return byKnown(func(t T) *V {
		v := value(t)
		if v == nil {
			return nil
		}
		negative := -*v
		return &negative
	})
}
