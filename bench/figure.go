package main

import (
	"fmt"
	"io"
	"math"
	"slices"
	"strings"
	"text/tabwriter"
)

// figure is one line of the table. It has one value per round.
type figure struct {
	name   string // also the key in the JSON
	unit   string
	about  string // a short description
	goal   float64
	below  bool // the goal is an upper bound
	values []float64
}

// median returns the median of the values, or NaN if there are no values.
func (f *figure) median() float64 {
	if len(f.values) == 0 {
		return math.NaN()
	}
	sorted := slices.Sorted(slices.Values(f.values))
	middle := len(sorted) / 2
	if len(sorted)%2 == 1 {
		return sorted[middle]
	}
	return (sorted[middle-1] + sorted[middle]) / 2
}

// verdict compares the median with the goal.
func (f *figure) verdict() string {
	switch {
	case f.goal == 0:
		return ""
	case f.below:
		return fmt.Sprintf("%s (goal: at most %s)", reached(f.median() <= f.goal), number(f.goal))
	}
	return fmt.Sprintf("%s (goal: at least %s)", reached(f.median() >= f.goal), number(f.goal))
}

func reached(yes bool) string {
	if yes {
		return "reached"
	}
	return "not reached"
}

// figures has the figures in the order in which their first values were added.
type figures struct {
	list []*figure
}

// take adds the value of a round to a figure.
func (s *figures) take(f figure, value float64) {
	for _, known := range s.list {
		if known.name == f.name {
			known.values = append(known.values, value)
			return
		}
	}
	f.values = []float64{value}
	s.list = append(s.list, &f)
}

// takeRatio adds a value to f: the last value of above divided by the last value of below. It adds
// nothing if one of them has no value.
func (s *figures) takeRatio(f, above, below figure) {
	if ratio := s.latest(above) / s.latest(below); !math.IsNaN(ratio) {
		s.take(f, ratio)
	}
}

// takeOverMedian adds a value to f: the median of above divided by the last value of below. It adds
// nothing if one of them has no value. Call it after all rounds of above.
func (s *figures) takeOverMedian(f, above, below figure) {
	for _, known := range s.list {
		if known.name == above.name {
			if ratio := known.median() / s.latest(below); !math.IsNaN(ratio) {
				s.take(f, ratio)
			}
			return
		}
	}
}

// putOfMedians sets the only value of f: the median of above divided by the median of below. Call it
// after each round, because each round changes the medians.
func (s *figures) putOfMedians(f, above, below figure) {
	of := make(map[string]float64)
	var at *figure
	for _, known := range s.list {
		of[known.name] = known.median()
		if known.name == f.name {
			at = known
		}
	}
	if at == nil {
		s.take(f, 0)
		at = s.list[len(s.list)-1]
	}
	at.values = []float64{of[above.name] / of[below.name]}
}

// latest returns the last value of a figure, or NaN if it has none yet.
func (s *figures) latest(f figure) float64 {
	for _, known := range s.list {
		if known.name == f.name {
			return known.values[len(known.values)-1]
		}
	}
	return math.NaN()
}

// print writes the table.
func (s *figures) print(w io.Writer) error {
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "figure\tmedian\tleast\tmost\tunit\twhat it is\tgoal")
	for _, f := range s.list {
		fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%s\t%s\t%s\n", f.name, number(f.median()),
			number(slices.Min(f.values)), number(slices.Max(f.values)), f.unit, f.about, f.verdict())
	}
	return table.Flush()
}

// number formats x with three significant digits.
func number(x float64) string {
	switch {
	case math.Abs(x) >= 100:
		return fmt.Sprintf("%.0f", x)
	case math.Abs(x) >= 10:
		return fmt.Sprintf("%.1f", x)
	}
	return strings.TrimRight(strings.TrimRight(fmt.Sprintf("%.3f", x), "0"), ".")
}
