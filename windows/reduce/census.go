package reduce

import (
	"slices"

	"github.com/morphogenetic/oona"
)

// Census keeps the distinct seeds of a layer's window, each in the state that the
// last record gave it. Its zero value is empty.
type Census struct {
	seeds     []oona.SeedID // in the order of their first appearance
	states    []oona.State
	next      int                 // where the next frame's seeds are expected
	positions map[oona.SeedID]int // of seeds[:indexed]; filled only if a frame's seeds are not a part of seeds
	indexed   int
}

// stretch returns where c.seeds has these seeds, one after the other. It looks where they
// are if frames have the same order each time: at the beginning, or after the seeds of the
// last frame if a layer is sent in several frames.
func (c *Census) stretch(seeds []oona.SeedID) (at int, found bool) {
	for _, at := range [...]int{c.next, 0} {
		if end := at + len(seeds); end <= len(c.seeds) && slices.Equal(c.seeds[at:end], seeds) {
			return at, true
		}
	}
	return 0, false
}

// Len returns the number of distinct seeds.
func (c *Census) Len() int { return len(c.seeds) }

// Admits reports whether there are at most limit distinct seeds, these included.
func (c *Census) Admits(seeds []oona.SeedID, limit int) bool {
	if len(c.seeds)+len(seeds) <= limit {
		return true
	}
	if _, found := c.stretch(seeds); found {
		return true
	}
	c.index()
	total := len(c.seeds)
	for _, id := range seeds {
		if _, known := c.positions[id]; !known {
			total++
		}
	}
	return total <= limit
}

// Add records the states of a frame's seeds.
func (c *Census) Add(seeds []oona.SeedID, states []oona.State) {
	if at, found := c.stretch(seeds); found {
		copy(c.states[at:], states)
		c.next = at + len(seeds)
		return
	}
	if len(c.seeds) == 0 {
		c.seeds = append(c.seeds, seeds...)
		c.states = append(c.states, states...)
		c.next = len(seeds)
		return
	}
	c.index()
	for i, id := range seeds {
		if at, known := c.positions[id]; known {
			c.states[at] = states[i]
			continue
		}
		c.positions[id] = len(c.seeds)
		c.seeds = append(c.seeds, id)
		c.states = append(c.states, states[i])
	}
	c.indexed = len(c.seeds)
	c.next = len(c.seeds)
}

func (c *Census) index() {
	if c.positions == nil {
		c.positions = make(map[oona.SeedID]int, len(c.seeds))
	}
	for at := c.indexed; at < len(c.seeds); at++ {
		c.positions[c.seeds[at]] = at
	}
	c.indexed = len(c.seeds)
}

// keptSeeds bounds the memory that a census keeps for its next use. It is a few times
// the usual number of seeds of a layer.
const keptSeeds = 4096

// Reset empties c and keeps its memory, within bounds.
func (c *Census) Reset() {
	if cap(c.seeds) > keptSeeds {
		*c = Census{}
		return
	}
	c.seeds, c.states = c.seeds[:0], c.states[:0]
	clear(c.positions)
	c.next, c.indexed = 0, 0
}

// Count returns how many seeds there are, by state.
func (c *Census) Count() oona.SeedCensus {
	sum := oona.SeedCensus{Seen: int64(len(c.seeds))}
	for _, s := range c.states {
		sum.ByState[s]++
		if s.Active() {
			sum.Active++
		}
	}
	return sum
}
