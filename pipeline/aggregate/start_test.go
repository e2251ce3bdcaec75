package aggregate_test

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/bus"
	"github.com/morphogenetic/oona/pipeline/aggregate"
	"github.com/morphogenetic/oona/schemas/avro"
	"github.com/morphogenetic/oona/windows"
)

// knownLog is an aggregate.Log with fixed answers.
type knownLog struct {
	records map[int64]knownRecord
	first   oona.Incarnation // incarnation that begins with the record at offset 0
	last    oona.Incarnation // last incarnation in the settings topic
	rollups []oona.Rollup
	end     int64 // offset after the incarnation record of BeginIncarnation
	fails   error
	windows *oona.WindowConfiguration // the configuration that was last written, or nil
	begun   []begunIncarnation
}

type knownRecord struct {
	appended time.Time
}

type begunIncarnation struct {
	known       oona.Incarnation
	previousEnd int64
}

func (l *knownLog) Record(_ context.Context, _ int32, offset int64) (oona.Micros, bool, error) {
	r, found := l.records[offset]
	return oona.MicrosOf(r.appended), found, l.fails
}

func (l *knownLog) FirstIncarnation(context.Context, int32) (oona.Incarnation, error) {
	return l.first, l.fails
}

func (l *knownLog) LastIncarnation(context.Context, int32) (oona.Incarnation, error) {
	return l.last, l.fails
}

func (l *knownLog) LastRollups(context.Context, int32) ([]oona.Rollup, error) {
	return l.rollups, l.fails
}

func (l *knownLog) BeginIncarnation(_ context.Context, _ int32, known oona.Incarnation, previousEnd int64, _ string) (int64, error) {
	l.begun = append(l.begun, begunIncarnation{known, previousEnd})
	return l.end, l.fails
}

func (l *knownLog) LastWindows(context.Context, int32) (oona.WindowConfiguration, bool, error) {
	if l.windows == nil {
		return oona.WindowConfiguration{}, false, l.fails
	}
	return *l.windows, true, l.fails
}

const firstLife = oona.Incarnation(1_770_000_000_000_000)

// incarnation returns the record that begins an incarnation.
func incarnation(number oona.Incarnation) []byte {
	return avro.AppendIncarnation(nil, oona.IncarnationStart{Number: number, PreviousEnd: oona.NoOffset, Reason: "test"})
}

// inLog configures the stage with a log.
func inLog(log aggregate.Log, fromHereToo bool) func(*aggregate.Config) {
	return func(c *aggregate.Config) {
		if fromHereToo {
			fromHere(c)
		}
		c.Log = log
	}
}

// committedAssignment returns the assignment of a partition whose log has an incarnation. Its 30
// records were read and committed.
func committedAssignment(t *testing.T) (assignment bus.Assignment, last time.Time) {
	t.Helper()
	first := start(t, fromHere)
	first.feed.append(incarnation(firstLife), first.begin, own(oona.IncarnationRecord))
	first.seconds(0, 29)
	assignment = first.feed.assignment
	commit, due := first.feed.commit()
	first.stop()
	if !due {
		t.Fatal("nothing to commit")
	}
	return takenOver(assignment, commit), first.begin.Add(28 * time.Second)
}

