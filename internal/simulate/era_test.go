package simulate

import (
	"slices"

	"github.com/morphogenetic/oona/windows"
)

// era is a configuration and the event time from which it holds.
type era struct {
	cfg     windows.Config
	first   bool  // it holds since ever
	from    int64 // 0 of the first
	retired bool  // out of reach: no frame can be of its time any more
}

// era is that of an event time.
func (o *oracle) era(at int64) *era {
	for i := len(o.eras) - 1; i > 0; i-- {
		if o.eras[i].from <= at {
			return o.eras[i]
		}
	}
	return o.eras[0]
}

// window is the one of an event time, which is after 1970, and what watermark
// closes it. Windows are counted from the beginning of their era.
func (o *oracle) window(at int64) (start, end, closes int64) {
	a := o.era(at)
	length := a.cfg.Length.Microseconds()
	start = a.from + (at-a.from)/length*length
	return start, start + length, start + length + a.cfg.AllowedLateness.Microseconds()
}

// configure decides about a configuration record: it is void, or its windows
// begin where one of the old ones ends.
func (o *oracle) configure(c *windows.Configuration, first bool) windows.Reason {
	last := o.eras[len(o.eras)-1]
	switch {
	case !sound(&c.Config):
		o.counts.voidUnsound++
		return windows.ReasonVoid
	case first:
		o.eras = []*era{{cfg: c.Config, first: true}}
		o.cfg = c.Config
		o.counts.firsts++
		return windows.ReasonConfigured
	case c.Config.Generation <= last.cfg.Generation:
		o.counts.voidGeneration++
		return windows.ReasonVoid
	case c.Config.FrontierSlots != last.cfg.FrontierSlots:
		o.counts.voidSlots++
		return windows.ReasonVoid
	case int64(c.From) <= o.latest+last.cfg.MaxSkew.Microseconds():
		o.counts.voidEarly++
		return windows.ReasonVoid
	case !last.first && int64(c.From) <= last.from:
		o.counts.voidOrder++
		return windows.ReasonVoid
	}
	from, end, _ := o.window(int64(c.From))
	if from < int64(c.From) {
		from = end
		o.counts.rounded++
	}
	o.eras = append(o.eras, &era{cfg: c.Config, from: from})
	o.changeClock(c.Config)
	o.counts.configured++
	if o.inReach() >= 3 {
		o.counts.severalInReach++
	}
	return windows.ReasonConfigured
}

// changeClock has the log clock go by another configuration. Whoever is idle
// stays so; who is active was last seen, for all that is known, at the end of the
// old bucket, or now where that is still to come.
func (o *oracle) changeClock(next windows.Config) {
	before := o.bucketWidth()
	oldest := o.bucket() - 4
	o.cfg = next
	for _, l := range o.lines {
		l.sightings = slices.DeleteFunc(l.sightings, func(s sighting) bool { return s.bucket < oldest })
		for i := range l.sightings {
			s := &l.sightings[i]
			end := (s.bucket + 1) * before
			s.bucket = min(end-1, o.clock) / o.bucketWidth()
			if len(l.panes) > 0 && o.bucketWidth() != before {
				o.counts.rescaled++
			}
		}
		l.sightings = slices.DeleteFunc(l.sightings, func(s sighting) bool { return s.bucket < o.bucket()-4 })
	}
}

// sound is what a configuration has to be, as far as schedules break it.
func sound(c *windows.Config) bool {
	return c.Length > 0 && c.MaxSeeds > 0 && c.IdleHorizon > 2*c.TickInterval && (c.Reducer == 1 || c.Reducer == 2)
}

func (o *oracle) inReach() (n int) {
	for _, a := range o.eras {
		if !a.retired {
			n++
		}
	}
	return n
}

// memory is how old, by its append time, a frame can be that is accepted under
// any configuration in reach, and by how much append times may be off.
func (o *oracle) memory() (longest int64) {
	for _, a := range o.eras {
		if !a.retired {
			longest = max(longest, (a.cfg.MaxDelay + a.cfg.MaxSkew).Microseconds())
		}
	}
	return longest
}

// retire puts those out of reach, in their order, of whose time no frame can
// come and no window is open.
func (o *oracle) retire() {
	for i, a := range o.eras[:len(o.eras)-1] {
		open := slices.ContainsFunc(o.lines, func(l *line) bool {
			for start := range l.panes {
				if o.era(start) == a {
					return true
				}
			}
			return false
		})
		if !a.retired && (open || o.eras[i+1].from >= o.latest-o.memory()) {
			return
		}
		if !a.retired {
			a.retired = true
			o.counts.retired++
		}
	}
}

// straddles reports whether windows of two configurations are open in a
// timeline.
func (o *oracle) straddles(l *line) bool {
	var first *era
	for start := range l.panes {
		switch a := o.era(start); {
		case first == nil:
			first = a
		case first != a:
			return true
		}
	}
	return false
}
