package logtime

import (
	"math"
	"testing"

	"github.com/morphogenetic/oona"
)

func TestLogClock(t *testing.T) {
	for _, c := range []struct {
		name    string
		appends []oona.Micros
		want    oona.Micros
	}{
		{"nothing", nil, 0},
		{"the first record begins it", []oona.Micros{500}, 0},
		{"it goes with the append times", []oona.Micros{500, 503, 510}, 10},
		{"equal append times stand still", []oona.Micros{500, 503, 503, 503}, 3},
		{"after a step back it continues from there", []oona.Micros{500, 503, 100, 104}, 7},
		{"a step forth counts as the limit", []oona.Micros{500, 100_000, 100_001}, 21},
		{"from end to end", []oona.Micros{math.MinInt64, math.MaxInt64}, 20},
		{"from end to end, backwards", []oona.Micros{math.MaxInt64, math.MinInt64, math.MinInt64 + 1}, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			var clock Clock
			for _, at := range c.appends {
				clock.Advance(at, 20)
			}
			if clock.Now != c.want {
				t.Errorf("the clock is at %d, want %d", clock.Now, c.want)
			}
		})
	}
}
