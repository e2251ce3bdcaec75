package windows_test

import (
	"cmp"
	"fmt"
	"math"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/datadriven"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/windows"
	"github.com/morphogenetic/oona/windows/model"
)

// TestScripts runs the scripts in testdata/scripts. Their README says how to read them.
// "go test ./windows -run TestScripts -rewrite" writes the current results of the engine into the
// scripts. The model folds each record, too, and the two must agree.
func TestScripts(t *testing.T) {
	datadriven.Walk(t, "testdata/scripts", func(t *testing.T, path string) {
		if strings.HasSuffix(path, ".md") {
			t.Skip("not a script")
		}
		s := script{t: t, emitted: map[emission]uint64{}}
		datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
			s.t, s.d = t, d
			s.out.Reset()
			s.run()
			return s.out.String()
		})
	})
}

// script is a partition's log, the engine that folds it, and its model.
type script struct {
	t *testing.T
	d *datadriven.TestData

	cfg       windows.Config // settings of the workers
	engine    *windows.Engine
	model     *model.Model
	log       []windows.Record
	processed int // number of records that any engine has processed
	commit    windows.Commit
	emitted   map[emission]uint64 // hashes of the rollups
	show      string              // which rollups are printed
	out       strings.Builder
}

// emission identifies a rollup by the place at which it was emitted.
type emission struct {
	trigger oona.Trigger
	group   oona.Group
}

// start is the time 0 of scripts. A window begins at it.
const start oona.Micros = 1_700_000_000_000_000

func (s *script) run() {
	switch s.d.Cmd {
	case "engine":
		s.cfg = windows.DefaultConfig()
		for _, arg := range s.d.CmdArgs {
			if arg.Key == "show" {
				s.show = arg.Vals[0]
				continue
			}
			s.set(&s.cfg, arg.Key, arg.Vals[0])
		}
		engine, err := windows.New(s.cfg, windows.Always(windows.TestCatalogue))
		s.must(err)
		*s = script{t: s.t, d: s.d, cfg: s.cfg, show: s.show, engine: engine, model: model.New(s.cfg, windows.TestCatalogue), emitted: map[emission]uint64{}}
	case "append":
		for line := range strings.Lines(s.d.Input) {
			r := s.record(strings.Fields(line))
			r.Offset = int64(len(s.log))
			s.log = append(s.log, r)
			s.fold(r)
		}
	case "commit":
		var err error
		s.commit, err = s.engine.Commit()
		s.must(err)
		fmt.Fprintf(&s.out, "the log is processed up to offset %d; a replay starts at offset %d\n", s.engine.ProcessedTo(), s.commit.Offset)
	case "crash":
		s.resume()
	case "lose":
		s.lose()
	case "state":
		s.state()
	default:
		s.d.Fatalf(s.t, "no such command")
	}
}

func (s *script) must(err error) {
	s.t.Helper()
	if err != nil {
		s.d.Fatalf(s.t, "%v", err)
	}
}

// resume makes an engine from the last commit, and reads the log again.
func (s *script) resume() {
	engine, err := windows.Resume(s.cfg, windows.Always(windows.TestCatalogue), s.commit)
	s.must(err)
	s.engine = engine
	for _, r := range s.log {
		if r.Offset >= s.commit.Offset {
			s.fold(r)
		}
	}
}

// lose removes records at the beginning or the end of the log, and restarts an engine.
func (s *script) lose() {
	first, end := int64(0), int64(len(s.log))
	committed := false
	for _, arg := range s.d.CmdArgs {
		switch arg.Key {
		case "before":
			first = s.number(arg.Vals[0])
		case "from":
			end = s.number(arg.Vals[0])
		case "commit":
			committed = true
		}
	}
	if committed {
		s.commit = windows.Commit{}
		s.model = model.New(s.cfg, windows.TestCatalogue)
	}
	engine, err := windows.Restart(s.cfg, windows.Always(windows.TestCatalogue), s.commit, first, end)
	s.must(err)
	s.engine, s.model = engine, s.model.Restart(end)
	s.log, s.processed = s.log[:end], 0
	for _, r := range s.log[first:] {
		s.fold(r)
	}
}

