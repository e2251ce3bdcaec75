package windows

import (
	"testing"
	"time"

	"github.com/morphogenetic/oona"
)

// silence appends ticks, a second apart, until all windows are closed and all producers are idle.
func (p *partition) silence(from float64) float64 {
	for range 80 {
		from++
		p.tick(from)
	}
	if n := p.engine.OpenWindows(); n != 0 {
		p.t.Helper()
		p.t.Fatalf("%d windows are open", n)
	}
	return from
}

func (p *partition) timelines() int { return p.engine.Stats().Timelines }

// When a new timeline comes, a full partition forgets the quiet timeline with the oldest watermark. The
// new timeline starts at that watermark.
func TestFullPartitionForgetsTheOldestQuietTimeline(t *testing.T) {
	p := newPartition(t, withConfig(func(c *Config) { c.MaxTimelines = 3 }))
	p.folded(p.append(0, sample{run: "b", observed: 21}))
	p.folded(p.append(0, sample{run: "a", observed: 1}))
	p.folded(p.append(0, sample{run: "c", observed: 41}))
	p.must(Overflowed, ReasonTimelines, p.append(0, sample{run: "d", observed: 50}))
	now := p.silence(0)

	p.folded(p.append(now, sample{run: "d", observed: 85})) // replaces a, whose watermark is at 15
	if got := p.timelines(); got != 3 {
		t.Fatalf("%d timelines, want 3", got)
	}
	p.must(Late, ReasonLate, p.append(now, sample{run: "a", observed: 9})) // replaces b, whose watermark is at 35
	p.must(Late, ReasonLate, p.append(now, sample{run: "a", observed: 29}))
	p.folded(p.append(now, sample{run: "a", observed: 30}))
	if got := p.engine.Stats().Evictions; got != 2 {
		t.Errorf("%d evictions, want 2", got)
	}
	// Of the three timelines, only c is quiet.
	p.folded(p.append(now, sample{run: "e", observed: 90}))
	p.must(Overflowed, ReasonTimelines, p.append(now, sample{run: "f", observed: 90}))
	p.must(Overflowed, ReasonTimelines, p.append(now, sample{run: "c", observed: 90}))
}

// If watermarks are equal, the timeline with the least hash is forgotten.
func TestEvictionTies(t *testing.T) {
	p := newPartition(t, withConfig(func(c *Config) { c.MaxTimelines = 4 }))
	runs := []oona.RunID{"a", "b", "c", "d"}
	least := runs[0]
	for _, run := range runs {
		p.folded(p.append(0, sample{run: string(run), observed: 1}))
		if (timelineKey{run: run}).hash() < (timelineKey{run: least}).hash() {
			least = run
		}
	}
	now := p.silence(0)
	p.folded(p.append(now, sample{run: "new", observed: now}))
	for _, run := range runs {
		if _, known := p.engine.timelines.named[timelineKey{run: run}]; known == (run == least) {
			t.Errorf("%s is known: %t; %s has the least hash", run, known, least)
		}
	}
}

// A timeline with an open window or an active producer is not quiet, however
// far it is behind.
func TestWhoIsNotQuiet(t *testing.T) {
	p := newPartition(t, withConfig(func(c *Config) { c.MaxTimelines = 1; c.MaxDelay = time.Second }))
	p.folded(p.append(0, sample{run: "a", observed: 1}))
	for s := range 75 {
		p.must(Overflowed, ReasonTimelines, p.append(float64(s), sample{run: "b", observed: float64(s)}))
	}
	// At 75 a's producer is idle, and its window closes.
	p.folded(p.append(75, sample{run: "b", observed: 75}))
}

// A quiet timeline is forgotten when its watermark is behind the greatest append time by more than the
// greatest MaxDelay and MaxSkew together.
func TestForgetting(t *testing.T) {
	for _, c := range []struct {
		name  string
		ticks []float64 // append times after the silence, which ends at 80
		want  int
	}{
		{"not yet", []float64{175}, 1}, // the watermark is at 15
		{"older", []float64{175.000001, 176.000001}, 0},
		{"at the next tick", []float64{175.000001}, 0},
		{"append times have stepped back since", []float64{176, 100, 101}, 0},
		{"nothing happens within a tick interval", []float64{80.5}, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := newPartition(t, withConfig(func(c *Config) { c.MaxDelay, c.MaxSkew = 100*time.Second, time.Minute }))
			p.folded(p.append(0, sample{observed: 1}))
			p.silence(0)
			for _, at := range c.ticks {
				p.tick(at)
			}
			if got := p.timelines(); got != c.want {
				t.Errorf("%d timelines, want %d", got, c.want)
			}
			if c.want == 0 && p.engine.timelines.floor != instant(15) {
				t.Errorf("the floor is %d, want %d", p.engine.timelines.floor, instant(15))
			}
		})
	}
}

// After a timeline was forgotten because of its age, no frame with an acceptable event time is late.
func TestForgettingMakesNothingLate(t *testing.T) {
	p := newPartition(t, withConfig(func(c *Config) { c.MaxDelay, c.MaxSkew = 100*time.Second, time.Minute }))
	p.folded(p.append(0, sample{observed: 1}))
	p.silence(0)
	p.tick(175)
	p.tick(176)
	if got := p.timelines(); got != 0 {
		t.Fatalf("%d timelines, want 0", got)
	}
	p.must(Quarantined, ReasonStale, p.append(176, sample{observed: 75}))
	p.folded(p.append(176, sample{observed: 76}))
}

// If two timelines have the same hash, the second one is refused, because a commit could not
// distinguish them.
func TestHashOfAnotherTimeline(t *testing.T) {
	p := newPartition(t, DefaultConfig())
	p.folded(p.append(0, sample{run: "a", observed: 1}))
	p.engine.timelines.ordered[0].hash = timelineKey{run: "b"}.hash()
	p.must(Overflowed, ReasonTimelines, p.append(0, sample{run: "b", observed: 1}))
	p.folded(p.append(0, sample{run: "a", observed: 1}))
}

// The hashes are a part of the format of commits. The expected ones were computed in Python.
func TestTimelineHashesAreForEver(t *testing.T) {
	for _, c := range []struct {
		key  timelineKey
		want uint64
	}{
		{timelineKey{"run", ""}, 0x4df2170e4143f360},
		{timelineKey{"run", "rank-1"}, 0x3dcf8d6331489305},
		{timelineKey{"ru", "n"}, 0x978ba7f2051dea73},
	} {
		if got := c.key.hash(); got != c.want {
			t.Errorf("%+v has hash %#x, want %#x", c.key, got, c.want)
		}
	}
}
