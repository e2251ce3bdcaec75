package simulate

import (
	"time"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/windows"
)

// tenths returns a duration in whole tenths of a second.
func (w *world) tenths(least, most int) time.Duration {
	return time.Duration(least+w.rng.IntN(most-least+1)) * 100 * time.Millisecond
}

// begin chooses the first configuration of the partition, and returns the flags of its
// owners. They are the same, unless the first record of the log has the configuration.
func (w *world) begin() (flags windows.Config) {
	w.pace(&w.last)
	w.last.FrontierSlots = 1 << 30 // so that no two producers share one
	w.changing = w.chance(2)
	w.brief = w.changing && w.chance(3)
	w.losing = -1
	if !w.crowded && w.chance(8) {
		w.losing = 1 + w.rng.IntN(60)
		w.changing, w.brief = w.chance(4), true
	}
	w.last = w.configuration()
	w.last.Generation = int32(w.rng.IntN(3))
	w.latest, flags = w.now, w.last
	if w.chance(3) && (w.losing < 0 || w.changing) {
		flags = w.configuration()
		w.pace(&flags)
		w.arrive(windows.Record{Configuration: &windows.Configuration{Config: w.last, From: w.now - w.between(0, time.Hour)}})
	}
	return flags
}

// pace sets the tick interval and the idle horizon.
func (w *world) pace(c *windows.Config) {
	c.TickInterval = w.tenths(2, 15)
	c.IdleHorizon = 2*c.TickInterval + w.tenths(1, 80)
}

// configuration returns another configuration with the same pace and generation.
func (w *world) configuration() windows.Config {
	const many = 1000
	c := w.last
	c.Length = pick(w, time.Second, 2*time.Second, 5*time.Second, 7*time.Second)
	c.OutOfOrderness, c.AllowedLateness = w.tenths(0, 15), w.tenths(0, 30)
	c.MaxSkew = pick(w, 2*time.Second, 5*time.Second, 20*time.Second)
	c.MaxDelay = pick(w, 15*time.Second, 40*time.Second, 600*time.Second, 2*time.Hour)
	c.MaxTimelines = pick(w, 1, 2, 3, 3, 4, 8, 8)
	c.MaxAccumulators = pick(w, 2, 6, 12, many, many, many, many, many)
	c.MaxTimelineAccumulators = pick(w, 1, 3, 6, many, many, many, many, many)
	c.MaxLayers = pick(w, 1, 2, 2, many, many, many)
	c.MaxMetrics = pick(w, 2, many, many, many)
	c.MaxSeeds = pick(w, 3, 5, many, many)
	c.WorstSeeds, c.Reducer = w.rng.IntN(4), pick[int32](w, 1, 2, 2)
	if w.brief {
		c.MaxSkew, c.MaxDelay = pick(w, time.Second, 2*time.Second, 5*time.Second), pick(w, 4*time.Second, 15*time.Second)
	}
	if w.crowded {
		c.MaxTimelines, c.MaxAccumulators = many, many
	}
	return c
}

// reconfigure writes one or several configuration records. Some of them are void. Owners
// change before and after them.
func (w *world) reconfigure() {
	for range pick(w, 1, 1, 1, 2, 3) {
		c := windows.Configuration{Config: w.configuration(), From: w.begins()}
		c.Config.Generation += int32(pick(w, 0, 1, 1, 1, 1, 1, 2, 5))
		if w.chance(3) {
			w.pace(&c.Config)
		}
		void := w.spoil(&c.Config) || c.Config.Generation == w.last.Generation ||
			c.From <= w.latest+oona.Micros(w.last.MaxSkew.Microseconds()) || c.From <= w.from
		if w.chance(2) {
			w.arrive(w.premature(c.From))
		}
		w.stir()
		w.arrive(windows.Record{Configuration: &c})
		w.stir()
		if !void {
			w.last, w.from = c.Config, c.From
		}
		if w.chance(6) {
			w.arrive(windows.Record{Configuration: &c}) // the same configuration again is void
		}
	}
}

// begins returns an event time at which a configuration begins. It may be near the earliest time that
// is allowed, or later, and it may be at the end of a window.
func (w *world) begins() oona.Micros {
	earliest := w.latest + oona.Micros(w.last.MaxSkew.Microseconds()) + 1
	earliest = max(earliest, w.now+w.skew)
	at := pick(w,
		earliest, earliest, earliest-1, earliest-w.between(0, 5*time.Second),
		earliest+w.between(0, time.Second), earliest+w.between(0, 7*time.Second), earliest+w.between(0, 7*time.Second),
		earliest+w.between(0, time.Minute), w.from, w.from+w.between(0, 10*time.Second))
	if w.chance(4) {
		const second = 1_000_000
		at = (at + second - 1) / second * second
	}
	return at
}

// spoil makes some configurations invalid, and reports whether it did.
func (w *world) spoil(c *windows.Config) bool {
	switch w.rng.IntN(30) {
	case 0:
		c.IdleHorizon = 2 * c.TickInterval
	case 1:
		c.Reducer = pick[int32](w, 0, windows.Reducer+1)
	case 2:
		c.FrontierSlots--
	case 3:
		c.MaxSeeds = 0
	case 4:
		c.Length = 0
	default:
		return false
	}
	return true
}

// premature returns a frame from a clock that is ahead. Usually it is too far ahead, unless
// a configuration that begins before that time allows it.
func (w *world) premature(from oona.Micros) windows.Record {
	p := w.producers[w.rng.IntN(len(w.producers))]
	f := w.frame(p)
	f.ObservedAt = from + w.between(0, 1500*time.Millisecond)
	return windows.Record{Path: p.path, Checksum: w.rng.Uint64(), Frame: f}
}

// stir lets a random event happen to the owners.
func (w *world) stir() {
	for range w.rng.IntN(4) {
		switch w.rng.IntN(7) {
		case 0:
			w.do(fold, 0, 1)
		case 1:
			w.do(fold, 0, 1000)
		case 2:
			w.do(snapshot, 0, 0)
		case 3:
			w.do(publish, 0, 1000)
			w.do(commit, 0, 0)
		case 4:
			w.do(crash, 0, 0)
		case 5:
			w.changeOwner(takeOver)
		case 6:
			w.do(fold, 1+w.rng.IntN(maxZombies), 2)
		}
	}
}
