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

// mutant is an error put into the engine: each old text stands once in its
// file, and the new one takes its place.
type mutant struct {
	name  string
	edits []edit
}

type edit struct{ file, before, after string } // the file is relative to windows

// mutants are the errors that the design names.
var mutants = []mutant{
	{"the commit leaves out the previous append time", []edit{{
		"commit.go", "e.processedTo, e.clock = s.safe.Offset, s.safe.Clock", "e.processedTo, e.clock = s.safe.Offset, logtime.Clock{Now: s.safe.Clock.Now}",
	}}},
	{"the safe offset does not hold the horizon", []edit{{
		"commit.go", "safe := e.idleBuckets.Earliest(e.bucket(), logtime.ReplayPoint{Offset: e.processedTo, Clock: e.clock})", "safe := logtime.ReplayPoint{Offset: e.processedTo, Clock: e.clock}",
	}}},
	{"a replay does not know when a timeline was admitted", []edit{{
		"replay.go", "if t == nil || r.Offset < t.admitted {", "if t == nil {",
	}}},
	{"the commit leaves out the seals", []edit{{
		"commit.go", "f := frozen{t.hash, t.watermark, t.admitted, t.seals}", "f := frozen{t.hash, t.watermark, t.admitted, nil}",
	}}},
	{"newcomers do not start at the floor", []edit{{
		"timelines.go", "t := newTimeline(hash, e.timelines.floor)", "t := newTimeline(hash, unset)",
	}}},
	{"the commit leaves out the floor", []edit{{
		"commit.go", "e.maxAppendedAt, e.timelines.floor = s.maxAppendedAt, s.floor", "e.maxAppendedAt = s.maxAppendedAt",
	}}},
	{"the commit leaves out the greatest append time", []edit{{
		"commit.go", "e.maxAppendedAt, e.timelines.floor = s.maxAppendedAt, s.floor", "e.timelines.floor = s.floor",
	}}},
	{"idleness is by the wall clock", []edit{
		{"engine.go", "\t\"slices\"\n", "\t\"slices\"\n\t\"time\"\n"},
		{"engine.go", "return int64(e.clock.Now / e.spans.bucket)", "return time.Now().UnixMicro() / int64(e.spans.bucket)"},
	}},
	{"a commit is made of what was processed last", []edit{{
		"commit.go", "\treturn safe\n", "\treturn logtime.ReplayPoint{Offset: e.processedTo, Clock: e.clock}\n",
	}}},
	{"the watermark follows the fastest producer", []edit{
		{"../logtime/active.go", "s.least = min(s.least, s.members[i].reach)", "s.least = max(s.least, s.members[i].reach)"},
		{"../logtime/active.go", "if len(s.members) == 1 || at < s.least {", "if len(s.members) == 1 || at > s.least {"},
		{"../logtime/active.go", "return wasLeast && s.findLeast()", "return s.findLeast() || wasLeast"},
	}},
	{"a producer has one frontier for all its paths", []edit{
		{"engine.go", "slotNumber(r.Frame.Producer, r.Path, e.cfg.FrontierSlots)", `slotNumber(r.Frame.Producer, "", e.cfg.FrontierSlots)`},
		{"replay.go", "slotNumber(r.Frame.Producer, r.Path, e.cfg.FrontierSlots)", `slotNumber(r.Frame.Producer, "", e.cfg.FrontierSlots)`},
	}},
	{"repeats are known by a high-water mark", []edit{{
		"engine.go", "if first, repeated := w.folded[id]; repeated {", `first, repeated := w.folded[id]
		for other, into := range w.folded {
			if other.producer == id.producer && other.epoch == id.epoch && other.sequence > id.sequence {
				first, repeated = folding{checksum: r.Checksum, into: into.into}, true
			}
		}
		if repeated {`,
	}}},
	{"a record evaluates its own timeline only", []edit{
		{"engine.go", "e.evaluate(&out)", "e.evaluate(&out, r.Frame)"},
		{"engine.go", "func (e *Engine) evaluate(out *emission) {", "func (e *Engine) evaluate(out *emission, own *oona.Frame) {"},
		{"engine.go", "\t\tif t.advance(out.trigger.Offset, &e.spans) {", "\t\tif own != nil && t.key == (timelineKey{own.Run, own.Timeline}) && t.advance(out.trigger.Offset, &e.spans) {"},
	}},
	{"records beside ticks evaluate nothing", []edit{{
		"engine.go", "if tick || passed.Reason == ReasonConfigured {", "if tick && r.Frame == nil || passed.Reason == ReasonConfigured {",
	}}},
	{"a run has one watermark for all its ranks", []edit{
		{"timelines.go", "key := timelineKey{f.Run, f.Timeline}", "key := timelineKey{run: f.Run}"},
		{"timelines.go", "key := timelineKey{r.Frame.Run, r.Frame.Timeline}", "key := timelineKey{run: r.Frame.Run}"},
	}},
	{"an outage of the bus is idleness", []edit{{
		"engine.go", "e.clock.Advance(appendedAt, 2*e.spans.tick)", "e.clock.Advance(appendedAt, 1<<62)",
	}}},
	{"when all are idle the watermark goes on to the end", []edit{{
		"timeline.go", "to = max(to, w.configEpoch.closesAt(w.end))", "to = max(to, w.configEpoch.closesAt(w.end)+w.end-w.start)",
	}}},
	{"a full engine sheds layers and seals nothing", []edit{{
		"seal.go", "\tt.seals.add(c, start, end, layers)\n", "",
	}}},
	{"a configuration cuts the window in which it begins", []edit{{
		"configuration.go", "from := last.nextEnd(next.From)", "from := max(next.From, last.from)",
	}}},
	{"no configuration is too early", []edit{{
		"configuration.go", "case next.From <= ahead:", "case false:",
	}}},
	{"a configuration is early by the last append time", []edit{{
		"configuration.go", "e.refuse(next, first, e.maxAppendedAt)", "e.refuse(next, first, r.AppendedAt)",
	}}},
	{"generations of configurations are in any order", []edit{{
		"configuration.go", "case next.Config.Generation <= last.cfg.Generation:", "case false:",
	}}},
	{"a configuration holds before the one before it", []edit{{
		"configuration.go", "case next.From <= last.from:", "case false:",
	}}},
	{"the commit leaves out the configurations", []edit{
		{"commit.go", "e, err := newEngine(s.configEpochs.last().cfg, catalogues)", "e, err := newEngine(cfg, catalogues)"},
		{"commit.go", "e.configEpochs, e.incarnation = s.configEpochs, s.incarnation", "e.incarnation = s.incarnation"},
	}},
	{"the commit holds the last configuration only", []edit{{
		"commit.go", "e.configEpochs, e.incarnation = s.configEpochs, s.incarnation", "e.incarnation = s.incarnation",
	}}},
	{"a replay judges by configurations that were not made yet", []edit{{
		"configuration.go", "c.from <= at && c.record <= offset", "c.from <= at",
	}}},
	{"a replay does not know when a configuration expired", []edit{{
		"configuration.go", "if offset >= c.expired {", "if c.expired != never {",
	}}},
	{"a configuration has expired although a window of it is open", []edit{{
		"configuration.go", "if e.configEpochs[i+1].from >= earlier(e.maxAppendedAt, e.retention()) || e.hasOpenWindow(c) {", "if e.configEpochs[i+1].from >= earlier(e.maxAppendedAt, e.retention()) {",
	}}},
	{"a replay keeps the idle horizon with which it began", []edit{{
		"replay.go", "if c.record == r.Offset {", "if false {",
	}}},
	{"a replay goes by the idle horizon that was made last", []edit{{
		"commit.go", "if c.record == unknown {", "if true {",
	}}},
	{"a change of the idle horizon forgets the frontiers", []edit{{
		"../logtime/active.go", "if number, kept := c.bucket(b); kept {", "if number, kept := c.bucket(b); kept && false {",
	}}},
	{"a change of the idle horizon forgets where its buckets began", []edit{{
		"../logtime/idle.go", "*h = scaled\n", "*h = IdleBuckets{}\n",
	}}},
	{"a restarted engine emits what may have been emitted", []edit{{
		"recovery.go", "return r != nil && (r.from == unset || start < r.from)", "return false",
	}}},
	{"a restarted engine does not wait for one maximum delay", []edit{{
		"recovery.go", " && earlier(e.maxAppendedAt, e.retention()) > r.begun {", " {",
	}}},
	{"a restarted engine does not wait for one idle horizon", []edit{{
		"recovery.go", "e.here.Offset >= r.end && e.clock.Now >= horizon &&", "e.here.Offset >= r.end && horizon > 0 &&",
	}}},
	{"a restarted engine does not read the log to its end", []edit{{
		"recovery.go", "if e.here.Offset >= r.end && ", "if ",
	}}},
	{"the commit leaves out what is lost", []edit{{
		"commit.go", "\te.recovery = s.recovery\n", "",
	}}},
	{"suppressed windows have no place in the order of triggers", []edit{{
		"emission.go", "\t\t\tout.trigger.Index += int32(len(w.layers)) // the same index as if nothing were lost\n", "",
	}}},
	{"timelines are forgotten by the last configuration alone", []edit{{
		"configuration.go", "for _, c := range e.configEpochs {\n\t\tif c.expired != never {", "for _, c := range e.configEpochs[len(e.configEpochs)-1:] {\n\t\tif c.expired != never {",
	}}},
	{"a step that falls is a rise", []edit{{
		"reduce/steps.go", "next.Step < last.Step ||", "",
	}}},
	{"steps are taken in no order", []edit{{
		"reduce/steps.go", ", cmp.Compare(p.Sequence, q.Sequence))", ")",
	}}},
	{"a neutral metric has the greatest for its worst seeds", []edit{{
		"reduce/worst.go", "len(high) > 0 && fartherAbove(high[0], low[0], mean)", "len(high) > 0",
	}}},
	{"a configuration does not change the reducer", []edit{{
		"engine.go", "e.readings.Begin(f, r.Offset, c.cfg.Reducer)", "e.readings.Begin(f, r.Offset, e.cfg.Reducer)",
	}}},
	{"a replay keeps no steps", []edit{{
		"engine.go", "w.folded[id] = folding{r.Checksum, sum, f.Step, f.ObservedAt}", "w.folded[id] = folding{r.Checksum, sum, f.Step, f.ObservedAt}\n\tif e.replaying {\n\t\tw.folded[id] = folding{checksum: r.Checksum, into: sum}\n\t}",
	}}},
}

