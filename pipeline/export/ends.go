package export

import (
	"time"

	"github.com/morphogenetic/oona/bus"
)

// SetEnds tells the stage where the rollup topics ended at a time, so that it can say how
// far it is behind. The keys are the names of topics. Until the first call it does not
// know.
func (s *Stage) SetEnds(extents map[string][]bus.Extent, at time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, g := range groups {
		topic := s.cfg.Topics.Rollup(g)
		begins := make(map[int32]int64)
		for _, r := range s.log.Ranges(topic) {
			begins[r.Partition] = r.From
		}
		for i, e := range extents[topic] {
			s.setEnd(place{g, int32(i)}, e.End, begins[int32(i)], at)
		}
	}
}

// end is where a partition's log ended when it was last asked for.
type end struct {
	offset int64
	begins int64     // where reading began
	level  time.Time // when everything had last been read; at first, when the end was first asked for
}

func (s *Stage) setEnd(of place, offset, begins int64, at time.Time) {
	e := s.ends[of]
	if e == nil {
		e = &end{level: at}
		s.ends[of] = e
	}
	e.offset, e.begins = offset, begins
	if s.read(of, e) >= offset {
		e.level = at
	}
}

// read returns the offset up to which a partition was read. A stage that has read no
// record of it is where it began.
func (s *Stage) read(of place, e *end) int64 {
	if p := s.partitions[of]; p != nil {
		return p.next.Load()
	}
	return e.begins
}

// lags calls do for each partition whose end is known, with the number of offsets that
// are not read yet, and the time since everything was read.
func (s *Stage) lags(now time.Time, do func(topic string, partition int32, records int64, since time.Duration)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for of, e := range s.ends {
		records, since := max(0, e.offset-s.read(of, e)), time.Duration(0)
		if records > 0 {
			since = max(0, now.Sub(e.level))
		}
		do(s.cfg.Topics.Rollup(of.group), of.partition, records, since)
	}
}
