package scenarios

import (
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/schemas/avro"
	"github.com/morphogenetic/oona/windows"
)

// The checks of the scenarios can fail: topics as an aggregator writes them have no fault,
// and each of several errors in them is noticed.
func TestExamineNoticesErrors(t *testing.T) {
	for _, c := range []struct {
		name  string
		spoil func(w *world, read topicsRead)
		says  string // one of the faults that must be found; empty: none
	}{
		{"nothing", func(*world, topicsRead) {}, ""},
		{"a rollup again", func(w *world, read topicsRead) {
			health := read[w.topics.LayerHealth]
			health[0] = append(health[0], health[0][1])
		}, ""},
		{"a rollup is missing", func(w *world, read topicsRead) {
			health := read[w.topics.LayerHealth]
			health[0] = health[0][1:]
		}, "was not published"},
		{"two contents", func(w *world, read topicsRead) {
			again(t, w, read, func(r *oona.Rollup) { r.Frames++ })
		}, "with two contents"},
		{"a frame that is folded twice", func(w *world, read topicsRead) {
			change(t, w, read, func(r *oona.Rollup) { r.Frames++; r.Hash = r.ContentHash() })
		}, "frames"},
		{"another sum", func(w *world, read topicsRead) {
			change(t, w, read, func(r *oona.Rollup) { r.Metrics[0].Sum++; r.Hash = r.ContentHash() })
		}, "sums"},
		{"another trigger", func(w *world, read topicsRead) {
			change(t, w, read, func(r *oona.Rollup) { r.Trigger.Index += 100; r.Hash = r.ContentHash() })
		}, "the oracle's rollup"},
		{"another generation", func(w *world, read topicsRead) {
			change(t, w, read, func(r *oona.Rollup) { r.Generation++; r.Hash = r.ContentHash() })
		}, "the oracle's rollup"},
		{"a window that is cut", func(w *world, read topicsRead) {
			change(t, w, read, func(r *oona.Rollup) { r.Start += 500_000; r.Hash = r.ContentHash() })
		}, "is of no frame in the log"},
		{"a hash that is not the content's", func(w *world, read topicsRead) {
			change(t, w, read, func(r *oona.Rollup) { r.Watermark++ })
		}, "is not what its hash says"},
		{"rollups out of order", func(w *world, read topicsRead) {
			slices.Reverse(read[w.topics.LayerHealth][0])
		}, "is lost to a reader"},
		{"a late record is missing", func(w *world, read topicsRead) {
			late := read[w.topics.Late]
			late[0] = late[0][1:]
		}, "is late (late) to the oracle"},
		{"a record on two side topics", func(w *world, read topicsRead) {
			read[w.topics.Quarantine] = map[int32][]logRecord{0: read[w.topics.Late][0][:1]}
		}, "is on"},
		{"a folded record on a side topic", func(w *world, read topicsRead) {
			stray := read[w.topics.Late][0][0]
			stray.headers = map[string]string{oona.HeaderErrorTopic: w.topics.SeedMetrics, oona.HeaderErrorPartition: "0", oona.HeaderErrorOffset: "2", oona.HeaderErrorException: "late"}
			read[w.topics.Late][0] = append(read[w.topics.Late][0], stray)
		}, "is folded () to the oracle"},
		{"an acknowledged frame is missing", func(w *world, _ topicsRead) {
			w.acks.frames[identity{"run-a", "lost", 1, 1}] = &sent{acknowledged: true}
		}, "the log does not have it"},
		{"other bytes than were sent", func(w *world, _ topicsRead) {
			for _, s := range w.acks.frames {
				s.checksum++
				break
			}
		}, "other bytes"},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := &world{T: t, windows: shortWindows(), acks: newAcks()}
			var err error
			if w.topics, err = oona.NewTopics("examined"); err != nil {
				t.Fatal(err)
			}
			read := w.sound()
			c.spoil(w, read)
			w.examine(read)
			switch {
			case c.says == "" && len(w.faults) > 0:
				t.Errorf("faults were found where there are none: %q", w.faults)
			case c.says != "" && !slices.ContainsFunc(w.faults, func(fault string) bool { return strings.Contains(fault, c.says) }):
				t.Errorf("no fault says %q: %q", c.says, w.faults)
			}
		})
	}
}

