package scenarios

import (
	"fmt"
	"slices"

	"github.com/morphogenetic/oona"
)

// origin is the position of a record in the log of frames.
type origin struct {
	partition int32
	offset    int64
}

// rollupKey identifies a rollup.
type rollupKey struct {
	group oona.Group
	run   oona.RunID
	layer oona.LayerID
	start oona.Micros
}

func keyOf(r *oona.Rollup) rollupKey { return rollupKey{r.Group, r.Run, r.Layer, r.Start} }

// published is a rollup from its topic.
type published struct {
	oona.Rollup
	partition int32
	value     []byte
}

// result is the checked outcome of a scenario.
type result struct {
	records   int // of the log
	frames    int // of them
	rollups   map[rollupKey]*published
	reemitted int
	side      map[string]map[origin]string // reasons by topic and origin
	repeated  int                          // records that are repeats on side topics
	folded    int64
	dup       int64
	byRun     map[oona.RunID]map[string]int // frames by run and side topic ("" for folded ones)
	log       map[int32][]logRecord
}

// reasons counts the records of a side topic by reason.
func (r *result) reasons(topic string) map[string]int {
	counts := make(map[string]int)
	for _, reason := range r.side[topic] {
		counts[reason]++
	}
	return counts
}

// check compares what was published in this life of the log with the log. The workers have
// ended, or are idle.
func (w *world) check() *result {
	w.Helper()
	read := make(map[string]map[int32][]logRecord)
	for _, topic := range w.topics.Specs(0) {
		read[topic.Name] = kafka.dump(w.T, w.ctx, topic.Name)
		for p, records := range read[topic.Name] {
			read[topic.Name][p] = slices.DeleteFunc(records, func(r logRecord) bool { return r.offset < w.marks[topic.Name][p] })
		}
	}
	r := w.examine(read)
	w.figure("%d frames acknowledged of %d, answers %v", w.acks.acknowledged(), len(w.acks.frames), w.acks.answers)
	w.figure("%d records, %d folded, %d duplicate, %d late, %d quarantined, %d overflowed, %d dead, %d rollups, %d re-emitted",
		r.records, r.folded, r.dup, len(r.side[w.topics.Late]), len(r.side[w.topics.Quarantine]), len(r.side[w.topics.Overflow]), len(r.side[w.topics.SeedMetricsDead]), len(r.rollups), r.reemitted)
	w.report()
	return r
}

// report fails the scenario if faults were found.
func (w *world) report() {
	w.Helper()
	for _, fault := range w.faults {
		w.Error(fault)
	}
	if w.unsaid > 0 {
		w.Errorf("and %d more", w.unsaid)
	}
	w.faults, w.unsaid = nil, 0
}

// the limit of recorded faults; there may be very many.
const faultsKept = 20

// fault records a difference between the log and what was published.
func (w *world) fault(format string, args ...any) {
	if len(w.faults) == faultsKept {
		w.unsaid++
		return
	}
	w.faults = append(w.faults, fmt.Sprintf(format, args...))
}

// examine compares the topics with each other.
func (w *world) examine(read map[string]map[int32][]logRecord) *result {
	w.Helper()
	log := read[w.topics.SeedMetrics]
	for p, records := range log {
		if records[0].offset != 0 {
			w.Fatalf("partition %d begins at offset %d: there is nothing to hold it against", p, records[0].offset)
		}
		for i := range records {
			if records[i].offset != int64(i) {
				w.Fatalf("partition %d: offset %d is at place %d", p, records[i].offset, i)
			}
		}
	}
	r := &result{rollups: make(map[rollupKey]*published), side: make(map[string]map[origin]string), byRun: make(map[oona.RunID]map[string]int), log: log}
	w.readRollups(read, r)
	w.readSides(read, r)
	w.checkAcks(log)
	w.checkConservation(log, r)
	w.checkOracle(log, r)
	return r
}

// nothingAside checks that no frame went to a side topic.
func (w *world) nothingAside(r *result) {
	w.Helper()
	for topic, origins := range r.side {
		if len(origins) > 0 {
			w.Errorf("%d records on %s: %v", len(origins), topic, r.reasons(topic))
		}
	}
}
