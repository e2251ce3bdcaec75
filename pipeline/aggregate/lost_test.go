package aggregate_test

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/bus"
	"github.com/morphogenetic/oona/pipeline/aggregate"
	"github.com/morphogenetic/oona/windows"
)

// fromHere configures a worker with --from-here that soon emits windows again.
func fromHere(c *aggregate.Config) {
	c.FromHere = true
	c.Windows.MaxDelay, c.Windows.MaxSkew, c.Windows.IdleHorizon = 60*time.Second, 10*time.Second, 20*time.Second
}

// lostAssignment is an assignment of a log that begins at 7 and ends at 20, without a commit.
func lostAssignment() bus.Assignment {
	return bus.Assignment{Topic: "kasmina.telemetry.seed.metrics", Partition: 3, Partitions: 4,
		LogStart: 7, LogEnd: 20, Settled: true, Committed: bus.Commit{Offset: oona.NoOffset}}
}

// seconds sends a frame per second, from one second to another.
func (f *fixture) seconds(from, to int) {
	for s := from; s < to; s++ {
		f.sequence = int64(s)
		f.send(f.frame(time.Duration(s) * time.Second))
	}
}

// A partition that starts over sends the frames that it does not fold to the late
// topic. A successor resumes from any of its commits without --from-here. The first
// commit can be made before any record.
func TestFromHere(t *testing.T) {
	whole := startWith(t, lostAssignment(), fromHere)
	whole.seconds(0, 140)
	whole.stop()
	late, health := whole.out.of(t, whole.topics.Late), whole.rollups(t, whole.topics.LayerHealth)
	if n := whole.stage.Counts(); n.Late != int64(len(late)) || n.Late+n.Folded != 140 || len(late) == 0 {
		t.Fatalf("counts are %+v, with %d frames in the late topic", n, len(late))
	}
	for _, msg := range late {
		if msg.Metadata[oona.HeaderErrorException] != string(windows.ReasonLost) {
			t.Fatalf("a frame is late because %q", msg.Metadata[oona.HeaderErrorException])
		}
	}
	// The 71st second is more than one maximum delay and skew after the first one, and
	// no earlier frame can belong to a window that starts 10 s later.
	if len(health) == 0 || health[0].Start != oona.MicrosOf(whole.begin.Add(90*time.Second)) || health[0].Frames != 10 {
		t.Fatalf("rollups are %+v", health)
	}
	want := published(t, whole)
	for _, at := range []int{0, 1, 40, 71, 85, 100, 139} {
		first := &fixture{out: newOutputs(t)}
		first.stage, first.stop = newStage(t, first, fromHere), func() {}
		if at > 0 {
			first = startWith(t, lostAssignment(), fromHere)
			first.seconds(0, at)
		} else {
			first.feed = &feed{stage: first.stage, assignment: lostAssignment()}
			if _, err := first.feed.Subscribe(t.Context(), ""); err != nil {
				t.Fatal(err)
			}
		}
		commit, due := first.feed.commit()
		first.stop()
		if !due {
			t.Fatalf("nothing to commit after %d records", at)
		}
		assignment := takenOver(lostAssignment(), commit)
		second := startWith(t, assignment, nil) // with the settings of the commit
		second.seconds(int(commit.Offset)-7, 140)
		second.stop()
		got := published(t, first)
		for topic, more := range published(t, second) {
			got[topic] = append(got[topic], more...)
		}
		for topic := range want {
			if !slices.Equal(got[topic], want[topic]) {
				t.Errorf("commit after %d records: %s has %d records, want %d, or others", at, topic, len(got[topic]), len(want[topic]))
			}
		}
	}
}

// --from-here has no effect if nothing is lost, or if there is another error.
func TestFromHereElsewhere(t *testing.T) {
	sound := start(t, nil)
	log := someLog(sound)
	sound.fold(log, 0, 30)
	assignment := sound.feed.assignment
	commit, _ := sound.feed.commit()
	sound.fold(log, 30, int64(len(log)))
	sound.stop()
	assignment = takenOver(assignment, commit)

	leave := func(c *aggregate.Config) { c.FromHere = true }
	fresh := start(t, leave)
	fresh.fold(log, 0, int64(len(log)))
	fresh.stop()
	next := startWith(t, assignment, leave)
	next.fold(log, begin(assignment), int64(len(log)))
	next.stop()
	for topic, want := range published(t, sound) {
		if got := published(t, fresh)[topic]; !slices.Equal(got, want) {
			t.Errorf("from the beginning: %s has %d records, want %d, or others", topic, len(got), len(want))
		}
		if got := published(t, next)[topic]; !slices.Equal(got, want[len(want)-len(got):]) || topic == next.topics.LayerHealth && len(got) == 0 {
			t.Errorf("from a commit: %s has %d records, which are not the last ones", topic, len(got))
		}
	}

	assignment.LogStart = assignment.Committed.Offset + 1
	for name, c := range map[string]struct {
		change func(*bus.Assignment)
		want   error
	}{
		"partitions were added":    {func(c *bus.Assignment) { c.Partitions = 5 }, aggregate.ErrPartitions},
		"another program's commit": {func(c *bus.Assignment) { c.Committed.Metadata = "something else" }, aggregate.ErrCommitText},
		"a damaged commit":         {func(c *bus.Assignment) { c.Committed.Metadata = c.Committed.Metadata[:len(c.Committed.Metadata)-2] }, windows.ErrCommit},
	} {
		overtaken := assignment
		c.change(&overtaken)
		if _, _, err := newStage(t, &fixture{out: newOutputs(t)}, leave).Assign(t.Context(), overtaken); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
	}
}

