package aggregate_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/bus"
	"github.com/morphogenetic/oona/pipeline/aggregate"
	"github.com/morphogenetic/oona/schemas/avro"
	"github.com/morphogenetic/oona/windows"
)

// logged is a record of the log in a test.
type logged struct {
	payload  []byte
	appended time.Time
}

// someLog returns a log with two runs, frames out of order, a repeat, a late frame, and
// records that are not frames.
func someLog(f *fixture) (log []logged) {
	add := func(payload []byte, at time.Time) { log = append(log, logged{payload, at}) }
	for s := range 60 {
		at := f.begin.Add(time.Duration(s) * time.Second)
		frame := f.frame(time.Duration(s) * time.Second)
		frame.Run = oona.RunID([]string{"a", "b"}[s%2])
		frame.Layer = oona.LayerID([]string{"enc.0", "enc.1", "enc.2"}[s%3])
		add(avro.AppendFrame(nil, frame), at)
		switch {
		case s%7 == 3:
			add(avro.AppendFrame(nil, frame), at)
		case s%11 == 5:
			add([]byte("not a frame"), at)
		case s == 40:
			late := f.frame(2 * time.Second)
			late.Run, late.Layer = "a", "enc.0"
			add(avro.AppendFrame(nil, late), at)
		}
	}
	return log
}

// fold appends the log from an offset to an offset.
func (f *fixture) fold(log []logged, from, to int64) {
	f.feed.next = from
	for ; f.feed.next < to; f.feed.append(log[f.feed.next].payload, log[f.feed.next].appended, nil) {
	}
}

// takenOver returns the assignment of the next owner, which resumes from a commit.
func takenOver(assignment bus.Assignment, commit bus.Commit) bus.Assignment {
	assignment.Committed = commit
	assignment.LogEnd = max(assignment.LogEnd, readTo(commit))
	return assignment
}

// readTo returns how far the log had been read when a commit was made.
func readTo(c bus.Commit) int64 {
	_, commit, err := aggregate.ParseCommit(c)
	if err != nil {
		panic(err)
	}
	reached, err := commit.Reached()
	if err != nil {
		panic(err)
	}
	return reached.ProcessedTo
}

// published returns all messages of the output topics as text, by topic.
func published(t *testing.T, f *fixture) map[string][]string {
	all := make(map[string][]string)
	for _, topic := range []string{f.topics.LayerHealth, f.topics.LayerPerformance, f.topics.Late, f.topics.Quarantine, f.topics.Overflow, f.topics.SeedMetricsDead} {
		for _, msg := range f.out.of(t, topic) {
			all[topic] = append(all[topic], fmt.Sprintf("%q %q", msg.Payload, msg.Metadata[oona.HeaderErrorOffset]))
		}
	}
	return all
}

// After any commit, a worker and its successor together publish exactly what one worker
// would have published. The successor's replay publishes nothing.
func TestSuccessorResumesFromTheCommit(t *testing.T) {
	whole := start(t, nil)
	log := someLog(whole)
	whole.fold(log, 0, int64(len(log)))
	whole.stop()
	want := published(t, whole)
	if len(want[whole.topics.LayerHealth]) < 5 || len(want[whole.topics.Late]) != 1 || len(want[whole.topics.SeedMetricsDead]) == 0 {
		t.Fatalf("the log tests little: %d health rollups, %d late, %d dead", len(want[whole.topics.LayerHealth]), len(want[whole.topics.Late]), len(want[whole.topics.SeedMetricsDead]))
	}
	replayed := int64(0)
	for at := range int64(len(log)) {
		first := start(t, nil)
		first.fold(log, 0, at)
		commit, due := first.feed.commit()
		first.stop()
		assignment := first.feed.assignment
		if due {
			assignment = takenOver(assignment, commit)
		} else if at > 0 {
			t.Fatalf("nothing to commit after %d records", at)
		}
		second := startWith(t, assignment, nil)
		second.fold(log, begin(assignment), int64(len(log)))
		second.stop()
		replayed += second.stage.Counts().Replayed
		got := published(t, first)
		for topic, more := range published(t, second) {
			got[topic] = append(got[topic], more...)
		}
		for topic := range want {
			if strings.Join(got[topic], "\n") != strings.Join(want[topic], "\n") {
				t.Fatalf("commit after %d records (%+v): %s has %d records, want %d, or others", at, commit, topic, len(got[topic]), len(want[topic]))
			}
		}
	}
	if replayed == 0 {
		t.Error("nothing was replayed: the commits were never below what was processed")
	}
}

