package trial_test

import (
	"flag"
	"fmt"
	"math"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/verdict"
	"github.com/morphogenetic/oona/verdict/trial"
)

var (
	faulty = flag.Int("faulty", 2, "runs of each kind of fault")
	clean  = flag.Int("clean", 2, "runs of each clean kind")
	tuning = flag.Bool("tuning", false, "use the runs that constants may be chosen on, and show why there were alarms")
	update = flag.Bool("update", false, "write the table into docs/verdict.md")
)

const (
	ours = iota
	fixed
	zScore
	detectors
)

// outcome is what the detectors said of a run: by detector and layer, a score for each
// window in which there was one. An alarm of the verdict has the score 1, or 2 if it is critical.
type outcome struct {
	trial.Run
	scores [detectors]map[oona.LayerID][]float64
	why    map[oona.LayerID][]string // of the verdict, by window
}

// windowCount bounds the windows of a run with its pauses.
const windowCount = 900

func silentScores() []float64 {
	s := make([]float64, windowCount)
	for i := range s {
		s[i] = math.Inf(-1)
	}
	return s
}

// observe runs all detectors on a run.
func observe(t *testing.T, r trial.Run, rule func(string) verdict.Rule, bounds *trial.Fixed) outcome {
	out := outcome{Run: r, why: map[oona.LayerID][]string{}}
	for i := range out.scores {
		out.scores[i] = map[oona.LayerID][]float64{}
	}
	run, zs := verdict.NewRun(rule), map[oona.LayerID]*trial.ZScore{}
	note := func(at oona.Micros) {
		for _, l := range run.Layers(at) {
			w := r.Window(at)
			out.scores[ours][l.Name][w] = float64(l.Level)
			if *tuning {
				out.why[l.Name][w] = fmt.Sprint(l.Reasons)
			}
		}
	}
	now := oona.Micros(0)
	err := r.Fold(func(rollup *oona.Rollup) {
		if rollup.End > now {
			if now > 0 {
				note(now)
			}
			now = rollup.End
		}
		if zs[rollup.Layer] == nil {
			zs[rollup.Layer] = &trial.ZScore{}
			for i := range out.scores {
				out.scores[i][rollup.Layer] = silentScores()
			}
			out.why[rollup.Layer] = make([]string, windowCount)
		}
		run.Observe(rollup)
		w := r.Window(rollup.End)
		for i, score := range map[int]float64{fixed: bounds.Score(rollup), zScore: zs[rollup.Layer].Score(rollup)} {
			s := &out.scores[i][rollup.Layer][w]
			*s = max(*s, score)
		}
	})
	if err != nil {
		t.Error(err)
	}
	note(now)
	for _, i := range []int{fixed, zScore} {
		for _, s := range out.scores[i] {
			inARow(s)
		}
	}
	return out
}

// inARow makes a score the lower one of two windows in a row, as alarms need two.
func inARow(scores []float64) {
	for w := len(scores) - 1; w > 0; w-- {
		scores[w] = min(scores[w], scores[w-1])
	}
	scores[0] = math.Inf(-1)
}

// alarms returns the windows in which alarms begin. One ends after three windows below
// the threshold. (The verdict has that in itself.)
func alarms(scores []float64, threshold float64) (begin []int) {
	calm := 3
	for w, s := range scores {
		switch {
		case s < threshold:
			calm++
		default:
			if calm >= 3 {
				begin = append(begin, w)
			}
			calm = 0
		}
	}
	return begin
}

// observeAll runs the detectors on n runs of each kind.
func observeAll(t *testing.T, kinds []trial.Kind, set trial.Set, n int, rule func(string) verdict.Rule, bounds *trial.Fixed) []outcome {
	all := make([]outcome, n*len(kinds))
	var wg sync.WaitGroup
	next := make(chan int)
	for range runtime.GOMAXPROCS(0) {
		wg.Go(func() {
			for i := range next {
				k := kinds[i/n]
				all[i] = observe(t, trial.New(k, set.Seed(k, i%n)), rule, bounds)
			}
		})
	}
	for i := range all {
		next <- i
	}
	close(next)
	wg.Wait()
	return all
}

// learnBounds makes the fixed thresholds from clean runs that no detector is measured on.
func learnBounds(t *testing.T, kinds []trial.Kind, n int) *trial.Fixed {
	bounds := &trial.Fixed{}
	for _, k := range kinds {
		for i := range n {
			r := trial.New(k, trial.Tuning.Seed(k, i))
			if err := r.Fold(bounds.Learn); err != nil {
				t.Fatal(err)
			}
		}
	}
	bounds.Learnt()
	return bounds
}

