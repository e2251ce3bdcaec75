package scenarios

import (
	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/schemas/avro"
)

// content is the expected content of a rollup, computed from the log with plain sums.
type content struct {
	frames, readings, duplicates int64
	first, last                  int64
	sums                         map[string]float64
}

// checkConservation checks, without the engine, that each frame of the log that is on no side
// topic was folded into its window, or is a repeat of a folded frame.
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
		tilings := w.tilingsOf(records)
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
				w.expect(want, folded, &f, windowStart(tilings, f.ObservedAt), records[i].offset, r)
			}
		}
	}
	for at, topic := range sides {
		w.fault("%s has a record of %+v, which the log does not have", topic, at)
	}
	w.compare(want, r)
}

// tiling is an interval of event time, up to the next tiling, whose windows begin at from and
// at multiples of length after it.
type tiling struct {
	from, length oona.Micros
	generation   int32
}

// tilingsOf returns the tilings of a partition's configuration records. In the scenarios, all
// of these records have an effect.
func (w *world) tilingsOf(records []logRecord) []tiling {
	w.Helper()
	all := []tiling{{length: oona.Micros(w.windows.Length.Microseconds())}}
	first := true // starts of incarnations do not count
	for i := range records {
		kind, opens := records[i].headers[oona.HeaderRecord], first
		first = first && kind == oona.IncarnationRecord
		if kind != oona.ConfigurationRecord {
			continue
		}
		said := w.configurationIn(&records[i])
		next := tiling{length: said.Length, generation: said.Generation}
		if opens {
			all = []tiling{next}
			continue
		}
		last := all[len(all)-1]
		next.from = windowStart(all, said.From)
		if next.from < said.From {
			next.from += last.length
		}
		all = append(all, next)
	}
	return all
}

func (w *world) configurationIn(record *logRecord) *oona.WindowConfiguration {
	w.Helper()
	said, err := avro.DecodeConfiguration(record.value)
	if err != nil {
		w.Fatal(err)
	}
	return &said
}

// windowStart returns the start of the window that contains an event time.
func windowStart(tilings []tiling, at oona.Micros) oona.Micros {
	i := len(tilings) - 1
	for tilings[i].from > at {
		i--
	}
	return at - (at-tilings[i].from)%tilings[i].length
}

// expect adds a frame to the expected rollups of its window.
func (w *world) expect(want map[rollupKey]*content, folded map[identity]bool, f *oona.Frame, start oona.Micros, offset int64, r *result) {
	key := rollupKey{oona.Health, f.Run, f.Layer, start}
	c := want[key]
	if c == nil {
		c = &content{first: offset, sums: make(map[string]float64)}
		want[key] = c
	}
	id := identityOf(f)
	if folded[id] {
		c.duplicates++
		r.dup++
		return
	}
	folded[id] = true
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
