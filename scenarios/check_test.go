package scenarios

import (
	"fmt"
	"hash/crc32"
	"strconv"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/internal/catalogue"
	"github.com/morphogenetic/oona/schemas/avro"
	"github.com/morphogenetic/oona/windows"
)

// origin is where a record stands in the log of frames.
type origin struct {
	partition int32
	offset    int64
}

// rollupKey tells rollups apart.
type rollupKey struct {
	group oona.Group
	run   oona.RunID
	layer oona.LayerID
	start oona.Micros
}

func keyOf(r *oona.Rollup) rollupKey { return rollupKey{r.Group, r.Run, r.Layer, r.Start} }

// published is a rollup as it came from its topic.
type published struct {
	oona.Rollup
	partition int32
}

// result is what a scenario has left behind, once it was checked.
type result struct {
	records   int // of the log
	frames    int // of them
	rollups   map[rollupKey]*published
	reemitted int
	side      map[string]map[origin]string // reasons, by topic and origin
	repeated  int                          // records on side topics more than once
	folded    int64
	dup       int64
	byRun     map[oona.RunID]map[string]int // frames by run and side topic ("" for none)
	log       map[int32][]logRecord
}

// reasons counts why records of a side topic are there.
func (r *result) reasons(topic string) map[string]int {
	counts := make(map[string]int)
	for _, reason := range r.side[topic] {
		counts[reason]++
	}
	return counts
}

// check holds what was published against the log. The workers have ended.
func (w *world) check() *result {
	w.Helper()
	read := make(map[string]map[int32][]logRecord)
	for _, topic := range w.topics.Specs(0) {
		read[topic.Name] = kafka.dump(w.T, w.ctx, topic.Name)
	}
	r := w.examine(read)
	w.figure("%d frames acknowledged of %d, answers %v", w.ledger.acknowledged(), len(w.ledger.frames), w.ledger.answers)
	w.figure("%d records, %d folded, %d duplicate, %d late, %d quarantined, %d overflowed, %d dead, %d rollups, %d re-emitted",
		r.records, r.folded, r.dup, len(r.side[w.topics.Late]), len(r.side[w.topics.Quarantine]), len(r.side[w.topics.Overflow]), len(r.side[w.topics.SeedMetricsDead]), len(r.rollups), r.reemitted)
	for _, fault := range w.faults {
		w.Error(fault)
	}
	if w.unsaid > 0 {
		w.Errorf("and %d more", w.unsaid)
	}
	return r
}

// faults that are kept; there is no end of them where something is wrong.
const faultsKept = 20

// fault notes a difference between the log and what was published.
func (w *world) fault(format string, args ...any) {
	if len(w.faults) == faultsKept {
		w.unsaid++
		return
	}
	w.faults = append(w.faults, fmt.Sprintf(format, args...))
}

// examine holds topics against each other.
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
	w.checkLedger(log)
	w.checkConservation(log, r)
	w.checkOracle(log, r)
	return r
}