// The record at the last offset that was read must still be the same record.
func TestLogThatLostItsEndAndHasGrownSince(t *testing.T) {
	assignment, last := committedAssignment(t)
	assignment.LogEnd = 1000
	for name, c := range map[string]struct {
		record *knownRecord
		want   error
	}{
		"the same record":    {&knownRecord{appended: last}, nil},
		"another record":     {&knownRecord{appended: last.Add(time.Millisecond)}, aggregate.ErrAhead},
		"an earlier one":     {&knownRecord{appended: last.Add(-time.Hour)}, aggregate.ErrAhead},
		"a marker, or a gap": {nil, aggregate.ErrAhead},
	} {
		t.Run(name, func(t *testing.T) {
			log := &knownLog{records: map[int64]knownRecord{}}
			if c.record != nil {
				log.records[29] = *c.record
			}
			stage := newStage(t, &fixture{out: newOutputs(t)}, inLog(log, false))
			from, _, err := stage.Assign(t.Context(), assignment)
			if !errors.Is(err, c.want) || c.want == nil && from != assignment.Committed.Offset {
				t.Errorf("from offset %d, %v; want from the commit, or %v", from, err, c.want)
			}
			if len(log.begun) > 0 {
				t.Error("an incarnation was begun without leave")
			}
		})
	}
	t.Run("retention has deleted the record", func(t *testing.T) {
		assignment := assignment
		assignment.LogStart = 30
		stage := newStage(t, &fixture{out: newOutputs(t)}, inLog(&knownLog{}, false))
		if _, _, err := stage.Assign(t.Context(), assignment); !errors.Is(err, aggregate.ErrOvertaken) {
			t.Errorf("Assign: %v, want ErrOvertaken", err)
		}
	})
	t.Run("before the commit's version it is not known", func(t *testing.T) {
		old := start(t, nil)
		old.seconds(0, 29)
		assignment := old.feed.assignment
		commit, _ := old.feed.commit()
		old.stop()
		assignment = takenOver(assignment, commit)
		log := &knownLog{fails: errors.New("not to be asked")}
		if _, _, err := newStage(t, &fixture{out: newOutputs(t)}, inLog(log, false)).Assign(t.Context(), assignment); err != nil {
			t.Errorf("Assign: %v", err)
		}
	})
}

// With --from-here a partition that has lost its end starts over in another
// incarnation, and emits nothing in the earlier one.
func TestFromHereBeginsAnIncarnation(t *testing.T) {
	assignment, _ := committedAssignment(t)
	assignment.LogEnd = 20
	log := &knownLog{end: 21}
	f := startWith(t, assignment, inLog(log, true))
	f.feed.next = 0
	f.feed.append(incarnation(firstLife), f.begin, own(oona.IncarnationRecord))
	f.seconds(0, 19)
	const second = firstLife + 3600e6
	f.feed.append(incarnation(second), f.begin.Add(19*time.Second), own(oona.IncarnationRecord))
	f.seconds(20, 200)
	f.stop()
	if len(log.begun) != 1 || log.begun[0] != (begunIncarnation{firstLife, 30}) {
		t.Errorf("incarnations were begun: %+v", log.begun)
	}
	all := f.rollups(t, f.topics.LayerHealth)
	if len(all) == 0 {
		t.Fatal("nothing was emitted")
	}
	for _, r := range all {
		if r.Trigger.Incarnation != second {
			t.Fatalf("%+v was emitted in another incarnation", r.Trigger)
		}
	}
	late := f.out.of(t, f.topics.Late)
	if len(late) == 0 {
		t.Error("no frame is late")
	}
	for _, msg := range late {
		if got := msg.Metadata[oona.HeaderErrorIncarnation]; got != fmt.Sprint(firstLife) && got != fmt.Sprint(second) {
			t.Fatalf("a late frame is of incarnation %q", got)
		}
	}
}