// topicsRead has the records of topics, by name and partition.
type topicsRead = map[string]map[int32][]logRecord

// sound makes a log of two configurations, frames, repeats, late frames and ticks, and the
// topics that an aggregator writes for it.
func (w *world) sound() topicsRead {
	w.Helper()
	read := topicsRead{w.topics.LayerHealth: {}, w.topics.LayerPerformance: {}, w.topics.Late: {}}
	var log []logRecord
	at := oona.Micros(1_800_000_000e6)
	add := func(value []byte, headers map[string]string) {
		log = append(log, logRecord{0, int64(len(log)), at, headers, value})
		at += 20_000
	}
	configure := func(c windows.Configuration) {
		add(avro.AppendConfiguration(nil, c.Record()), map[string]string{oona.HeaderRecord: oona.ConfigurationRecord})
	}
	add(avro.AppendIncarnation(nil, oona.IncarnationStart{Number: oona.Incarnation(at)}), map[string]string{oona.HeaderRecord: oona.IncarnationRecord})
	configured := windows.Configuration{Config: w.windows}
	configured.Config.Generation, configured.Config.MaxSkew, configured.Config.Reducer = 1, time.Second, windows.Reducer
	configure(configured)
	tr := trainer{run: "run-a", producer: "one", layers: 2, seeds: 3}
	random := rand.New(rand.NewPCG(5, 5))
	for i := range int64(300) {
		f := tr.frame(random, 1, i)
		f.ObservedAt = at
		if i%50 == 49 {
			f.ObservedAt -= 3e6 // late
		}
		value := avro.AppendFrame(nil, f)
		w.acks.note(identityOf(f), value)
		w.acks.answer(200, []identity{identityOf(f)})
		add(value, map[string]string{oona.HeaderPath: "p"})
		if i == 100 {
			configured.Config.Generation, configured.Config.Length, configured.From = 2, 1500*time.Millisecond, at+1_100_000
			configure(configured)
		}
		if i%60 == 30 {
			add(value, map[string]string{oona.HeaderPath: "p"})
		}
	}
	for range 200 {
		add(nil, map[string]string{oona.HeaderRecord: oona.TickRecord})
	}
	read[w.topics.SeedMetrics] = map[int32][]logRecord{0: log}
	w.aggregate(log, read)
	return read
}

// aggregate writes the topics for a log, like an aggregator.
func (w *world) aggregate(log []logRecord, read topicsRead) {
	w.Helper()
	engine := w.engine(0)
	write := func(topic string, headers map[string]string, value []byte) {
		read[topic][0] = append(read[topic][0], logRecord{0, int64(len(read[topic][0])), 0, headers, value})
	}
	generations := make(map[int32]bool)
	for i := range log {
		in := w.asFolded(&log[i])
		outcome := engine.Fold(in, func(r *oona.Rollup) {
			generations[r.Generation] = true
			write(w.topics.Rollup(r.Group), nil, avro.AppendRollup(nil, r))
		})
		if side := w.sideOf(outcome.Verdict); side != "" {
			write(side, map[string]string{oona.HeaderErrorTopic: w.topics.SeedMetrics, oona.HeaderErrorPartition: "0",
				oona.HeaderErrorOffset: strconv.FormatInt(in.Offset, 10), oona.HeaderErrorException: string(outcome.Reason)}, log[i].value)
		}
	}
	if len(read[w.topics.Late][0]) < 3 || len(read[w.topics.LayerHealth][0]) < 4 || len(generations) != 2 {
		w.Fatalf("%d late, %d rollups, generations %v: that proves little", len(read[w.topics.Late][0]), len(read[w.topics.LayerHealth][0]), generations)
	}
}

// change rewrites the second rollup of the health topic.
func change(t *testing.T, w *world, read topicsRead, how func(*oona.Rollup)) {
	t.Helper()
	record := &read[w.topics.LayerHealth][0][1]
	var r oona.Rollup
	if _, err := avro.DecodeRollup(record.value, &r); err != nil {
		t.Fatal(err)
	}
	how(&r)
	record.value = avro.AppendRollup(nil, &r)
}