// readRollups reads both rollup topics, as a reader does that drops by trigger,
// and as one that does not. Each rollup has one content.
func (w *world) readRollups(read map[string]map[int32][]logRecord, r *result) {
	w.Helper()
	for _, group := range []oona.Group{oona.Health, oona.Performance} {
		for partition, records := range read[w.topics.Rollup(group)] {
			last := oona.Trigger{Offset: -1}
			accepted := make(map[rollupKey]bool)
			for i := range records {
				next := &published{partition: partition}
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

// readSides reads the side topics. A record is on at most one of them; it may
// be there again, with the same origin.
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

// checkLedger: what ingest has acknowledged is in the log, as it was sent, and
// nothing else is.
func (w *world) checkLedger(log map[int32][]logRecord) {
	w.Helper()
	found := make(map[identity]bool)
	var decoder avro.FrameDecoder
	var frame oona.Frame
	for _, records := range log {
		for i := range records {
			value := records[i].value
			if records[i].headers[oona.HeaderRecord] != "" {
				continue
			}
			if _, err := decoder.Decode(value, &frame); err != nil {
				if !w.foreign {
					w.fault("offset %d of partition %d is no frame: %v", records[i].offset, records[i].partition, err)
				}
				continue
			}
			id := identityOf(&frame)
			known := w.ledger.frames[id]
			switch {
			case known == nil && !w.foreign:
				w.fault("the log has a frame that nobody sent: %+v", id)
			case known != nil && known.checksum != crc32.ChecksumIEEE(value):
				w.fault("the log has other bytes of %+v than were sent", id)
			case known != nil:
				found[id] = true
			}
		}
	}
	missing := 0
	for id, s := range w.ledger.frames {
		if s.acknowledged && !found[id] {
			if missing == 0 {
				w.fault("ingest acknowledged %+v, and the log does not have it", id)
			}
			missing++
		}
	}
	if missing > 1 {
		w.fault("%d acknowledged frames are missing", missing)
	}
}

// content is what the log holds of a rollup, in plain sums.
type content struct {
	frames, readings, duplicates int64
	first, last                  int64
	sums                         map[string]float64
}

// checkConservation knows nothing of the engine. A frame of the log that is on
// no side topic was folded into its window, or is a repeat of one that was.
func (w *world) checkConservation(log map[int32][]logRecord, r *result) {
	w.Helper()
	sides := make(map[origin]string)
	for topic, origins := range r.side {
		for at := range origins {
			sides[at] = topic
		}
	}
	want := make(map[rollupKey]*content)
	folded := make(map[identity]bool)
	var decoder avro.FrameDecoder
	var f oona.Frame
	for p, records := range log {
		for i := range records {
			at := origin{p, records[i].offset}
			side, aside := sides[at]
			delete(sides, at)
			r.records++
			if records[i].headers[oona.HeaderRecord] != "" {
				if aside {
					w.fault("Oona's own record %+v is on %s", at, side)
				}
				continue
			}
			rest, err := decoder.Decode(records[i].value, &f)
			if err == nil {
				err = f.Validate(oona.DefaultFrameLimits)
			}
			if err != nil || len(rest) > 0 {
				if side != w.topics.SeedMetricsDead && side != w.topics.Overflow {
					w.fault("record %+v cannot be folded, and is on side topic %q", at, side)
				}
				continue
			}
			r.frames++
			if r.byRun[f.Run] == nil {
				r.byRun[f.Run] = make(map[string]int)
			}
			r.byRun[f.Run][side]++
			if !aside {
				w.expect(want, folded, &f, records[i].offset, r)
			}
		}
	}
	for at, topic := range sides {
		w.fault("%s has a record of %+v, which the log does not have", topic, at)
	}
	w.compare(want, r)
}

// expect adds a frame to what its window's rollups must be.
func (w *world) expect(want map[rollupKey]*content, folded map[identity]bool, f *oona.Frame, offset int64, r *result) {
	length := oona.Micros(w.windows.Length.Microseconds())
	key := rollupKey{oona.Health, f.Run, f.Layer, f.ObservedAt - f.ObservedAt%length}
	c := want[key]
	if c == nil {
		c = &content{first: offset, sums: make(map[string]float64)}
		want[key] = c
	}
	if id := identityOf(f); folded[id] {
		c.duplicates++
		r.dup++
		return
	} else {
		folded[id] = true
	}
	r.folded++
	c.frames++
	c.readings += int64(len(f.Seeds))
	c.last = offset
	for _, column := range f.Metrics {
		for _, v := range column.Values {
			c.sums[column.Name] += float64(v)
		}
	}
}

func (w *world) compare(want map[rollupKey]*content, r *result) {
	w.Helper()
	health := 0
	for key, got := range r.rollups {
		if key.group == oona.Health {
			health++
		}
		key.group = oona.Health
		c := want[key]
		if c == nil {
			w.fault("the rollup of %s/%s at %d is of no frame in the log", key.run, key.layer, key.start)
			continue
		}
		if got.Frames != c.frames || got.Readings != c.readings || got.Duplicates != c.duplicates || got.FirstOffset != c.first || got.LastOffset != c.last {
			w.fault("the rollup of %s/%s at %d has %d frames, %d readings, %d duplicates of offsets %d to %d; the log has %+v", key.run, key.layer, key.start,
				got.Frames, got.Readings, got.Duplicates, got.FirstOffset, got.LastOffset, *c)
		}
		for _, m := range got.Metrics {
			if m.Sum != c.sums[m.Name] {
				w.fault("the rollup of %s/%s at %d sums %s to %v; the log, to %v", key.run, key.layer, key.start, m.Name, m.Sum, c.sums[m.Name])
			}
		}
	}
	if health != len(want) {
		w.fault("%d windows of layers were emitted; the log has %d", health, len(want))
	}
}

// checkOracle folds the log of each partition with a fresh engine, from offset 0
// on: the rollups, their triggers, and what became of every record are the same.
func (w *world) checkOracle(log map[int32][]logRecord, r *result) {
	w.Helper()
	known, err := catalogue.Default()
	if err != nil {
		w.Fatal(err)
	}
	emitted := 0
	for p, records := range log {
		engine, err := windows.New(w.windows, known.Metric)
		if err != nil {
			w.Fatal(err)
		}
		emit := func(want *oona.Rollup) {
			emitted++
			got := r.rollups[keyOf(want)]
			switch {
			case got == nil:
				w.fault("the oracle's rollup of %s/%s at %d was not published", want.Run, want.Layer, want.Start)
			case got.Hash != want.Hash || got.Trigger != want.Trigger || got.partition != p:
				w.fault("the oracle's rollup of %s/%s at %d has hash %x and trigger %+v on partition %d; published was %x, %+v, on %d", want.Run, want.Layer, want.Start,
					want.Hash, want.Trigger, p, got.Hash, got.Trigger, got.partition)
			}
		}
		w.foldWhole(engine, records, emit, r)
		if open := engine.OpenWindows(); open > 0 {
			w.fault("%d windows of partition %d are open at the end of the log", open, p)
		}
	}
	if emitted != len(r.rollups) {
		w.fault("the oracle emitted %d rollups, %d were published", emitted, len(r.rollups))
	}
}

// foldWhole folds a partition and compares what becomes of each frame with the
// side topics.
func (w *world) foldWhole(engine *windows.Engine, records []logRecord, emit func(*oona.Rollup), r *result) {
	var decoder avro.FrameDecoder
	var frame oona.Frame
	for i := range records {
		in := windows.Record{Offset: records[i].offset, AppendedAt: records[i].appended, Path: records[i].headers[oona.HeaderPath]}
		if records[i].headers[oona.HeaderRecord] == "" {
			rest, err := decoder.Decode(records[i].value, &frame)
			if err == nil && len(rest) == 0 && frame.Validate(oona.DefaultFrameLimits) == nil {
				in.Frame, in.Checksum = &frame, uint64(crc32.ChecksumIEEE(records[i].value))
			}
		}
		outcome := engine.Fold(in, emit)
		if in.Frame == nil {
			continue // checkConservation has looked at it
		}
		side := w.sideOf(outcome.Verdict)
		at := origin{records[i].partition, in.Offset}
		for topic, origins := range r.side {
			reason, there := origins[at]
			if there != (topic == side) || there && reason != string(outcome.Reason) {
				w.fault("record %+v is %s (%s) to the oracle; on %s: %t, for %q", at, outcome.Verdict, outcome.Reason, topic, there, reason)
			}
		}
	}
}

// sideOf is the topic of records with a verdict, "" for none.
func (w *world) sideOf(v windows.Verdict) string {
	switch v {
	case windows.Late:
		return w.topics.Late
	case windows.Quarantined:
		return w.topics.Quarantine
	case windows.Overflowed:
		return w.topics.Overflow
	}
	return ""
}

// nothingAside asserts that no frame went to a side topic.
func (w *world) nothingAside(r *result) {
	w.Helper()
	for topic, origins := range r.side {
		if len(origins) > 0 {
			w.Errorf("%d records on %s: %v", len(origins), topic, r.reasons(topic))
		}
	}
}

// checkReplays holds what each worker read again against how much of the log a
// claim may need: what was open at a commit, and the idle horizon, which is
// measured in quarters.
func (w *world) checkReplays(r *result) {
	w.Helper()
	bound := w.windows.IdleHorizon*5/4 + w.windows.Length + w.windows.AllowedLateness + w.windows.OutOfOrderness + 2*w.windows.TickInterval
	most := 0 // records of a partition within the bound, wherever they are the densest
	for _, records := range r.log {
		first := 0
		for i := range records {
			for records[i].appended.Time().Sub(records[first].appended.Time()) > bound {
				first++
			}
			most = max(most, i-first+1)
		}
	}
	sum := 0
	for _, p := range w.all {
		claims := len(p.logged("partition claimed"))
		sum += p.replayed
		if p.replayed > claims*most {
			w.Errorf("a worker replayed %d records in %d claims, more than %d each", p.replayed, claims, most)
		}
	}
	w.figure("%d records replayed, a claim may %d", sum, most)
}