// falseAlarms counts alarms of clean runs.
func falseAlarms(runs []outcome, detector int, threshold float64) (n int) {
	for _, r := range runs {
		for _, scores := range r.scores[detector] {
			n += len(alarms(scores, threshold))
		}
	}
	return n
}

// calibrate returns the least threshold with at most so many false alarms.
func calibrate(runs []outcome, detector, allowed int) float64 {
	low, high := 0.0, 1e6
	for high-low > 1e-3*high {
		mid := (low + high) / 2
		if falseAlarms(runs, detector, mid) > allowed {
			low = mid
		} else {
			high = mid
		}
	}
	return high
}

// full reports whether there are enough runs to hold the bar.
func full() bool { return *faulty >= 50 && *clean >= 50 && !*tuning }

// page has the table, between the two marks.
const page, beginMark, endMark = "../../docs/verdict.md", "<!-- trial -->\n", "<!-- /trial -->\n"

// TestTrial compares the verdict with two other detectors. With few runs, as by default,
// it only looks whether anything is badly wrong. `make verdict-trial` has as many as the
// bar needs, and compares the table with that of docs/verdict.md.
func TestTrial(t *testing.T) {
	set := trial.HoldOut
	if *tuning {
		set = trial.Tuning
	}
	m := measure(t, set, *faulty, *clean)
	table := m.table(*faulty)
	t.Logf("thresholds %.3g\n%s", m.thresholds, table)
	if m.critical > 0 {
		t.Errorf("%d false critical alarms", m.critical)
	}
	if full() {
		m.holdBar(t, *faulty)
		comparePage(t, table)
		return
	}
	for k, r := range m.rows {
		if k != trial.Stall && k != trial.OneSeed && r[ours].found*2 < *faulty {
			t.Errorf("%v: the verdict finds %d of %d", k, r[ours].found, *faulty)
		}
	}
	if n := m.sum(ours); n > 2+m.windows/perDay {
		t.Errorf("%d false alarms in %d windows", n, m.windows)
	}
}

func comparePage(t *testing.T, table string) {
	text, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, ok := strings.Cut(string(text), beginMark)
	was, after, ok2 := strings.Cut(rest, endMark)
	if !ok || !ok2 {
		t.Fatalf("%s has no table between marks", page)
	}
	switch {
	case was == table:
	case *update:
		if err := os.WriteFile(page, []byte(before+beginMark+table+endMark+after), 0o644); err != nil {
			t.Fatal(err)
		}
	default:
		t.Errorf("the table of %s is another one; rewrite it with: make verdict-trial UPDATE=1", page)
	}
}

// The runs that results are measured on are none of those that constants were chosen on.
func TestSetsAreDisjoint(t *testing.T) {
	tuned := map[uint64]bool{}
	for _, k := range trial.Kinds() {
		for n := range trial.RunsPerKind {
			tuned[trial.Tuning.Seed(k, n)] = true
		}
	}
	for _, k := range trial.Kinds() {
		for n := range trial.RunsPerKind {
			if tuned[trial.HoldOut.Seed(k, n)] {
				t.Fatalf("run %d of %v is in both sets", n, k)
			}
		}
	}
	if want := len(trial.Kinds()) * trial.RunsPerKind; len(tuned) != want {
		t.Errorf("%d seeds for %d runs", len(tuned), want)
	}
}

// A run follows from its kind and seed, and has its fault where it says.
func TestRunsAreAlike(t *testing.T) {
	for _, k := range []trial.Kind{trial.Silence, trial.Gap} {
		var sums [2][]uint64
		for i := range sums {
			r := trial.New(k, trial.Tuning.Seed(k, 1))
			fewest := int64(math.MaxInt64)
			if err := r.Fold(func(rollup *oona.Rollup) {
				sums[i] = append(sums[i], rollup.Hash)
				if rollup.Group == oona.Health {
					w := r.Window(rollup.End)
					if in := rollup.Layer == r.Fault && w >= r.From && w < r.To; !in && k == trial.Silence {
						fewest = min(fewest, rollup.Seeds.Seen)
					} else if in && rollup.Seeds.Seen >= fewest {
						t.Errorf("window %d: %d seeds report, and %d without the fault", w, rollup.Seeds.Seen, fewest)
					}
				}
			}); err != nil {
				t.Fatal(err)
			}
		}
		if !slices.Equal(sums[0], sums[1]) {
			t.Errorf("%v: the same seed gave other rollups", k)
		}
		if want := 2 * trial.Windows * trial.Layers; len(sums[0]) != want {
			t.Errorf("%v: %d rollups, want %d", k, len(sums[0]), want)
		}
	}
}
