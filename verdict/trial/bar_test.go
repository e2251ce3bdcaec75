package trial_test

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/morphogenetic/oona/internal/catalogue"
	"github.com/morphogenetic/oona/verdict"
	"github.com/morphogenetic/oona/verdict/trial"
)

// row is how well a detector finds a kind.
type row struct {
	found, critical int
	delays          []int
}

func (r *row) delay() string {
	if len(r.delays) == 0 {
		return ""
	}
	return fmt.Sprint(median(r.delays))
}

func median(of []int) int {
	if len(of) == 0 {
		return 0
	}
	slices.Sort(of)
	return of[len(of)/2]
}

// judge notes whether a detector found the fault of a run.
func (r *row) judge(o *outcome, detector int, threshold float64) bool {
	scores := o.scores[detector][o.Fault]
	for _, w := range alarms(scores, threshold) {
		if w >= o.From && w < o.To+3 {
			r.found++
			r.delays = append(r.delays, w-o.From)
			if detector == ours && slices.Contains(scores[o.From:o.To+3], float64(verdict.Critical)) {
				r.critical++
			}
			return true
		}
	}
	return false
}

// measured are the results of a comparison.
type measured struct {
	rows       map[trial.Kind]*[detectors]row
	falsely    map[trial.Kind]*[detectors]int
	windows    int // of clean layers
	critical   int // false critical alarms of the verdict
	thresholds [detectors]float64
}

func measure(t *testing.T, set trial.Set, faultyRuns, cleanRuns int) *measured {
	known, err := catalogue.Default()
	if err != nil {
		t.Fatal(err)
	}
	var bad, good []trial.Kind
	for _, k := range trial.Kinds() {
		if k.Clean() {
			good = append(good, k)
		} else {
			bad = append(bad, k)
		}
	}
	bounds := learnBounds(t, good, min(cleanRuns, 20))
	calm := observeAll(t, good, set, cleanRuns, known.Rule, bounds)
	m := &measured{rows: map[trial.Kind]*[detectors]row{}, falsely: map[trial.Kind]*[detectors]int{}, windows: len(calm) * trial.Layers * trial.Windows}
	m.thresholds[ours] = float64(verdict.Warning)
	allowed := max(m.windows/perDay, falseAlarms(calm, ours, m.thresholds[ours]))
	for _, d := range []int{fixed, zScore} {
		m.thresholds[d] = calibrate(calm, d, allowed)
	}
	m.critical = falseAlarms(calm, ours, float64(verdict.Critical))
	for i := range calm {
		o := &calm[i]
		if m.falsely[o.Kind] == nil {
			m.falsely[o.Kind] = &[detectors]int{}
		}
		for d := range detectors {
			m.falsely[o.Kind][d] += falseAlarms(calm[i:i+1], d, m.thresholds[d])
		}
		if *tuning {
			for layer, s := range o.scores[ours] {
				for _, w := range alarms(s, 1) {
					t.Logf("false: %v %d %s window %d: %s", o.Kind, i%cleanRuns, layer, w, o.why[layer][w])
				}
			}
		}
	}
	runs := observeAll(t, bad, set, faultyRuns, known.Rule, bounds)
	for i := range runs {
		o := &runs[i]
		if m.rows[o.Kind] == nil {
			m.rows[o.Kind] = &[detectors]row{}
		}
		for d := range detectors {
			found := m.rows[o.Kind][d].judge(o, d, m.thresholds[d])
			if *tuning && d == ours && !found {
				t.Logf("missed: %v %d", o.Kind, i%faultyRuns)
			}
		}
	}
	return m
}

// perDay is how many windows of 10 s a day has.
const perDay = 8640

// table writes the results as rows of Markdown.
func (m *measured) table(faultyRuns int) string {
	var b strings.Builder
	b.WriteString("| kind of fault | verdict | median delay | critical | fixed threshold | median delay | z-score | median delay |\n|---|---|---|---|---|---|---|---|\n")
	percent := func(n int) string { return fmt.Sprintf("%d%%", int(math.Round(100*float64(n)/float64(faultyRuns)))) }
	for _, k := range trial.Kinds() {
		if k.Clean() {
			continue
		}
		r := m.rows[k]
		fmt.Fprintf(&b, "| %v | %s | %s | %s | %s | %s | %s | %s |\n", k, percent(r[ours].found), r[ours].delay(), percent(r[ours].critical),
			percent(r[fixed].found), r[fixed].delay(), percent(r[zScore].found), r[zScore].delay())
	}
	b.WriteString("\n| clean runs | verdict | fixed threshold | z-score |\n|---|---|---|---|\n")
	var sum [detectors]int
	for _, k := range trial.Kinds() {
		if n := m.falsely[k]; n != nil {
			fmt.Fprintf(&b, "| %v | %d | %d | %d |\n", k, n[ours], n[fixed], n[zScore])
			for d := range sum {
				sum[d] += n[d]
			}
		}
	}
	fmt.Fprintf(&b, "| **all** | %d | %d | %d |\n", sum[ours], sum[fixed], sum[zScore])
	fmt.Fprintf(&b, "\nThere are %d runs of each kind of fault. The clean runs have %d windows of a layer, which are %d days of 10 s windows. False critical alarms of the verdict: %d.\n", faultyRuns, m.windows, m.windows/perDay, m.critical)
	return b.String()
}

// sum returns the false alarms of a detector.
func (m *measured) sum(detector int) (n int) {
	for _, of := range m.falsely {
		n += of[detector]
	}
	return n
}

// steep are the kinds that a verdict must find within three windows.
var steep = []trial.Kind{trial.LevelShift, trial.Spike, trial.Vanishing, trial.NaNShare, trial.MassDeath, trial.Silence}

// holdBar compares the results with what was agreed. OneSeed is shown and not in the bar.
func (m *measured) holdBar(t *testing.T, runs int) {
	if n := m.sum(ours); n > m.windows/perDay {
		t.Errorf("%d false alarms in %d windows of clean layers; at most one a day of %d windows", n, m.windows, perDay)
	}
	more := 0
	for k, r := range m.rows {
		best := max(r[fixed].found, r[zScore].found)
		if k == trial.OneSeed {
			continue
		}
		if r[ours].found > best {
			more++
		}
		if r[ours].found*10 < best*9 {
			t.Errorf("%v: the verdict finds %d of %d, another detector %d", k, r[ours].found, runs, best)
		}
		if slices.Contains(steep, k) && median(r[ours].delays) > 3 {
			t.Errorf("%v: found after %d windows in the median", k, median(r[ours].delays))
		}
	}
	if more < 8 {
		t.Errorf("the verdict finds more than both others in %d kinds; want 8", more)
	}
}
