package verdict

import "github.com/morphogenetic/oona"

// census follows how many seeds of a layer report, and in which states.
type census struct {
	begun    bool
	states   [oona.StateCount]int64
	living   int64 // seeds from TRAINING to FOSSILIZED
	active   int64
	ended    int64 // seeds in terminal states
	reported int64 // seeds in other states
	expected int64 // the largest value of reported so far, less the seeds that have ended since
	low      int   // windows in a row in which many of the expected seeds did not report
}

const (
	silentAccepts = 64 // after so many windows, silent seeds are no longer expected
	silentShare   = 8  // a fault if more than one in so many seeds is silent
)

// observe records the states of the seeds in a window, and how many seeds have changed their state.
func (c *census) observe(r *oona.Rollup, w *window) {
	was := *c
	c.living, c.ended = 0, 0
	moved, left := int64(0), int64(0)
	for s := range c.states {
		n := bounded(r.Seeds.ByState[s])
		d := n - c.states[s]
		c.states[s] = n
		state := oona.State(s)
		if state.Terminal() {
			c.ended += n
		}
		switch {
		case state >= oona.Training && state <= oona.Fossilized:
			c.living += n
			moved += max(d, -d)
		case state > oona.Fossilized:
			left += d
		}
	}
	c.active = bounded(r.Seeds.Active)
	w.seen = bounded(r.Seeds.Seen)
	c.reported = max(0, w.seen-c.ended)
	if c.begun {
		w.moved = moved + max(0, left)
		w.due = min(c.active, was.active)
		if w.computing = max(c.active, was.active); w.computing == 0 {
			w.computing = c.living
		}
		c.expected -= max(0, c.ended-was.ended)
	}
	c.begun = true
}

// silent judges how many seeds do not report. Seeds that have ended are not expected to.
func (c *census) silent(w *window) {
	if c.reported >= c.expected {
		c.expected, c.low = c.reported, 0
		return
	}
	r := Reason{Kind: SilentSeeds, Part: c.expected - c.reported, Of: c.expected}
	if r.Part*silentShare <= r.Of {
		c.low = 0
		return
	}
	w.share(r, silentShare)
	if c.low++; c.low >= silentAccepts {
		c.expected, c.low = c.reported, 0
	}
}

// forget forgets how many seeds are expected to report.
func (c *census) forget() { c.expected, c.low = 0, 0 }
