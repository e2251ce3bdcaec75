package simulate

import (
	"encoding/json"
	"errors"
	"flag"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// A mutant is an error that is put into the engine. Each of its edits replaces code in a function by
// other code.
type mutant struct {
	name  string
	edits []edit
}

// mutants has the errors that the design names. Each must make a schedule fail.
var mutants = []mutant{
	{"the commit leaves out the previous append time", []edit{
		{"windows.Resume()", "e.clock = _x", "e.clock = logtime.Clock{Now: _x.Now}"},
	}},
	{"the safe offset does not hold the horizon", []edit{
		{"(e *windows.Engine) safe()", "_.Earliest(_, _otherwise)", "_otherwise"},
	}},
	{"a replay does not know when a timeline was admitted", []edit{
		{"(e *windows.Engine) replay(r)", "r.Offset < t.admitted", "false"},
	}},
	{"the commit leaves out the seals", []edit{
		{"(e *windows.Engine) snapshot()", "t.seals", "nil"},
	}},
	{"newcomers do not start at the floor", []edit{
		{"(e *windows.Engine) admit()", "newTimeline(_hash, _)", "newTimeline(_hash, unset)"},
	}},
	{"the commit leaves out the floor", []edit{
		{"windows.Resume()", "e.timelines.floor = _", ""},
	}},
	{"the commit leaves out the greatest append time", []edit{
		{"windows.Resume()", "e.maxAppendedAt = _", ""},
	}},
	{"idleness is by the wall clock", []edit{
		{"(e *windows.Engine) bucket()", "e.clock.Now", "oona.Micros(time.Now().UnixMicro())"},
	}},
	{"a commit is made of what was processed last", []edit{
		{"(e *windows.Engine) safe()", "return _", "return logtime.ReplayPoint{Offset: e.processedTo, Clock: e.clock}"},
	}},
	{"the watermark follows the fastest producer", []edit{
		{"(s *logtime.ActiveSet) findLeast()", "min(_a, _b)", "max(_a, _b)"},
		{"(s *logtime.ActiveSet) Observe(number, at)", "at < s.least", "at > s.least"},
		{"(s *logtime.ActiveSet) Observe()", "wasLeast && s.findLeast()", "s.findLeast() || wasLeast"},
	}},
	{"a producer has one frontier for all its paths", []edit{
		{"(e *windows.Engine) Fold(r)", "r.Path", `""`},
		{"(e *windows.Engine) replay(r)", "r.Path", `""`},
	}},
	{"repeats are known by a high-water mark", []edit{
		{"(e *windows.Engine) foldFrame(t, c, r)", "first, repeated := w.folded[id]", `first, repeated := func() (folding, bool) {
			for other, into := range w.folded {
				if other.producer == id.producer && other.epoch == id.epoch && other.sequence > id.sequence {
					return folding{checksum: r.Checksum, into: into.into}, true
				}
			}
			same, repeated := w.folded[id]
			return same, repeated
		}()`},
	}},
	{"a record evaluates its own timeline only", []edit{
		{"(e *windows.Engine) Fold(r)", "e.evaluate(_out)", "e.evaluate(_out, r.Frame)"},
		{"(e *windows.Engine) evaluate()", "*emission", "*emission, own *oona.Frame"},
		{"(e *windows.Engine) evaluate()", "t.advance(_offset, _spans)", "own != nil && t.key == (timelineKey{own.Run, own.Timeline}) && t.advance(_offset, _spans)"},
	}},
	{"records with a frame evaluate nothing", []edit{
		{"(e *windows.Engine) Fold(r)", "tick || passed.Reason == ReasonConfigured", "tick && r.Frame == nil || passed.Reason == ReasonConfigured"},
	}},
	{"a run has one watermark for all its ranks", []edit{
		{"(r *windows.timelines) find(f)", "f.Timeline", `""`},
		{"(e *windows.Engine) admit(r)", "r.Frame.Timeline", `""`},
	}},
	{"an outage of the bus is idleness", []edit{
		{"(e *windows.Engine) advanceClock()", "e.clock.Advance(_at, _)", "e.clock.Advance(_at, 1<<62)"},
	}},
	{"when all are idle the watermark advances too far", []edit{
		{"(t *windows.timeline) advance()", "w.configEpoch.closesAt(w.end)", "w.configEpoch.closesAt(w.end) + w.end - w.start"},
	}},
	{"a full engine sheds layers and seals nothing", []edit{
		{"(e *windows.Engine) checkSeal(t)", "t.seals.add(_, _, _, _)", ""},
	}},
	{"a configuration cuts the window in which it begins", []edit{
		{"(e *windows.Engine) configure()", "last.nextEnd(_from)", "max(_from, last.from)"},
	}},
	{"no configuration is too early", []edit{
		{"(e *windows.Engine) refuse(next)", "next.From <= ahead", "false"},
	}},
	{"a configuration is early by the last append time", []edit{
		{"(e *windows.Engine) configure(r)", "e.maxAppendedAt", "r.AppendedAt"},
	}},
	{"generations of configurations are in any order", []edit{
		{"(e *windows.Engine) refuse(next)", "next.Config.Generation <= last.cfg.Generation", "false"},
	}},
	{"a configuration holds before the one before it", []edit{
		{"(e *windows.Engine) refuse(next)", "next.From <= last.from", "false"},
	}},
	{"the commit leaves out the configurations", []edit{
		{"windows.restore(cfg)", "s.configEpochs.last().cfg", "cfg"},
		{"windows.restore()", "e.configEpochs = _", ""},
	}},
	{"the commit holds the last configuration only", []edit{
		{"windows.restore()", "e.configEpochs = _", ""},
	}},
	{"a replay judges by configurations that were not made yet", []edit{
		{"(l windows.configEpochs) find(at, offset)", "c.record <= offset", "true"},
	}},
	{"a replay does not know when a configuration expired", []edit{
		{"(l windows.configEpochs) find(at, offset)", "offset >= c.expired", "c.expired != never"},
	}},
	{"a configuration has expired although a window of it is open", []edit{
		{"(e *windows.Engine) expire()", "e.hasOpenWindow(_)", "false"},
	}},
	{"a replay keeps the idle horizon with which it began", []edit{
		{"(e *windows.Engine) replay(r)", "c.record == r.Offset", "false"},
	}},
	{"a replay goes by the idle horizon that was made last", []edit{
		{"windows.Resume()", "c.record == unknown", "true"},
	}},
	{"a change of the idle horizon forgets the frontiers", []edit{
		{"(s *logtime.ActiveSet) Rescale()", "m.latest = _", "m.latest = nowhere"},
	}},
	{"a change of the idle horizon forgets where its buckets began", []edit{
		{"(h *logtime.IdleBuckets) Rescale()", "*h = _", "*h = IdleBuckets{}"},
	}},
	{"a restarted engine emits what may have been emitted", []edit{
		{"(r *windows.recovery) suppresses()", "return _", "return false"},
	}},
	{"a restarted engine does not wait for one maximum delay", []edit{
		{"(e *windows.Engine) advanceRecovery()", "earlier(_, _) > r.begun", "true"},
	}},
	{"a restarted engine does not wait for one idle horizon", []edit{
		{"(e *windows.Engine) advanceRecovery()", "e.clock.Now >= horizon", "horizon > 0"},
	}},
	{"a restarted engine does not read the log to its end", []edit{
		{"(e *windows.Engine) advanceRecovery()", "e.here.Offset >= r.end", "true"},
	}},
	{"the commit leaves out what is lost", []edit{
		{"windows.Resume()", "e.recovery = _", ""},
	}},
	{"suppressed windows have no place in the order of triggers", []edit{
		{"(e *windows.Engine) emitClosed(out)", "out.trigger.Index += _", ""},
	}},
	{"timelines are forgotten by the last configuration alone", []edit{
		{"(e *windows.Engine) retention()", "e.configEpochs", "e.configEpochs[len(e.configEpochs)-1:]"},
	}},
	{"a step that falls is a rise", []edit{
		{"reduce.Steps()", "next.Step < last.Step", "false"},
	}},
	{"steps are taken in no order", []edit{
		{"reduce.Steps()", "cmp.Compare(p.Sequence, q.Sequence)", "0"},
	}},
	{"a neutral metric has the greatest for its worst seeds", []edit{
		{"(w *reduce.worst) appendTo()", "fartherAbove(_, _, _)", "true"},
	}},
	{"a configuration does not change the reducer", []edit{
		{"(e *windows.Engine) addFrame(a, r, c)", "c.cfg.Reducer", "e.cfg.Reducer"},
	}},
	{"a replay keeps no steps", []edit{
		{"(e *windows.Engine) foldFrame()", "w.folded[id] = _x", `w.folded[id] = _x
	if e.replaying {
		kept := w.folded[id]
		w.folded[id] = folding{checksum: kept.checksum, into: kept.into}
	}`},
	}},
}

var whichMutants = flag.String("mutants", "none", "which mutants of the engine to run: all, third (a different third each day) or none")

// mutantSchedules is the number of schedules that are played on a mutant. One of them
// must fail.
const mutantSchedules = 10_000

// TestMutantsDie runs TestSchedules on an engine with each of the errors, and requires
// that it fails. This takes minutes; `make mutants` runs it.
func TestMutantsDie(t *testing.T) {
	chosen := choose(*whichMutants, mutants)
	if len(chosen) == 0 {
		t.Skip("SKIPPED: make mutants runs it")
	}
	for _, m := range chosen {
		t.Run(strings.ReplaceAll(m.name, " ", "-"), func(t *testing.T) {
			t.Parallel()
			out, err := exec.CommandContext(t.Context(), "go", "test", "-overlay", m.overlay(t), "-run", "^TestSchedules$", ".", "-schedules="+strconv.Itoa(mutantSchedules)).CombinedOutput()
			failure, _, _ := strings.Cut(string(out), "replay it with: ")
			switch exit := (*exec.ExitError)(nil); {
			case err == nil:
				t.Errorf("all schedules pass although %s", m.name)
			case !errors.As(err, &exit) || failure == string(out):
				t.Errorf("no schedule was played: %v\n%s", err, out)
			default:
				t.Log(failure)
			}
		})
	}
}

// choose returns the mutants that the flag -mutants selects.
func choose(which string, from []mutant) (chosen []mutant) {
	const days = 3 // after so many days, every mutant was run
	today := int(time.Now().Unix()/86_400) % days
	for i, m := range from {
		if which == "all" || which == "third" && i%days == today {
			chosen = append(chosen, m)
		}
	}
	return chosen
}

// Each edit finds its code in the sources of the engine.
func TestMutantsAreOfTheEngine(t *testing.T) {
	for _, m := range mutants {
		t.Run(strings.ReplaceAll(m.name, " ", "-"), func(t *testing.T) { m.overlay(t) })
	}
}

// overlay writes the mutant's sources to files. It returns the overlay file, which makes the compiler
// use them.
func (m mutant) overlay(t *testing.T) string {
	t.Helper()
	sources, err := mutate(m.edits)
	if err != nil {
		t.Fatalf("%v; bring the list of mutants up to date with the engine", err)
	}
	dir, replace := t.TempDir(), map[string]string{}
	for path, source := range sources {
		path, err := filepath.Abs(path)
		if err != nil {
			t.Fatal(err)
		}
		replace[path] = filepath.Join(dir, strconv.Itoa(len(replace))+".go")
		if err := os.WriteFile(replace[path], source, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	content, err := json.Marshal(map[string]any{"Replace": replace})
	if err != nil {
		t.Fatal(err)
	}
	overlay := filepath.Join(dir, "overlay.json")
	if err := os.WriteFile(overlay, content, 0o600); err != nil {
		t.Fatal(err)
	}
	return overlay
}
