package verdict_test

import (
	"slices"
	"testing"

	"github.com/morphogenetic/oona/verdict"
)

// A fault that lasts is accepted as the new level. The return to the former level is no fault. After
// it, the same fault is found again.
func TestReturnToTheLevelBefore(t *testing.T) {
	for name, times := range map[string]float64{"high": 100, "low": .01, "16 windows": 5} {
		t.Run(name, func(t *testing.T) {
			l := layer{name: "enc"}
			j := steady(&l, "gradient_norm", 30)
			// windows returns in how many windows the layer was not OK.
			windows := func(n int, times float64) (unhealthy int) {
				for range n {
					j.Observe(l.health("gradient_norm", .03*times, .033*times, .036*times))
					if j.At(l.end).Level != verdict.OK {
						unhealthy++
					}
				}
				return unhealthy
			}
			if n := windows(80, times); n < 14 {
				t.Fatalf("the fault is seen in %d windows", n)
			}
			expect(t, "a new level that is accepted", j.At(l.end), verdict.OK)
			if n := windows(10, 1.2); n != 0 {
				t.Errorf("after the return, %d windows are not OK: %v", n, j.At(l.end).Reasons)
			}
			if n := windows(3, times); n != 2 {
				t.Errorf("%d of 3 windows of the same fault again are not OK, want 2", n)
			}
			windows(80, times)
			if n := windows(3, times*times); n != 2 {
				t.Errorf("%d of 3 windows of another fault are not OK, want 2", n)
			}
		})
	}
}

// One window at the former level is not a return. The former level is forgotten after some time.
func TestWhatIsNoReturn(t *testing.T) {
	l := layer{name: "enc"}
	j := steady(&l, "gradient_norm", 30)
	windows := func(n int, times float64) {
		for range n {
			j.Observe(l.health("gradient_norm", .03*times, .033*times, .036*times))
		}
	}
	windows(80, 100)
	windows(1, 1)
	for range 3 {
		windows(1, 100)
		expect(t, "after one window at the level before", j.At(l.end), verdict.OK)
	}
	windows(1100, 100)
	windows(2, 1)
	expect(t, "the level of long ago", j.At(l.end), verdict.Critical, verdict.Low)
	l.end += 300 * second
	windows(20, 1)
	windows(80, 100)
	l.end += 300 * second
	windows(20, 100)
	windows(2, 1)
	expect(t, "the level before a gap", j.At(l.end), verdict.Critical, verdict.Low)
}

// After a return, the same fault is also found again if only a rise is a fault.
func TestReturnWhereOnlyOneSideIsJudged(t *testing.T) {
	l := layer{name: "enc"}
	j := steady(&l, "reconstruction_loss", 30)
	windows := func(n int, times float64) {
		for range n {
			j.Observe(l.health("reconstruction_loss", .03*times, .033*times, .036*times))
		}
	}
	windows(80, 100)
	expect(t, "a new level that is accepted", j.At(l.end), verdict.OK)
	windows(4, 1)
	expect(t, "after the return", j.At(l.end), verdict.OK)
	windows(2, 100)
	expect(t, "the same again", j.At(l.end), verdict.Critical, verdict.High)
}

// A seed was an outlier, was accepted, and has returned. If it becomes an outlier again, it is found.
func TestReturnOfAnOutlier(t *testing.T) {
	l, j := layer{name: "enc"}, verdict.NewJudge(rules)
	windows := func(n int, greatest float64) {
		for range n {
			j.Observe(l.health("gradient_norm", .03, .03, .03, .03, .033, .033, .033, .036, greatest))
		}
	}
	windows(30, .036)
	windows(80, 30)
	expect(t, "an outlier that is accepted", j.At(l.end), verdict.OK)
	windows(4, .036)
	expect(t, "after the return", j.At(l.end), verdict.OK)
	windows(2, 30)
	expect(t, "the same again", j.At(l.end), verdict.Warning, verdict.Outlier)
}

// If an accepted level is better than the one before, it was no fault. So the return from it is a
// fault.
func TestReturnFromABetterLevel(t *testing.T) {
	l := layer{name: "enc"}
	j := steady(&l, "reconstruction_loss", 30)
	for _, to := range []struct {
		windows int
		times   float64
	}{{80, .01}, {2, 1}} {
		for range to.windows {
			j.Observe(l.health("reconstruction_loss", .03*to.times, .033*to.times, .036*to.times))
		}
	}
	if v := j.At(l.end); v.Level != verdict.Critical || !slices.Contains(kinds(v), verdict.High) {
		t.Errorf("%v %v", v.Level, v.Reasons)
	}
}

// The best level is taken only from the windows since the return.
func TestBestAfterAReturn(t *testing.T) {
	l, j := layer{name: "enc"}, verdict.NewJudge(func(string) verdict.Rule {
		return verdict.Rule{Judged: true, Level: verdict.Both, Warn: 2, Critical: 10, Best: true}
	})
	for _, to := range []struct {
		windows int
		times   float64
	}{{30, 1}, {80, .01}, {10, 1}} {
		for range to.windows {
			j.Observe(l.health("novel", .03*to.times, .033*to.times, .036*to.times))
		}
		expect(t, "at a level that is known", j.At(l.end), verdict.OK)
	}
}
