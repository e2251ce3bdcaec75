package audit

import (
	"fmt"
	"time"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/bus"
)

// places is what is known of when topics had how many partitions. Nothing says how many a
// topic had when a record was written; the number only grows. So a record is where it
// belongs if some number, up to the present one, puts it there, and nothing shows that the
// topic had more partitions by then: neither a record in a partition that this number does
// not have, nor an event of the run where the present number puts it.
type places struct {
	first map[string][]oona.Micros // by topic and partition: the append time of a record, the earliest; 0: there is none
	moved map[runPlace]oona.Micros // append time of the first event of a run in the partition where its events belong now
}

type runPlace struct {
	topic string
	run   oona.RunID
}

// moving is how long writers may go by the former number of partitions: they ask for it
// every ten seconds, and append times are of several clocks.
const moving = oona.Micros(time.Minute / time.Microsecond)

func newPlaces(extents map[string][]bus.Extent) places {
	p := places{first: make(map[string][]oona.Micros), moved: make(map[runPlace]oona.Micros)}
	for topic, partitions := range extents {
		p.first[topic] = make([]oona.Micros, len(partitions))
	}
	return p
}

// note remembers where and when a record was found. It may be called with a record again.
func (p *places) note(at *bus.Position, run oona.RunID) {
	first := p.first[at.Topic]
	if before := first[at.Partition]; before == 0 || at.Appended < before {
		first[at.Partition] = at.Appended
	}
	if run == "" || bus.PartitionOf([]byte(run), len(first)) != at.Partition {
		return
	}
	of := runPlace{at.Topic, run}
	if before, known := p.moved[of]; !known || at.Appended < before {
		p.moved[of] = at.Appended
	}
}

// judge says why an event of a run does not belong to the partition that it is in, or "".
// fewer is true if it belongs there, but with fewer partitions than the topic has now.
func (p *places) judge(at *bus.Position, run oona.RunID) (fault string, fewer bool) {
	first := p.first[at.Topic]
	now := bus.PartitionOf([]byte(run), len(first))
	if at.Partition == now {
		return "", false
	}
	if since, moved := p.moved[runPlace{at.Topic, run}]; moved && since+moving < at.Appended {
		return fmt.Sprintf("the events of the run belong to partition %d, which has some since %s", now, since.Time().Format(stamp)), false
	}
	least := int(at.Partition) + 1
	for other, since := range first {
		if since != 0 && since+moving < at.Appended {
			least = max(least, other+1)
		}
	}
	for n := least; n < len(first); n++ {
		if bus.PartitionOf([]byte(run), n) == at.Partition {
			return "", true
		}
	}
	return fmt.Sprintf("the events of the run belong to partition %d", now), false
}
