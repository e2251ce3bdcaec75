package verdict

import (
	"encoding/json"
	"os"
	"testing"
)

// TestVectors compares the series with another implementation, in Python, which has written
// testdata/series.json. Each row of "r" has the level of the outcome, and the state after the value.
func TestVectors(t *testing.T) {
	text, err := os.ReadFile("testdata/series.json")
	if err != nil {
		t.Fatal(err)
	}
	var vectors []struct {
		X []int32
		G []bool
		R [][5]int32
	}
	if err := json.Unmarshal(text, &vectors); err != nil {
		t.Fatal(err)
	}
	of := limits{warn: 32 * unit, critical: 107 * unit, side: Both}
	values := 0
	for i, v := range vectors {
		var s series
		for k, x := range v.X {
			out := s.add(x*unit, of, v.G[k])
			if got := [5]int32{int32(out.level), s.level, s.width, s.slow, int32(s.n)}; got != v.R[k] {
				t.Fatalf("vector %d, value %d: %v, want %v", i, k, got, v.R[k])
			}
			values++
		}
	}
	if values < 2000 {
		t.Errorf("%d values were compared", values)
	}
}

func TestSteps(t *testing.T) {
	for times, want := range map[float64]int32{2: 32, 4: 64, 10: 107, 16: 128, 32: 160, 1.1: 5} {
		if got := steps(times); got != want {
			t.Errorf("%g times is %d steps, want %d", times, got, want)
		}
	}
}

// The level before an accepted one is remembered exactly, although the level has followed the values
// outside. Noise is not taken for a return.
func TestRemembered(t *testing.T) {
	of := limits{warn: 32 * unit, critical: 107 * unit, side: Both}
	for _, jump := range []int32{60, -60, 500, -500} {
		var s series
		for k := range int32(200) {
			s.add((k%7*20-60)*unit, of, false) // a width of some 35 buckets
		}
		level, width, windows := s.level, s.width, 0
		for s.held == 0 && windows < 200 {
			s.add(level+jump*8*unit, of, false)
			windows++
		}
		if s.before != level || int32(s.held) != (width+unit-1)/unit {
			t.Errorf("by %d, accepted after %d windows: level %d and width %d, want %d and %d", jump, windows, s.before, s.held, level, width/unit)
		}
		if early := s; !early.returned(level, of, false) {
			t.Error("one value is no return while the new level is learnt")
		}
		for range 5 {
			s.add(level+jump*8*unit, of, false)
		}
		if s.returned(level, of, false) {
			t.Error("one value is a return")
		}
		s.add(level, of, false)
		if s.returned(level+jump*4*unit, of, false) {
			t.Error("a value that is halfway is a return")
		}
		if !s.returned(level+10*unit, of, false) || s.level != level || s.held != 0 {
			t.Errorf("the second value is no return: %+v", s)
		}
	}
}
