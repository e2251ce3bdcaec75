package audit

import (
	"fmt"
	"time"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/bus"
)

// places decides whether records are in the right partitions. That depends on the number of
// partitions that a topic had when a record was written, which is not known; but the number only
// grows. So a partition is accepted if it is right for some number up to the present one, unless
// an earlier record shows that the topic already had more partitions: a record in a partition that
// does not exist with the smaller number, or an event of the same run in the partition that is
// right now.
type places struct {
	first map[string][]oona.Micros // the earliest append time in each partition of each topic; 0 if there is no record
	moved map[runPlace]oona.Micros // append time of the first event of a run in the partition where its events belong now
}

type runPlace struct {
	topic string
	run   oona.RunID
}

// moving is how long writers may use the former number of partitions after it has changed. They
// ask for it every ten seconds, and append times come from several clocks.
const moving = oona.Micros(time.Minute / time.Microsecond)

func newPlaces(extents map[string][]bus.Extent) places {
	p := places{first: make(map[string][]oona.Micros), moved: make(map[runPlace]oona.Micros)}
	for topic, partitions := range extents {
		p.first[topic] = make([]oona.Micros, len(partitions))
	}
	return p
}

// note records the place and the append time of a record. It may be called twice for one record.
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

// judge returns the reason why an event of a run is in the wrong partition, or "". fewer is true if
// the partition is right, but only for fewer partitions than the topic has now.
func (p *places) judge(at *bus.Position, run oona.RunID) (fault string, fewer bool) {
	first := p.first[at.Topic]
	now := bus.PartitionOf([]byte(run), len(first))
	if at.Partition == now {
		return "", false
	}
	if since, moved := p.moved[runPlace{at.Topic, run}]; moved && since+moving < at.Appended {
		return fmt.Sprintf("the events of the run belong to partition %d, where it has had events since %s", now, since.Time().Format(stamp)), false
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