// If there is no commit, and the log does not have the triggers of the last rollups, it is another log.
// Its rollups would have lower triggers unless its incarnation is greater.
func TestTopicThatWasMadeAgain(t *testing.T) {
	assignment := wholeAssignment()
	frame := map[int64]knownRecord{0: {}}
	// A rollup of the window from 0 to 10 s, whose last frame was observed at 9 s. The
	// record that closed the window was appended 7 s later.
	second := func(s int) time.Time { return time.Unix(int64(s), 0) }
	rollup := func(offset int64, of oona.Incarnation) []oona.Rollup {
		r := oona.Rollup{Start: oona.MicrosOf(second(0)), End: oona.MicrosOf(second(10)), Trigger: oona.Trigger{Incarnation: of, Offset: offset}}
		health := r
		r.Group, r.Rates.Delay = oona.Performance, 7_000_000
		return []oona.Rollup{health, r}
	}
	for name, c := range map[string]struct {
		log  knownLog
		want error
	}{
		"no rollups":                        {knownLog{records: frame}, nil},
		"an incarnation":                    {knownLog{records: frame, first: firstLife, rollups: rollup(99, 0)}, nil},
		"the rollups' own incarnation":      {knownLog{records: frame, first: firstLife, rollups: rollup(99, firstLife)}, nil},
		"an incarnation below the rollups'": {knownLog{records: frame, first: firstLife, last: firstLife + 1, rollups: rollup(99, firstLife+1)}, aggregate.ErrMadeAgain},
		"it, and a greater one further on":  {knownLog{records: frame, first: firstLife, last: firstLife + 2, rollups: rollup(99, firstLife+1)}, nil},
		"a frame first":                     {knownLog{records: frame, rollups: rollup(99, 0)}, aggregate.ErrMadeAgain},
		"it, and an incarnation further on": {knownLog{records: frame, last: firstLife, rollups: rollup(99, 0)}, nil},
		"nothing as yet":                    {knownLog{last: firstLife, rollups: rollup(99, firstLife)}, aggregate.ErrMadeAgain},
		"rollups of this log":               {knownLog{records: map[int64]knownRecord{0: {}, 3: {second(16)}}, rollups: rollup(3, 0)}, nil},
		"rollups of an incarnation of it":   {knownLog{records: map[int64]knownRecord{0: {}, 3: {second(16)}}, rollups: rollup(3, firstLife)}, nil},
		"rollups whose offsets are low":     {knownLog{records: map[int64]knownRecord{0: {}, 3: {second(86)}}, rollups: rollup(3, 0)}, aggregate.ErrMadeAgain},
	} {
		t.Run(name, func(t *testing.T) {
			stage := newStage(t, &fixture{out: newOutputs(t)}, inLog(&c.log, false))
			if from, _, err := stage.Assign(t.Context(), assignment); !errors.Is(err, c.want) || from != 0 {
				t.Errorf("Assign: offset %d, %v; want 0, %v", from, err, c.want)
			}
		})
	}
}

// An empty partition may have just been created, so the assignment is tried again.
func TestTopicThatIsBeingMade(t *testing.T) {
	for end, short := range map[int64]bool{0: true, 5: false} {
		assignment := wholeAssignment()
		assignment.LogEnd = end
		log := &knownLog{rollups: []oona.Rollup{{Trigger: oona.Trigger{Offset: 99}}}, records: map[int64]knownRecord{}}
		if end > 0 {
			log.records[0] = knownRecord{}
		}
		stage := newStage(t, &fixture{out: newOutputs(t)}, inLog(log, false))
		assignment.Settled = false
		if _, _, err := stage.Assign(t.Context(), assignment); !errors.Is(err, aggregate.ErrMadeAgain) || errors.Is(err, bus.ErrShort) != short {
			t.Errorf("of a log that ends at %d: %v", end, err)
		}
		log.first = firstLife
		if from, _, err := stage.Assign(t.Context(), assignment); err != nil || from != 0 {
			t.Errorf("once the first record is there: offset %d, %v", from, err)
		}
	}
}

// A partition that starts over without a commit has the configuration that was last
// written to it, not the worker's settings.
func TestFromHereWithTheLastConfiguration(t *testing.T) {
	written := func(from oona.Micros) *oona.WindowConfiguration {
		c := windows.DefaultConfig()
		c.Length, c.MaxDelay, c.MaxSkew, c.IdleHorizon = 20*time.Second, 60*time.Second, 10*time.Second, 20*time.Second
		c.Generation, c.Reducer, c.Catalogue = 4, 2, oona.FirstCatalogue
		r := windows.Configuration{Config: c, From: from}.Record()
		return &r
	}
	for name, c := range map[string]struct {
		windows *oona.WindowConfiguration
		want    oona.Rollup // only its generation, reducer and catalogue are compared
	}{
		"none":                 {nil, oona.Rollup{Reducer: 1}},
		"one":                  {written(0), oona.Rollup{Generation: 4, Reducer: 2, Catalogue: oona.FirstCatalogue}},
		"one that holds later": {written(oona.MicrosOf(time.Now().Add(time.Hour))), oona.Rollup{Reducer: 1}},
	} {
		t.Run(name, func(t *testing.T) {
			f := startWith(t, lostAssignment(), inLog(&knownLog{end: 21, windows: c.windows}, true))
			f.seconds(0, 140)
			f.stop()
			all := f.rollups(t, f.topics.LayerHealth)
			if len(all) == 0 {
				t.Fatal("nothing was emitted")
			}
			for _, r := range all {
				if r.Generation != c.want.Generation || r.Reducer != c.want.Reducer || r.Catalogue != c.want.Catalogue {
					t.Fatalf("generation %d, reducer %d, catalogue %s; want %+v", r.Generation, r.Reducer, r.Catalogue, c.want)
				}
			}
		})
	}
}