var whichMutants = flag.String("mutants", "none", "which mutants of the engine must die: all, third (another third each day) or none")

// mutantSchedules is how many schedules a mutant must fail one of.
const mutantSchedules = 10_000

// TestMutantsDie runs TestSchedules on an engine with each of the errors, and
// requires that it fails. It takes minutes: `make mutants` runs it.
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

// choose returns the mutants of a value of -mutants.
func choose(which string, from []mutant) (chosen []mutant) {
	const days = 3 // until all have had their turn
	today := int(time.Now().Unix()/86_400) % days
	for i, m := range from {
		if which == "all" || which == "third" && i%days == today {
			chosen = append(chosen, m)
		}
	}
	return chosen
}

// The errors are still ones of the engine's sources, which a change of these may
// have forgotten.
func TestMutantsAreOfTheEngine(t *testing.T) {
	for _, m := range mutants {
		t.Run(strings.ReplaceAll(m.name, " ", "-"), func(t *testing.T) { m.overlay(t) })
	}
}

// overlay writes the mutant's sources, and what tells the compiler to take them.
func (m mutant) overlay(t *testing.T) string {
	sources := map[string]string{} // by their place in the tree
	for _, e := range m.edits {
		file, err := filepath.Abs(filepath.Join("..", "..", "windows", e.file))
		if err != nil {
			t.Fatal(err)
		}
		source, read := sources[file]
		if !read {
			content, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			source = string(content)
		}
		if n := strings.Count(source, e.before); n != 1 {
			t.Fatalf("windows/%s has this %d times, and a mutant replaces it where it stands once; bring the list of mutants up to date:\n%s", e.file, n, e.before)
		}
		sources[file] = strings.Replace(source, e.before, e.after, 1)
	}
	dir := t.TempDir()
	replace := map[string]string{}
	for file, source := range sources {
		replace[file] = filepath.Join(dir, filepath.Base(file))
		if err := os.WriteFile(replace[file], []byte(source), 0o600); err != nil {
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