// fold folds a record, and prints the outcome and the rollups.
func (s *script) fold(r windows.Record) {
	replayed := r.Offset < int64(s.processed)
	var rollups []oona.Rollup
	o := s.engine.Fold(r, func(r *oona.Rollup) { rollups = append(rollups, windows.CopyRollup(r)) })
	fmt.Fprintf(&s.out, "%d: %s", r.Offset, o.Verdict)
	if o.Reason != "" && string(o.Reason) != o.Verdict.String() {
		fmt.Fprintf(&s.out, " (%s)", o.Reason)
	}
	s.out.WriteByte('\n')
	for i := range rollups {
		s.print(&rollups[i])
	}
	if replayed { // the model has already folded the record
		return
	}
	s.processed = int(r.Offset) + 1
	s.must(s.model.Fold(r).Compare(o, rollups))
}

// print prints a rollup if it is of the group in s.show.
func (s *script) print(r *oona.Rollup) {
	at := emission{r.Trigger, r.Group}
	before, again := s.emitted[at]
	if again && before != r.Hash {
		s.d.Fatalf(s.t, "the rollup at %v was emitted before with other contents", r.Trigger)
	}
	s.emitted[at] = r.Hash
	if r.Group.String() != cmp.Or(s.show, "health") {
		return
	}
	fmt.Fprintf(&s.out, "   %s %s %s..%s", strings.TrimSuffix(string(r.Run)+"/"+string(r.Timeline), "/"), r.Layer, seconds(r.Start), seconds(r.End))
	fmt.Fprintf(&s.out, " frames=%d", r.Frames)
	if r.Duplicates > 0 {
		fmt.Fprintf(&s.out, " duplicates=%d", r.Duplicates)
	}
	fmt.Fprintf(&s.out, " watermark=%s trigger=%d.%d", seconds(r.Watermark), r.Trigger.Offset, r.Trigger.Index)
	if r.Trigger.Incarnation != 0 {
		fmt.Fprintf(&s.out, " incarnation=%d", r.Trigger.Incarnation)
	}
	if r.Generation != 0 {
		fmt.Fprintf(&s.out, " generation=%d", r.Generation)
	}
	if again {
		s.out.WriteString(" again")
	}
	s.out.WriteByte('\n')
	if r.Group == oona.Performance && r.SpeedKnown() {
		fmt.Fprintf(&s.out, "      steps=%d in %s\n", r.Rates.Steps, span(r.Rates.StepTime))
	}
	for i := range r.Metrics {
		s.printMetric(&r.Metrics[i])
	}
}

func (s *script) printMetric(m *oona.MetricSummary) {
	fmt.Fprintf(&s.out, "      %s count=%d", m.Name, m.Count)
	if m.NotMeasured > 0 {
		fmt.Fprintf(&s.out, " not-measured=%d", m.NotMeasured)
	}
	if m.Count > 0 {
		fmt.Fprintf(&s.out, " min=%g max=%g mean=%g", m.Min, m.Max, m.Mean)
	}
	for i, w := range m.Worst {
		if i == 0 {
			s.out.WriteString(" worst")
		}
		fmt.Fprintf(&s.out, " %d:%g", w.Seed, w.Value)
		if w.Offset != oona.NoOffset {
			fmt.Fprintf(&s.out, "@%d", w.Offset)
		}
	}
	s.out.WriteByte('\n')
}

func (s *script) state() {
	st := s.engine.Stats()
	fmt.Fprintf(&s.out, "timelines=%d windows=%d layers=%d sealed=%d\n", st.Timelines, st.OpenWindows, st.Accumulators, st.SealedWindows)
}

// seconds prints an instant, in seconds after start.
func seconds(t oona.Micros) string {
	if t == math.MinInt64 {
		return "none"
	}
	return span(t - start)
}

func span(d oona.Micros) string { return strconv.FormatFloat(float64(d)/1e6, 'f', -1, 64) + "s" }

// record parses a line: an append time, a kind, and the fields that differ from the defaults.
func (s *script) record(words []string) windows.Record {
	if len(words) < 2 {
		s.d.Fatalf(s.t, "a record is an append time, a kind and its fields: %q", words)
	}
	r := windows.Record{AppendedAt: s.instant(words[0])}
	fields := map[string]string{}
	for _, w := range words[2:] {
		key, value, _ := strings.Cut(w, "=")
		fields[key] = value
	}
	switch words[1] {
	case "tick":
	case "incarnation":
		r.Incarnation = &oona.IncarnationStart{Number: oona.Incarnation(s.number(fields["number"])), PreviousEnd: oona.NoOffset, Reason: "test"}
	case "configuration":
		r.Configuration = s.configuration(fields)
	case "frame":
		s.frame(&r, fields)
	default:
		s.d.Fatalf(s.t, "no such kind of record: %s", words[1])
	}
	return r
}

