package scenarios

import (
	"strconv"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/schemas/avro"
)

// readRollups reads both rollup topics, with and without dropping repeats by trigger. All
// copies of a rollup have the same content.
func (w *world) readRollups(read map[string]map[int32][]logRecord, r *result) {
	w.Helper()
	for _, group := range []oona.Group{oona.Health, oona.Performance} {
		for partition, records := range read[w.topics.Rollup(group)] {
			last := oona.Trigger{Offset: -1}
			accepted := make(map[rollupKey]bool)
			for i := range records {
				next := &published{partition: partition, value: records[i].value}
				if _, err := avro.DecodeRollup(records[i].value, &next.Rollup); err != nil {
					w.Fatal(err)
				}
				if next.Hash != next.ContentHash() {
					w.fault("the rollup of %s at %d is not what its hash says", next.Layer, next.Start)
				}
				key := keyOf(&next.Rollup)
				if known := r.rollups[key]; known == nil {
					r.rollups[key] = next
				} else {
					r.reemitted++
					if known.Hash != next.Hash || known.partition != partition {
						w.fault("the rollup of %s/%s at %d was emitted with two contents, at triggers %+v and %+v", next.Run, next.Layer, next.Start, known.Trigger, next.Trigger)
					}
				}
				if !next.Trigger.After(last) {
					continue
				}
				last = next.Trigger
				if accepted[key] {
					w.fault("the rollup of %s/%s at %d comes twice to a reader that drops by trigger", next.Run, next.Layer, next.Start)
				}
				accepted[key] = true
			}
			for key, known := range r.rollups {
				if key.group == group && known.partition == partition && !accepted[key] {
					w.fault("the rollup of %s/%s at %d is lost to a reader that drops by trigger", key.run, key.layer, key.start)
				}
			}
		}
	}
}

// readSides reads the side topics. A record is on at most one of them. It may be there several
// times, with the same origin.
func (w *world) readSides(read map[string]map[int32][]logRecord, r *result) {
	w.Helper()
	seen := make(map[origin]string)
	for _, topic := range []string{w.topics.Late, w.topics.Quarantine, w.topics.Overflow, w.topics.SeedMetricsDead} {
		r.side[topic] = make(map[origin]string)
		for _, records := range read[topic] {
			for i := range records {
				h := records[i].headers
				p, err := strconv.ParseInt(h[oona.HeaderErrorPartition], 10, 32)
				if err != nil || h[oona.HeaderErrorTopic] != w.topics.SeedMetrics {
					w.Fatalf("a record of %s has no origin: %v", topic, h)
				}
				offset, err := strconv.ParseInt(h[oona.HeaderErrorOffset], 10, 64)
				if err != nil {
					w.Fatalf("a record of %s has no origin: %v", topic, h)
				}
				at := origin{int32(p), offset}
				if first, again := seen[at]; again {
					r.repeated++
					if first != topic || r.side[topic][at] != h[oona.HeaderErrorException] {
						w.fault("the record %+v is on %s and on %s", at, first, topic)
					}
				}
				seen[at] = topic
				r.side[topic][at] = h[oona.HeaderErrorException]
			}
		}
	}
}
