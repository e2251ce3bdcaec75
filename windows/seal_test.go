package windows

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/morphogenetic/oona"
)

func TestSealsAreStretches(t *testing.T) {
	var s seals
	a := newConfigEpoch(withConfig(func(c *Config) { c.Length, c.AllowedLateness = 10*time.Microsecond, 0 }), unset, unknown)
	steps := []struct {
		start, end oona.Micros
		layers     int
		want       string
	}{
		{20, 30, 0, "[{20 30 0}]"},
		{40, 50, 0, "[{20 30 0} {40 50 0}]"},
		{30, 40, 0, "[{20 50 0}]"},
		{50, 60, 1, "[{20 50 0} {50 60 1}]"},
		{10, 20, 0, "[{10 50 0} {50 60 1}]"},
		{0, 10, 2, "[{0 10 2} {10 50 0} {50 60 1}]"},
		{60, 70, 1, "[{0 10 2} {10 50 0} {50 70 1}]"},
	}
	for _, c := range steps {
		s.add(a, c.start, c.end, c.layers)
		if got := stretches(s); got != c.want {
			t.Fatalf("with [%d, %d): %s, want %s", c.start, c.end, got, c.want)
		}
	}
	if got := s.windows(); got != 7 {
		t.Errorf("%d windows are sealed, want 7", got)
	}
	s.drop(30)
	if got, want := stretches(s), "[{30 50 0} {50 70 1}]"; got != want {
		t.Errorf("after those before 30 were dropped: %s, want %s", got, want)
	}
	s.drop(100)
	if len(s) != 0 {
		t.Errorf("after all were dropped: %v", s)
	}
}

// stretches formats seals without their configuration epochs.
func stretches(s seals) string {
	var list []string
	for _, e := range s {
		list = append(list, fmt.Sprintf("{%d %d %d}", e.start, e.end, e.layers))
	}
	return fmt.Sprint(list)
}

// In whichever order windows are sealed, each keeps the limit that it was sealed with. Adjacent windows
// with equal limits become one seal.
func TestSealsAtRandom(t *testing.T) {
	a := newConfigEpoch(withConfig(func(c *Config) { c.Length, c.AllowedLateness = 10*time.Microsecond, 0 }), unset, unknown)
	for seed := range uint64(200) {
		rng := rand.New(rand.NewPCG(seed, 3))
		var s seals
		limits := map[oona.Micros]int{}
		for _, n := range rng.Perm(30)[:20] {
			start := oona.Micros(n)*10 - 100
			limits[start] = rng.IntN(2)
			s.add(a, start, start+10, limits[start])
		}
		first := oona.Micros(rng.IntN(20))*10 - 100
		s.drop(first)
		for start := oona.Micros(-110); start < 210; start += 10 {
			want, sealed := limits[start]
			sealed = sealed && start >= first
			if got, found := s.limit(start); found != sealed || found && got != want {
				t.Fatalf("seed %d: the limit at %d is %d (%t), want %d (%t), of %v", seed, start, got, found, want, sealed, s)
			}
		}
		if !slices.IsSortedFunc(s, func(a, b seal) int { return int(a.start - b.start) }) {
			t.Fatalf("seed %d: %v is not in order", seed, s)
		}
		for i := 1; i < len(s); i++ {
			if s[i-1].end == s[i].start && s[i-1].layers == s[i].layers {
				t.Fatalf("seed %d: %v has neighbours that are one", seed, s)
			}
		}
	}
}

// A window that would open one accumulator too many is sealed. It stays sealed when there is room
// again, and other windows can open then.
func TestPartitionCapSeals(t *testing.T) {
	p := newPartition(t, withConfig(func(c *Config) { c.MaxAccumulators, c.MaxTimelineAccumulators = 3, 3 }))
	p.folded(p.append(0, sample{run: "a", layer: "x", observed: 1}))
	p.folded(p.append(0, sample{run: "a", layer: "y", observed: 1}))
	p.folded(p.append(0, sample{run: "b", layer: "x", observed: 11}))
	p.must(Overflowed, ReasonSealed, p.append(0, sample{run: "b", layer: "y", observed: 11}))
	p.must(Overflowed, ReasonSealed, p.append(0, sample{run: "b", layer: "y", observed: 21})) // this window has no layer yet
	p.folded(p.append(0, sample{run: "b", layer: "x", observed: 12}))
	if got := p.engine.Stats(); got.SealedWindows != 2 || got.Accumulators != 3 {
		t.Errorf("%d windows are sealed and %d accumulators open, want 2 and 3", got.SealedWindows, got.Accumulators)
	}
	p.folded(p.append(0, sample{run: "a", layer: "x", observed: 1, sequence: 7}))
	p.must(Overflowed, ReasonSealed, p.append(0, sample{run: "a", layer: "x", observed: 16}))
	p.wantClosed("a//x@0", "a//y@0") // the refused frame has advanced the watermark

	p.must(Overflowed, ReasonSealed, p.append(0, sample{run: "b", layer: "y", observed: 11}))
	p.must(Overflowed, ReasonSealed, p.append(0, sample{run: "b", layer: "x", observed: 21}))
	p.folded(p.append(0, sample{run: "b", layer: "x", observed: 31}))
	p.folded(p.append(0, sample{run: "b", layer: "x", observed: 41}))
	p.wantClosed("b//x@10")
	if got := p.engine.Stats().SealedWindows; got != 1 { // the window of a at 10; the watermark of b has passed both sealed windows of b
		t.Errorf("%d windows are sealed, want 1", got)
	}
}

// The limit of a timeline leaves room for other timelines.
func TestTimelineShareSeals(t *testing.T) {
	p := newPartition(t, withConfig(func(c *Config) { c.MaxAccumulators, c.MaxTimelineAccumulators = 10, 2 }))
	p.folded(p.append(0, sample{run: "a", layer: "x", observed: 1}))
	p.folded(p.append(0, sample{run: "a", layer: "x", observed: 11}))
	p.must(Overflowed, ReasonSealed, p.append(0, sample{run: "a", layer: "y", observed: 11}))
	p.folded(p.append(0, sample{run: "b", layer: "y", observed: 11}))
}

// A frame that exceeds another cap seals no window.
func TestOtherCapsComeBeforeTheSeal(t *testing.T) {
	p := newPartition(t, withConfig(func(c *Config) { c.MaxAccumulators, c.MaxTimelineAccumulators, c.MaxSeeds = 1, 1, 1 }))
	p.folded(p.append(0, sample{observed: 1}))
	p.must(Overflowed, ReasonSeeds, p.append(0, sample{observed: 11, seeds: []oona.SeedID{1, 2}}))
	if got := p.engine.Stats().SealedWindows; got != 0 {
		t.Errorf("%d windows are sealed", got)
	}
}