// again writes the second rollup again, changed and with the right hash.
func again(t *testing.T, w *world, read topicsRead, how func(*oona.Rollup)) {
	t.Helper()
	health := read[w.topics.LayerHealth]
	first := health[0][1]
	change(t, w, read, func(r *oona.Rollup) { how(r); r.Hash = r.ContentHash() })
	health[0] = append(health[0], health[0][1])
	health[0][1] = first
}

// The checks of readers can fail, too.
func TestExamineNoticesErrorsOfReaders(t *testing.T) {
	const start = oona.Micros(1_800_000_000e6)
	rollup := &published{Rollup: oona.Rollup{Run: "run-a", Layer: "layer.1", Start: start, Frames: 5, Hash: 0xabc, Trigger: oona.Trigger{Offset: 9}}}
	expected := map[rollupKey]*published{keyOf(&rollup.Rollup): rollup}
	const taken = `{"partition":0,"offset":0,"rollup":{"run_id":"run-a","layer_id":"layer.1","window_start":"2027-01-15T08:00:00Z","trigger_offset":9,"content_hash":"0000000000000abc"}}`
	with := func(old, new string) string {
		if !strings.Contains(taken, old) {
			t.Fatalf("%q is not in %s", old, taken)
		}
		return strings.Replace(taken, old, new, 1)
	}
	for _, c := range []struct {
		name   string
		shown  []string
		metric string // of the exporter, which is too high by one
		says   string // one of the faults that must be found; empty: none
	}{
		{"nothing", []string{taken}, "", ""},
		{"not taken", nil, "", "0 times"},
		{"taken twice", []string{taken, taken}, "", "2 times"},
		{"dropped", []string{with(`"offset":0`, `"offset":0,"dropped":"behind"`)}, "", "drops it: behind"},
		{"taken for a repeat", []string{with(`"offset":0`, `"offset":0,"dropped":"repeat"`)}, "", "0 times"},
		{"another hash", []string{with("abc", "abd")}, "", "with hash"},
		{"another trigger", []string{with(`"trigger_offset":9`, `"trigger_offset":8`)}, "", "with a trigger"},
		{"another incarnation", []string{with(`"trigger_offset":9`, `"trigger_offset":9,"incarnation":7`)}, "", "with a trigger"},
		{"a rollup of nothing", []string{taken, with("layer.1", "layer.2")}, "", "none of the oracle's"},
		{"an incarnation", []string{with(`"offset":0`, `"offset":0,"new_incarnation":true`)}, "", "1 incarnations began"},
		{"a conflict", []string{taken}, "oona_exporter_conflicts_total", "1 conflicts"},
		{"one rollup too many", []string{taken}, "oona_exporter_rollups_total", "2 rollups"},
		{"a frame too many", []string{taken}, `kasmina_layer_frames_total{layer="layer.1",run="run-a"}`, "have 5 frames"},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := &world{T: t}
			r := &readers{name: "tried", watches: [2]*watch{{}, {}}, sums: true}
			for _, line := range c.shown {
				_, _ = r.watches[oona.Health].shown.Write([]byte(line + "\n"))
			}
			metrics := map[string]float64{`kasmina_layer_frames_total{layer="layer.1",run="run-a"}`: 5}
			for _, name := range []string{"rollups", "repeats", "incarnations", "conflicts", "remade", "behind", "undecodable", "stale"} {
				metrics["oona_exporter_"+name+"_total"] = 0
			}
			metrics["oona_exporter_rollups_total"] = 1
			if c.metric != "" {
				metrics[c.metric]++
			}
			r.check(w, expected, 0, metrics)
			switch {
			case c.says == "" && len(w.faults) > 0:
				t.Errorf("faults were found where there are none: %q", w.faults)
			case c.says != "" && !slices.ContainsFunc(w.faults, func(fault string) bool { return strings.Contains(fault, c.says) }):
				t.Errorf("no fault says %q: %q", c.says, w.faults)
			}
		})
	}
}