// configuration returns the workers' settings with changed fields.
func (s *script) configuration(fields map[string]string) *windows.Configuration {
	c := &windows.Configuration{Config: s.cfg}
	for key, value := range fields {
		if key == "from" {
			c.From = s.instant(value)
			continue
		}
		s.set(&c.Config, key, value)
	}
	return c
}

// set sets the field of a configuration that belongs to a flag.
func (s *script) set(c *windows.Config, flag, value string) {
	switch flag {
	case "generation":
		c.Generation = int32(s.number(value))
		return
	case "reducer":
		c.Reducer = int32(s.number(value))
		return
	}
	fields := reflect.ValueOf(c).Elem()
	for i := range fields.NumField() {
		if fields.Type().Field(i).Tag.Get("name") != flag {
			continue
		}
		switch field := fields.Field(i).Addr().Interface().(type) {
		case *time.Duration:
			d, err := time.ParseDuration(value)
			s.must(err)
			*field = d
		case *int:
			*field = int(s.number(value))
		}
		return
	}
	s.d.Fatalf(s.t, "no such setting: %s", flag)
}

// frame makes r a frame.
func (s *script) frame(r *windows.Record, fields map[string]string) {
	f := &oona.Frame{Run: "run", Layer: "enc.0", Producer: "trainer", ObservedAt: r.AppendedAt, Sequence: int64(len(s.log))}
	r.Frame, r.Path, r.Checksum = f, "ingest-0", 1
	for key, value := range fields {
		switch key {
		case "run":
			f.Run = oona.RunID(value)
		case "rank":
			f.Timeline = oona.TimelineID(value)
		case "layer":
			f.Layer = oona.LayerID(value)
		case "producer":
			f.Producer = oona.ProducerID(value)
		case "path":
			r.Path = value
		case "observed":
			f.ObservedAt = s.instant(value)
		case "sequence":
			f.Sequence = s.number(value)
		case "epoch":
			f.Epoch = oona.Micros(s.number(value))
		case "step":
			f.Step = s.number(value)
		case "bytes":
			r.Checksum = uint64(s.number(value))
		default:
			s.column(f, key, value)
		}
	}
	if len(f.Seeds) == 0 {
		f.Seeds = []oona.SeedID{1}
	}
	for range f.Seeds {
		f.States = append(f.States, oona.Training)
	}
	slices.SortFunc(f.Metrics, func(a, b oona.Column) int { return cmp.Compare(a.Name, b.Name) })
}

// column adds readings of a metric, as "seed:value" with commas between. All
// metrics of a frame have the same seeds.
func (s *script) column(f *oona.Frame, metric, readings string) {
	c := oona.Column{Name: metric}
	var seeds []oona.SeedID
	for reading := range strings.SplitSeq(readings, ",") {
		seed, value, found := strings.Cut(reading, ":")
		x, err := strconv.ParseFloat(value, 32)
		if !found || err != nil {
			s.d.Fatalf(s.t, "%s: a reading is SEED:VALUE, not %q", metric, reading)
		}
		seeds = append(seeds, oona.SeedID(s.number(seed)))
		c.Values = append(c.Values, float32(x))
	}
	if f.Seeds != nil && !slices.Equal(f.Seeds, seeds) {
		s.d.Fatalf(s.t, "%s has seeds %v, another metric of the frame %v", metric, seeds, f.Seeds)
	}
	f.Seeds, f.Metrics = seeds, append(f.Metrics, c)
}

func (s *script) instant(text string) oona.Micros {
	x, err := strconv.ParseFloat(strings.TrimSuffix(text, "s"), 64)
	s.must(err)
	return start + oona.Micros(math.Round(x*1e6))
}

func (s *script) number(text string) int64 {
	n, err := strconv.ParseInt(text, 10, 64)
	s.must(err)
	return n
}