// Nothing is committed before its output is on the bus.
func TestNothingUnpublishedIsCommitted(t *testing.T) {
	f := start(t, nil)
	f.send(f.frame(0))
	if _, due := f.feed.commit(); !due {
		t.Fatal("nothing to commit after a frame")
	}
	f.out.onFailure = func() {
		if c, due := f.feed.commit(); due {
			t.Errorf("committed %+v while a rollup is not on the bus", c)
		}
	}
	f.out.failures.Store(1)
	f.send(f.frame(20 * time.Second))
	if failed := f.out.failed.Load(); failed != 1 {
		t.Fatalf("%d publishes failed, want 1", failed)
	}
	commit, due := f.feed.commit()
	if !due {
		t.Fatal("nothing to commit once the rollup is on the bus")
	}
	f.feed.consumer().Committed(commit, errBusDown)
	if _, due := f.feed.commit(); !due {
		t.Error("a commit that failed is not tried again")
	}
	f.feed.consumer().Committed(commit, nil)
	if _, due := f.feed.commit(); due {
		t.Error("the same is committed twice")
	}
	f.stop()
}

// A partition whose past is unknown is refused. The stage ends with the reason.
func TestRefusals(t *testing.T) {
	good := func() bus.Assignment {
		f := start(t, nil)
		f.send(f.frame(0))
		c := f.feed.assignment
		c.Committed, _ = f.feed.commit()
		f.stop()
		return c
	}()
	for name, c := range map[string]struct {
		change func(*bus.Assignment)
		want   error
	}{
		"no commit, and the beginning is gone": {func(c *bus.Assignment) { c.Committed, c.LogStart = bus.Commit{Offset: oona.NoOffset}, 7 }, aggregate.ErrNoCommit},
		"retention has overtaken the commit":   {func(c *bus.Assignment) { c.LogStart = 9 }, aggregate.ErrOvertaken},
		"the log has lost what was read":       {func(c *bus.Assignment) { c.LogEnd = 0 }, aggregate.ErrAhead},
		"partitions were added":                {func(c *bus.Assignment) { c.Partitions = 5 }, aggregate.ErrPartitions},
		"another program's commit":             {func(c *bus.Assignment) { c.Committed.Metadata = "something else" }, aggregate.ErrCommitText},
		"no metadata":                          {func(c *bus.Assignment) { c.Committed.Metadata = "" }, aggregate.ErrCommitText},
		"a damaged commit":                     {func(c *bus.Assignment) { c.Committed.Metadata = c.Committed.Metadata[:len(c.Committed.Metadata)-2] }, windows.ErrCommit},
	} {
		t.Run(name, func(t *testing.T) {
			assignment := good
			c.change(&assignment)
			f := &fixture{out: newOutputs(t)}
			stage := newStage(t, f, nil)
			if _, _, err := stage.Assign(t.Context(), assignment); !errors.Is(err, c.want) {
				t.Errorf("Assign: %v; want %v", err, c.want)
			}
			err := stage.Run(t.Context(), f.out.member(t, bus.MemberOptions{Group: "g"}, stage))
			if !errors.Is(err, c.want) {
				t.Errorf("Run: %v; want %v", err, c.want)
			}
		})
	}
}
