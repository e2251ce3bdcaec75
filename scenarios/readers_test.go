package scenarios

import (
	"bytes"
	"encoding/json"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/morphogenetic/oona"
)

// readers are an exporter and `oona watch --json` of both rollup topics.
type readers struct {
	name     string
	exporter *process
	watches  [2]*watch // by group
	sums     bool      // the exporter ran from the beginning, so that its sums include all rollups
}

var groups = [...]oona.Group{oona.Health, oona.Performance}

// startReaders starts readers of the whole topics. They must be stopped with stop.
func (w *world) startReaders(name string) *readers {
	w.Helper()
	r := &readers{name: name, sums: true}
	for _, end := range w.rollupEnds() {
		for _, offset := range end {
			r.sums = r.sums && offset == 0
		}
	}
	r.exporter = launch(w.T, "exporter", append(w.common(), "--lookback", "0")...)
	for _, g := range groups {
		r.watches[g] = w.startWatch(w.topics.Rollup(g))
	}
	r.exporter.awaitReady(w.T, w.ctx)
	return r
}

// watch is an `oona watch` with its output.
type watch struct {
	*process
	topic string
	shown lines
}

// startWatch starts `oona watch --all`, so that all records of the topic are shown.
func (w *world) startWatch(topic string) *watch {
	w.Helper()
	v := &watch{topic: topic}
	v.process = launchBinary(w.T, binaries["oona"], &v.shown, "watch", topic, "--brokers", w.brokers, "--prefix", w.prefix, "--from", "beginning", "--json", "--all", "--log-format", "json")
	return v
}

// lines records the lines that a process writes.
type lines struct {
	mu   sync.Mutex
	rest []byte   // the last, incomplete line
	all  [][]byte // complete lines
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.rest = append(l.rest, p...)
	for {
		line, rest, found := bytes.Cut(l.rest, []byte("\n"))
		if !found {
			return len(p), nil
		}
		l.all, l.rest = append(l.all, line), rest
	}
}

// shown has the fields of a rollup that oona watch prints and the scenarios check.
type shown struct {
	Partition int32
	Offset    int64
	Dropped   string
	Begins    bool `json:"new_incarnation"`
	Rollup    *struct {
		Run         oona.RunID       `json:"run_id"`
		Layer       oona.LayerID     `json:"layer_id"`
		Start       time.Time        `json:"window_start"`
		Incarnation oona.Incarnation `json:"incarnation"`
		Offset      int64            `json:"trigger_offset"`
		Index       int32            `json:"trigger_index"`
		Hash        string           `json:"content_hash"`
	}
}

func (l *lines) records(t *testing.T) []shown {
	t.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	records := make([]shown, len(l.all))
	for i, line := range l.all {
		if err := json.Unmarshal(line, &records[i]); err != nil || records[i].Rollup == nil {
			t.Fatalf("oona watch says %s (%v)", line, err)
		}
	}
	return records
}

// await waits until the readers have read the rollup topics to their ends.
func (r *readers) await(w *world) {
	w.Helper()
	ends := w.rollupEnds()
	w.await("readers "+r.name+" to come to the end of the rollups", func() bool {
		m := r.exporter.metrics()
		for _, v := range r.watches {
			if v.ended() {
				w.Fatalf("oona watch %s ended: %v\n%s", v.topic, v.err, v.said())
			}
			next := make(map[int32]int64)
			for _, s := range v.shown.records(w.T) {
				next[s.Partition] = s.Offset + 1
			}
			for p, end := range ends[v.topic] {
				series := fmt.Sprintf("oona_exporter_next_offset{partition=%q,topic=%q}", fmt.Sprint(p), v.topic)
				if end > 0 && (next[p] < end || int64(m[series]) < end) {
					return false
				}
			}
		}
		return true
	})
}

// stop waits until the readers have read everything, ends them, and checks that they have
// accepted each rollup once, and dropped only repeats. begun is the number of incarnations
// that they must have noticed in all partitions.
func (r *readers) stop(w *world, begun int, lives ...*result) {
	w.Helper()
	r.await(w)
	expected := make(map[rollupKey]*published)
	for _, life := range lives {
		for key, rollup := range life.rollups {
			if expected[key] != nil {
				w.Fatalf("the rollup of %s/%s at %d was emitted in two lives of the log", key.run, key.layer, key.start)
			}
			expected[key] = rollup
		}
	}
	repeats := r.check(w, expected, begun, r.exporter.metrics())
	w.report()
	w.figure("readers %s took %d rollups, %d were repeats, %d incarnations began", r.name, len(expected), repeats, begun)
	for _, v := range r.watches {
		v.terminate(w.T)
	}
	r.exporter.terminate(w.T)
}