// If retention has deleted records that the commit needs, the partition keeps the configuration of the
// commit.
func TestFromHereBeyondTheCommit(t *testing.T) {
	first := start(t, fromHere)
	first.feed.append(first.configuration(1, 0, func(c *windows.Config) {
		c.Length, c.MaxDelay, c.MaxSkew, c.IdleHorizon = 20*time.Second, 60*time.Second, 10*time.Second, 20*time.Second
	}), first.begin, own(oona.ConfigurationRecord))
	first.seconds(0, 30)
	assignment := first.feed.assignment
	assignment.Committed, _ = first.feed.commit()
	first.stop()

	assignment.LogStart, assignment.LogEnd = 50, 60
	second := startWith(t, assignment, fromHere)
	second.seconds(40, 200)
	second.stop()
	if got := strings.Join(second.lengths(t), " "); !strings.HasPrefix(got, "1:20s 1:20s") || strings.Contains(got, "10s") {
		t.Errorf("generation and length of the windows are %s", got)
	}
	if n := second.stage.Counts(); n.Late == 0 || n.Late+n.Folded != 160 {
		t.Errorf("counts are %+v", n)
	}
}

// A worker that starts over with settings that the log cannot have ends when it reads
// a configuration, and its error names the right settings.
func TestFromHereWithWrongSettings(t *testing.T) {
	f := &fixture{out: newOutputs(t), begin: time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)}
	f.stage = newStage(t, f, fromHere)
	f.feed = &feed{stage: f.stage, assignment: lostAssignment(), messages: make(chan *message.Message), next: 7}
	ended := make(chan error, 1)
	go func() { ended <- f.stage.Run(t.Context(), f.feed) }()
	f.seconds(0, 10)
	msg := f.feed.message(f.configuration(3, time.Hour, func(c *windows.Config) { c.FrontierSlots = 64 }), f.begin.Add(10*time.Second), own(oona.ConfigurationRecord))
	f.feed.messages <- msg
	<-msg.Nacked()
	close(f.feed.messages)
	if err := <-ended; !errors.Is(err, aggregate.ErrSettings) || !strings.Contains(err.Error(), "--frontier-slots=64") {
		t.Errorf("Run: %v, want ErrSettings and the log's settings", err)
	}
}

// After the log has lost records at its end that were read, the partition starts
// over: new records at their offsets are read, and nothing is emitted twice.
func TestFromHereWhereTheLogLostItsEnd(t *testing.T) {
	first := start(t, fromHere)
	first.seconds(0, 60)
	assignment := first.feed.assignment
	assignment.Committed, _ = first.feed.commit()
	first.stop()
	before := first.rollups(t, first.topics.LayerHealth)
	if len(before) == 0 || readTo(assignment.Committed) != 60 {
		t.Fatalf("%d rollups, committed as of offset %d", len(before), readTo(assignment.Committed))
	}

	assignment.LogEnd = 50
	second := startWith(t, assignment, fromHere)
	second.feed.next = assignment.LogStart
	second.seconds(0, 50)
	early := second.stage.Counts()
	second.seconds(61, 140) // the offsets from 50 on
	second.stop()
	n := second.stage.Counts()
	if early.Late != 50 || n.Replayed != 0 || n.Late+n.Folded != 129 {
		t.Errorf("counts are %+v, at the log's end %+v", n, early)
	}
	after := second.rollups(t, second.topics.LayerHealth)
	if len(after) == 0 || after[0].Start != oona.MicrosOf(second.begin.Add(90*time.Second)) {
		t.Fatalf("rollups are %+v", after)
	}
	for _, r := range before {
		if r.Start >= after[0].Start {
			t.Errorf("the window at %s was emitted before", r.Start.Time())
		}
	}
}

// A partition that cannot start over yet does not begin an incarnation. Otherwise each attempt would
// begin another one.
func TestFailedStartBeginsNoIncarnation(t *testing.T) {
	f, log := &fixture{out: newOutputs(t)}, &knownLog{fails: errors.New("the broker does not answer")}
	stage := newStage(t, f, func(c *aggregate.Config) { fromHere(c); c.Log = log })
	for range 2 {
		if _, _, err := stage.Assign(t.Context(), lostAssignment()); !errors.Is(err, log.fails) {
			t.Errorf("Assign: %v", err)
		}
	}
	log.fails = nil
	if _, _, err := stage.Assign(t.Context(), lostAssignment()); err != nil || len(log.begun) != 1 {
		t.Errorf("Assign: %v; incarnations were begun: %+v", err, log.begun)
	}
}