// If the log does not answer, the assignment is tried again and the stage does not end.
func TestLogThatDoesNotAnswer(t *testing.T) {
	assignment, last := committedAssignment(t)
	log := &knownLog{records: map[int64]knownRecord{29: {appended: last}}, fails: errors.New("the broker does not answer")}
	f := &fixture{out: newOutputs(t)}
	stage := newStage(t, f, inLog(log, false))
	if _, _, err := stage.Assign(t.Context(), assignment); !errors.Is(err, log.fails) {
		t.Errorf("Assign: %v", err)
	}
	log.fails = nil
	f.stage, f.begin, f.sequence = stage, last.Add(-28*time.Second), 28
	ended := f.run(t, assignment)
	f.feed.next = 30
	f.send(f.frame(29 * time.Second))
	f.stop()
	if err := <-ended; err != nil || stage.Counts().Folded != 1 {
		t.Errorf("the stage ended: %v, having folded %d frames", err, stage.Counts().Folded)
	}
}

// run runs the fixture's stage with an assignment until stop. The channel gets the error
// of Run.
func (f *fixture) run(t *testing.T, assignment bus.Assignment) <-chan error {
	t.Helper()
	f.feed = &feed{stage: f.stage, assignment: assignment, messages: make(chan *message.Message), next: begin(assignment)}
	ctx, cancel := context.WithCancel(t.Context())
	f.stop = func() {
		cancel()
		close(f.feed.messages)
	}
	ended := make(chan error, 1)
	go func() { ended <- f.stage.Run(ctx, f.feed) }()
	return ended
}

// If the log names a catalogue that does not exist, the stage ends. If the catalogue cannot be looked
// up at the moment, the record is tried again, and nothing is skipped.
func TestCatalogueThatTheLogNames(t *testing.T) {
	named := oona.CatalogueHash{1, 2, 3}
	configured := func(f *fixture) []byte {
		return f.configuration(1, 0, func(c *windows.Config) { c.Catalogue = named })
	}
	t.Run("does not exist", func(t *testing.T) {
		f := &fixture{out: newOutputs(t), begin: time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)}
		f.others = func(hash oona.CatalogueHash) (windows.Catalogue, error) {
			if hash == named {
				return nil, fmt.Errorf("%w: does not exist", windows.ErrCatalogue)
			}
			return f.catalogue, nil
		}
		f.stage = newStage(t, f, nil)
		ended := f.run(t, wholeAssignment())
		msg := f.feed.message(configured(f), f.begin, own(oona.ConfigurationRecord))
		f.feed.messages <- msg
		<-msg.Nacked()
		close(f.feed.messages)
		if err := <-ended; !errors.Is(err, windows.ErrCatalogue) {
			t.Errorf("Run: %v, want ErrCatalogue", err)
		}
	})
	t.Run("it comes later", func(t *testing.T) {
		var asked atomic.Int64
		f := &fixture{out: newOutputs(t), begin: time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)}
		f.others = func(hash oona.CatalogueHash) (windows.Catalogue, error) {
			if hash == named && asked.Add(1) < 3 {
				return nil, errors.New("the settings cannot be read now")
			}
			return func(name string) oona.Metric { return oona.Metric{Name: name, Group: oona.Performance} }, nil
		}
		f.stage = newStage(t, f, nil)
		ended := f.run(t, wholeAssignment())
		if deliveries := f.feed.append(configured(f), f.begin, own(oona.ConfigurationRecord)); deliveries != 3 {
			t.Errorf("the record was taken at the %dth delivery, want the third", deliveries)
		}
		f.seconds(0, 20)
		f.stop()
		if err := <-ended; err != nil {
			t.Errorf("Run: %v", err)
		}
		all := f.rollups(t, f.topics.LayerPerformance)
		if len(all) == 0 || all[0].Catalogue != named || len(all[0].Metrics) != 1 {
			t.Errorf("rollups are %+v", all)
		}
	})
}