// check compares the rollups that the readers have accepted with the expected ones. For the
// exporter, it uses the metrics.
func (r *readers) check(w *world, expected map[rollupKey]*published, begun int, metrics map[string]float64) (repeats int) {
	w.Helper()
	repeats, begins := r.checkWatches(w, expected)
	if begins != begun {
		w.fault("readers %s: %d incarnations began to oona watch, not %d", r.name, begins, begun)
	}
	r.checkExporter(w, metrics, expected, repeats, begun)
	return repeats
}

func (r *readers) checkWatches(w *world, expected map[rollupKey]*published) (repeats, begins int) {
	w.Helper()
	taken := make(map[rollupKey]int)
	for _, g := range groups {
		for _, s := range r.watches[g].shown.records(w.T) {
			if s.Begins {
				begins++
			}
			key := rollupKey{g, s.Rollup.Run, s.Rollup.Layer, oona.MicrosOf(s.Rollup.Start)}
			at := fmt.Sprintf("readers %s: oona watch has the rollup of %s/%s at %d, offset %d of partition %d of %s,", r.name, key.run, key.layer, key.start, s.Offset, s.Partition, g)
			want := expected[key]
			switch {
			case want == nil:
				w.fault("%s which is none of the oracle's", at)
			case s.Dropped == "repeat":
				repeats++
			case s.Dropped != "":
				w.fault("%s and drops it: %s", at, s.Dropped)
			case s.Rollup.Hash != fmt.Sprintf("%016x", want.Hash):
				w.fault("%s with hash %s, not %x", at, s.Rollup.Hash, want.Hash)
			case want.Trigger != oona.Trigger{Incarnation: s.Rollup.Incarnation, Offset: s.Rollup.Offset, Index: s.Rollup.Index}:
				w.fault("%s with a trigger of %+v, not %+v", at, *s.Rollup, want.Trigger)
			default:
				taken[key]++
			}
		}
	}
	for key := range expected {
		if taken[key] != 1 {
			w.fault("readers %s: oona watch took the rollup of %s/%s at %d, %s, %d times", r.name, key.run, key.layer, key.start, key.group, taken[key])
		}
	}
	return repeats, begins
}

func (r *readers) checkExporter(w *world, m map[string]float64, expected map[rollupKey]*published, repeats, begun int) {
	w.Helper()
	for name, want := range map[string]int{
		"rollups": len(expected), "repeats": repeats, "incarnations": begun,
		"conflicts": 0, "remade": 0, "behind": 0, "undecodable": 0, "stale": 0,
	} {
		if got, known := m["oona_exporter_"+name+"_total"]; !known || int(got) != want {
			w.fault("readers %s: the exporter counts %v %s, not %d", r.name, got, name, want)
		}
	}
	if !r.sums {
		return
	}
	frames := make(map[string]int64)
	for key, rollup := range expected {
		if key.group == oona.Health {
			frames[fmt.Sprintf("kasmina_layer_frames_total{layer=%q,run=%q}", key.layer, key.run)] += rollup.Frames
		}
	}
	for series, want := range frames {
		if got := m[series]; int64(got) != want {
			w.fault("readers %s: the exporter has %s at %v; the rollups have %d frames", r.name, series, got, want)
		}
	}
}

// Row 17. Exporters and `oona watch` read while the aggregator is killed several times after
// it has published rollups without a commit. Earlier and later readers accept each rollup
// once.
func readersWhileAggregatorsDie(w *world) {
	first := w.startReaders("from the beginning")
	w.startIngest()
	worker := w.startWorker("--group-instance", "one")
	finish := w.train(w.pair("run-a", 200)...)
	w.awaitUncommitted(worker)
	w.killWorker(worker)
	worker = w.startWorker("--group-instance", "one")
	w.awaitUncommitted(worker)
	second := w.startReaders("that came later")
	w.killWorker(worker)
	worker = w.startWorker("--group-instance", "one")
	w.awaitUncommitted(worker)
	w.killWorker(worker)
	w.startWorker("--group-instance", "one")
	w.pause(2 * time.Second)
	finish()
	w.stop()
	r := w.check()
	w.nothingAside(r)
	if r.reemitted == 0 {
		w.Error("nothing was emitted again: the fault did not occur")
	}
	for _, reader := range []*readers{first, second, w.startReaders("that came last")} {
		reader.stop(w, 0, r)
	}
}
