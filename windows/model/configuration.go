package model

import (
	"slices"

	"github.com/morphogenetic/oona/windows"
)

// configEpoch is a configuration and the event time from which it holds.
type configEpoch struct {
	cfg     windows.Config
	first   bool  // it holds from the beginning of time
	from    int64 // 0 of the first
	expired bool  // no frame can be of its time any more
}

// epoch returns the configuration epoch of an event time.
func (m *Model) epoch(at int64) *configEpoch {
	for i := len(m.epochs) - 1; i > 0; i-- {
		if m.epochs[i].from <= at {
			return m.epochs[i]
		}
	}
	return m.epochs[0]
}

// window returns the window of an event time, and what watermark closes it.
// Windows are counted from the beginning of their epoch.
func (m *Model) window(at int64) (start, end, closes int64) {
	e := m.epoch(at)
	length := e.cfg.Length.Microseconds()
	into := (at - e.from) % length
	if into < 0 {
		into += length
	}
	start = at - into
	return start, start + length, start + length + e.cfg.AllowedLateness.Microseconds()
}

// WindowStart returns the start of the window of an event time.
func (m *Model) WindowStart(at int64) int64 {
	start, _, _ := m.window(at)
	return start
}

// configure decides about a configuration record: it is void, or its windows begin
// where one of the old ones ends.
func (m *Model) configure(c *windows.Configuration, first bool) windows.Reason {
	last := m.epochs[len(m.epochs)-1]
	switch {
	case !sound(&c.Config):
		m.Events.VoidUnsound++
		return windows.ReasonVoid
	case first:
		m.epochs = []*configEpoch{{cfg: c.Config, first: true}}
		m.cfg = c.Config
		m.Events.Firsts++
		return windows.ReasonConfigured
	case c.Config.Generation <= last.cfg.Generation:
		m.Events.VoidGeneration++
		return windows.ReasonVoid
	case c.Config.FrontierSlots != last.cfg.FrontierSlots:
		m.Events.VoidSlots++
		return windows.ReasonVoid
	case int64(c.From) <= m.latest+last.cfg.MaxSkew.Microseconds() && m.Mutant != EarlyConfiguration:
		m.Events.VoidEarly++
		return windows.ReasonVoid
	case !last.first && int64(c.From) <= last.from:
		m.Events.VoidOrder++
		return windows.ReasonVoid
	}
	from := int64(c.From)
	if start, end, _ := m.window(from); start < from && m.Mutant != CutWindows {
		from = end
		m.Events.Rounded++
	}
	m.epochs = append(m.epochs, &configEpoch{cfg: c.Config, from: from})
	m.changeClock(c.Config)
	m.Events.Configured++
	if m.inReach() >= 3 {
		m.Events.SeveralInReach++
	}
	return windows.ReasonConfigured
}

// changeClock applies another configuration to the log clock. A slot that is idle stays
// idle. A slot that is active was last seen, as far as is known, at the end of the old
// bucket, or now if that is still to come.
func (m *Model) changeClock(next windows.Config) {
	width, oldest := m.bucketWidth(), m.bucket()-4
	m.cfg = next
	for _, t := range m.timelines {
		seen := map[sighting]int64{}
		for s, at := range t.seen {
			if s.bucket < oldest {
				continue
			}
			if m.Mutant != OldBuckets {
				s.bucket = min((s.bucket+1)*width-1, m.clock) / m.bucketWidth()
			}
			if before, known := seen[s]; !known || at > before {
				seen[s] = at
			}
			if len(t.panes) > 0 && m.bucketWidth() != width {
				m.Events.Rescaled++
			}
		}
		t.seen = seen
	}
}

// sound reports whether a configuration is valid, as far as tests make invalid ones.
func sound(c *windows.Config) bool {
	return c.Length > 0 && c.MaxSeeds > 0 && c.IdleHorizon > 2*c.TickInterval && (c.Reducer == 1 || c.Reducer == 2)
}

func (m *Model) inReach() (n int) {
	for _, e := range m.epochs {
		if !e.expired {
			n++
		}
	}
	return n
}

// retention returns the greatest age of a frame at its append that any configuration
// accepts which has not expired, and by how much append times may be wrong.
func (m *Model) retention() (longest int64) {
	for _, e := range m.epochs {
		if !e.expired {
			longest = max(longest, (e.cfg.MaxDelay + e.cfg.MaxSkew).Microseconds())
		}
	}
	return longest
}

// expire ends the epochs, in their order, that can get no more frames and have no open
// window.
func (m *Model) expire() {
	for i, e := range m.epochs[:len(m.epochs)-1] {
		open := slices.ContainsFunc(m.timelines, func(t *timeline) bool {
			for start := range t.panes {
				if m.epoch(start) == e {
					return true
				}
			}
			return false
		})
		if !e.expired && (open || m.epochs[i+1].from >= m.latest-m.retention()) {
			return
		}
		if !e.expired {
			e.expired = true
			m.Events.Expired++
		}
	}
}

// straddles reports whether windows of two configurations are open in a timeline.
func (m *Model) straddles(t *timeline) bool {
	var first *configEpoch
	for start := range t.panes {
		switch e := m.epoch(start); {
		case first == nil:
			first = e
		case first != e:
			return true
		}
	}
	return false
}

// Configurations returns all configurations that held, in their order.
func (m *Model) Configurations() (all []windows.Config) {
	for _, e := range m.epochs {
		all = append(all, e.cfg)
	}
	return all
}
