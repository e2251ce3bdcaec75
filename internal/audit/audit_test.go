package audit_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/bus"
	"github.com/morphogenetic/oona/bus/memory"
	"github.com/morphogenetic/oona/internal/audit"
	"github.com/morphogenetic/oona/schemas/avro"
)

const partitions = 3

type trail struct {
	*memory.Bus
	t      *testing.T
	topics oona.Topics
	to     bus.Publisher
}

func newTrail(t *testing.T) *trail {
	t.Helper()
	topics, err := oona.NewTopics("audit")
	if err != nil {
		t.Fatal(err)
	}
	b := memory.New()
	if _, err := b.Apply(t.Context(), append(topics.Specs(partitions), topics.EventSpecs(partitions)...)); err != nil {
		t.Fatal(err)
	}
	to, err := b.Publisher(bus.PublisherOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return &trail{b, t, topics, to}
}

func (r *trail) publish(topic string, m *message.Message) {
	r.t.Helper()
	if err := r.to.Publish(r.t.Context(), topic, m); err != nil {
		r.t.Fatal(err)
	}
}

func target(e *oona.SeedEvent) bus.Target {
	return bus.Target{Key: oona.SeedKey(e.Run, e.Layer, e.Seed), Partition: bus.Hash([]byte(e.Run)), Hashed: true}
}

// write writes events as ingest does.
func (r *trail) write(events ...oona.SeedEvent) {
	r.t.Helper()
	for _, e := range events {
		r.publish(r.topics.Event(&e), bus.NewMessage(avro.AppendEvent(nil, &e), target(&e)))
	}
}

// put writes an event to a partition of its topic, some time ago.
func (r *trail) put(e *oona.SeedEvent, partition int32, ago time.Duration) {
	r.t.Helper()
	to := bus.Target{Key: oona.SeedKey(e.Run, e.Layer, e.Seed), Partition: partition, Directed: true, Time: oona.MicrosOf(time.Now().Add(-ago))}
	r.publish(r.topics.Event(e), bus.NewMessage(avro.AppendEvent(nil, e), to))
}

func (r *trail) run(o audit.Options) (*audit.Summary, []*audit.Life) {
	r.t.Helper()
	o.Topics = r.topics
	var lives []*audit.Life
	s, err := audit.Run(r.t.Context(), r, o, func(l *audit.Life) error {
		lives = append(lives, l)
		return nil
	})
	if err != nil {
		r.t.Fatal(err)
	}
	return s, lives
}

func event(sequence int64, from, to oona.State) oona.SeedEvent {
	return oona.SeedEvent{Run: "r", Layer: "l", Seed: 7, Sequence: sequence, At: 1_790_000_000_000_000 + oona.Micros(sequence), From: from, To: to, Reason: "because"}
}

// way returns the events of a life without faults.
func way() []oona.SeedEvent {
	var all []oona.SeedEvent
	states := []oona.State{oona.Dormant, oona.Germinated, oona.Training, oona.Grafting, oona.Stabilization, oona.Evaluating, oona.FineTuning, oona.Fossilized}
	for i, from := range states[:len(states)-1] {
		all = append(all, event(int64(i), from, states[i+1]))
	}
	return all
}

func sequences(l *audit.Life) (all []int64) {
	for _, e := range l.Events {
		all = append(all, e.Sequence)
	}
	return all
}

// faults lists the faults of a life, as "sequence kind".
func faults(l *audit.Life) (all []string) {
	for _, e := range l.Events {
		for _, f := range e.Faults {
			all = append(all, fmt.Sprint(e.Sequence, " ", f.Kind))
		}
	}
	return all
}

// TestLife checks that the events of all topics are put in the order of their sequence numbers, in
// whatever order they were written, and that repeats are counted.
func TestLife(t *testing.T) {
	r := newTrail(t)
	all := way()
	slices.Reverse(all)
	r.write(all...)
	r.write(all[2], all[2], all[5])
	s, lives := r.run(audit.Options{Seed: oona.AnySeed})
	if len(lives) != 1 || s.Flagged() || lives[0].Flagged() || s.Seeds != 1 || s.Events != 7 || s.Repeats != 3 || s.Deleted {
		t.Fatalf("%+v, lives %+v", s, lives)
	}
	if got := sequences(lives[0]); !slices.IsSorted(got) || len(got) != 7 || lives[0].Events[4].Repeats != 2 || lives[0].Events[1].Repeats != 1 {
		t.Errorf("sequences %d, events %+v", got, lives[0].Events)
	}
}

// TestFaults checks that each kind of fault is found at its event, and that nothing else is found.
func TestFaults(t *testing.T) {
	for name, c := range map[string]struct {
		write func(r *trail)
		want  []string // of the life
		other map[audit.Kind]int
	}{
		"gaps":       {func(r *trail) { all := way(); r.write(all[1], all[2], all[5]) }, []string{"1 gap", "5 gap"}, nil},
		"a conflict": {func(r *trail) { all := way(); r.write(all...); all[2].Reason = "other"; r.write(all[2]) }, []string{"2 conflict", "2 conflict"}, nil},
		"a conflict of states": {func(r *trail) {
			all := way()
			r.write(all...)
			for _, to := range []oona.State{oona.Culled, oona.RolledBack} { // the next event starts from the state in which the first of the three ends
				all[2].To = to
				all[2].Mark = oona.EventRewound
				r.write(all[2])
			}
		}, []string{"2 conflict", "2 conflict", "2 conflict"}, nil},
		"a conflict, and another state": {func(r *trail) {
			r.write(event(0, oona.Dormant, oona.Germinated), event(1, oona.Germinated, oona.Training), event(1, oona.Germinated, oona.Cancelled), event(2, oona.Evaluating, oona.FineTuning))
		}, []string{"1 conflict", "1 conflict", "2 transition"}, nil},
		"another state before": {func(r *trail) { r.write(event(0, 0, 1), event(1, oona.Training, oona.Grafting)) }, []string{"1 transition"}, nil},
		"no such transition":   {func(r *trail) { r.write(event(0, 0, 1), event(1, oona.Germinated, oona.Fossilized)) }, []string{"1 transition"}, nil},
		"a wrong beginning":    {func(r *trail) { r.write(event(0, oona.Training, oona.Grafting)) }, []string{"0 transition"}, nil},
		"an end that goes on":  {func(r *trail) { r.write(append(way(), event(7, oona.Fossilized, oona.Dormant))...) }, []string{"7 transition"}, nil},
		"a new blueprint":      {func(r *trail) { r.write(append(way()[:2], event(2, oona.Training, oona.Training))...) }, nil, nil},
		"marks": {func(r *trail) {
			adopted, rewound := event(0, oona.Evaluating, oona.Evaluating), event(1, oona.Evaluating, oona.Training)
			adopted.Mark, rewound.Mark = oona.EventAdopted, oona.EventRewound
			r.write(adopted, rewound, event(2, oona.Training, oona.Grafting))
		}, nil, nil},
		"another topic": {func(r *trail) {
			e := event(0, 0, 1)
			r.publish(r.topics.Culled, bus.NewMessage(avro.AppendEvent(nil, &e), target(&e)))
		}, []string{"0 place"}, nil},
		"another key": {func(r *trail) {
			e := event(0, 0, 1)
			to := target(&e)
			to.Key = []byte("x")
			r.publish(r.topics.Germinated, bus.NewMessage(avro.AppendEvent(nil, &e), to))
		}, []string{"0 place"}, nil},
		"another partition": {func(r *trail) {
			e := event(0, 0, 1)
			r.put(&e, bus.PartitionOf([]byte(e.Run), partitions), 2*time.Minute)
			r.put(&e, (bus.PartitionOf([]byte(e.Run), partitions)+1)%partitions, 0)
		}, []string{"0 place"}, nil},
		"a time of the future": {func(r *trail) {
			e, next := event(0, 0, 1), event(1, oona.Germinated, oona.Training)
			e.At, next.At = oona.MicrosOf(time.Now().Add(30*time.Second)), oona.MicrosOf(time.Now().Add(2*time.Minute))
			r.write(e, next)
		}, []string{"1 future"}, nil},
		"two writers": {func(r *trail) {
			all := way()
			all[3].TriggerPosition = 9
			r.write(all...)
		}, nil, map[audit.Kind]int{audit.Writers: 1}},
		"no events": {func(r *trail) {
			r.write(way()...)
			r.publish(r.topics.Culled, bus.NewMessage([]byte("rubbish"), bus.Target{Key: []byte("x")}))
			invalid := event(0, 0, 1)
			invalid.Layer = "a b"
			r.write(invalid)
		}, nil, map[audit.Kind]int{audit.Unreadable: 2}},
	} {
		r := newTrail(t)
		c.write(r)
		s, lives := r.run(audit.Options{Seed: oona.AnySeed})
		if len(lives) != 1 || !slices.Equal(faults(lives[0]), c.want) {
			t.Errorf("%s: lives %+v, want the faults %q", name, lives, c.want)
			continue
		}
		want := make(map[audit.Kind]int)
		for kind, n := range c.other {
			want[kind] += n
		}
		for _, e := range lives[0].Events {
			for _, f := range e.Faults {
				want[f.Kind]++
			}
		}
		if fmt.Sprint(s.Faults) != fmt.Sprint(want) || s.Flagged() != (len(want) > 0) {
			t.Errorf("%s: %+v, want the faults %v", name, s, want)
		}
	}
}

// TestSelection checks that events can be selected by run, layer, seed and time, and that a selected
// time causes no gap at the beginning.
func TestSelection(t *testing.T) {
	r := newTrail(t)
	for _, run := range []oona.RunID{"r", "s"} {
		for _, layer := range []oona.LayerID{"l", "m"} {
			for seed := range oona.SeedID(3) {
				for _, e := range way() {
					e.Run, e.Layer, e.Seed = run, layer, seed
					r.write(e)
				}
			}
		}
	}
	for want, o := range map[int]audit.Options{
		12: {Seed: oona.AnySeed}, 6: {Runs: []oona.RunID{"s"}, Seed: oona.AnySeed}, 3: {Runs: []oona.RunID{"r"}, Layer: "m", Seed: oona.AnySeed}, 1: {Runs: []oona.RunID{"r"}, Layer: "m", Seed: 2},
		4: {Seed: 0}, 0: {Runs: []oona.RunID{"t"}, Seed: oona.AnySeed},
	} {
		if s, lives := r.run(o); len(lives) != want || s.Events != 7*want || s.Flagged() {
			t.Errorf("%+v: %d lives, %+v", o, len(lives), s)
		}
	}
	s, lives := r.run(audit.Options{Runs: []oona.RunID{"r"}, Layer: "l", Seed: 1, From: 1_790_000_000_000_002, Until: 1_790_000_000_000_005})
	if s.Flagged() || len(lives) != 1 || !slices.Equal(sequences(lives[0]), []int64{2, 3, 4}) {
		t.Errorf("with a selected time: %+v, %+v", s, lives)
	}
}

// TestPartitionsAdded checks events after partitions were added to their topic. Events that the topic
// had before stay where they are. They are in the right place if they belong there with some number of
// partitions, unless it is known that the topic already had more.
func TestPartitionsAdded(t *testing.T) {
	const before = 2
	run, other := oona.RunID("r"), oona.RunID("")
	was, is := bus.PartitionOf([]byte(run), before), bus.PartitionOf([]byte(run), partitions)
	if was != 1 || is != 0 {
		t.Fatalf("the run moves from %d to %d", was, is)
	}
	for i := 0; other == "" || bus.PartitionOf([]byte(other), partitions) != partitions-1; i++ {
		other = oona.RunID(fmt.Sprint("o", i))
	}
	seeds := func(r *trail, partition int32, ago time.Duration, seeds ...oona.SeedID) {
		for _, seed := range seeds {
			e := event(0, oona.Dormant, oona.Germinated)
			e.Seed = seed
			r.put(&e, partition, ago)
		}
	}
	for name, c := range map[string]struct {
		write   func(r *trail)
		flagged []oona.SeedID
		fewer   int
	}{
		"added":             {func(r *trail) { seeds(r, was, time.Hour, 1, 2); seeds(r, is, time.Minute/2, 3) }, nil, 2},
		"about to move":     {func(r *trail) { seeds(r, is, 30*time.Second, 1); seeds(r, was, 0, 2) }, nil, 1},
		"moved, and back":   {func(r *trail) { seeds(r, was, time.Hour, 1); seeds(r, is, time.Minute*30, 2); seeds(r, was, 0, 3) }, []oona.SeedID{3}, 1},
		"only where it was": {func(r *trail) { seeds(r, was, 0, 1) }, nil, 1},
		"of no number":      {func(r *trail) { seeds(r, 2, 0, 1) }, []oona.SeedID{1}, 0},
		"repeats":           {func(r *trail) { seeds(r, was, time.Hour, 1, 2, 1, 1); seeds(r, is, time.Minute/2, 1) }, nil, 4},
		"a repeat after it has moved": {func(r *trail) {
			seeds(r, was, time.Hour, 1)
			seeds(r, is, time.Minute*30, 2)
			seeds(r, was, 0, 1)
		}, []oona.SeedID{1}, 0},
		"another run has moved": {func(r *trail) {
			e := event(0, oona.Dormant, oona.Germinated)
			e.Run = other
			r.put(&e, partitions-1, time.Hour)
			seeds(r, was, 2*time.Hour, 1)
			seeds(r, was, 0, 2)
		}, []oona.SeedID{2}, 1},
	} {
		r := newTrail(t)
		c.write(r)
		s, lives := r.run(audit.Options{Runs: []oona.RunID{run}, Seed: oona.AnySeed})
		var flagged []oona.SeedID
		for _, l := range lives {
			if got := faults(l); len(got) > 0 {
				flagged = append(flagged, l.Seed)
				if !slices.Equal(got, []string{"0 place"}) {
					t.Errorf("%s: seed %d has the faults %q", name, l.Seed, got)
				}
			}
		}
		if !slices.Equal(flagged, c.flagged) || s.Fewer != c.fewer || s.Faults[audit.Place] != len(c.flagged) {
			t.Errorf("%s: seeds %d are flagged, want %d; %+v", name, flagged, c.flagged, s)
		}
	}
}

// TestWrongKeys checks that the seed is taken from the event and not from the key of its record, also
// if the topics are read in several passes or for one run.
func TestWrongKeys(t *testing.T) {
	r := newTrail(t)
	const seeds = 60
	for seed := range oona.SeedID(seeds) {
		for _, e := range way() {
			e.Seed = seed
			to := target(&e)
			to.Key = oona.SeedKey("another", "l", oona.SeedID(e.Sequence)) // another key for each event, so that by their keys the events would be in different parts
			r.publish(r.topics.Event(&e), bus.NewMessage(avro.AppendEvent(nil, &e), to))
		}
	}
	for _, o := range []audit.Options{{Seed: oona.AnySeed, Memory: 20_000}, {Runs: []oona.RunID{"r"}, Seed: oona.AnySeed}, {Runs: []oona.RunID{"another"}, Seed: oona.AnySeed}} {
		s, lives := r.run(o)
		want := seeds
		if slices.Contains(o.Runs, "another") {
			want = 0
		}
		if len(lives) != want || s.Seeds != want || s.Events != 7*want || s.Faults[audit.Place] != 7*want || s.Faults[audit.Gap] > 0 {
			t.Errorf("%+v: %d lives, %+v", o, len(lives), s)
		}
	}
}

// TestManyUnreadable checks that records that are not events are counted without a limit, and take no
// memory that events need.
func TestManyUnreadable(t *testing.T) {
	r := newTrail(t)
	r.write(way()...)
	const rubbish = 1500
	var all []*message.Message
	for range rubbish {
		all = append(all, bus.NewMessage([]byte("rubbish"), bus.Target{}))
	}
	if err := r.to.Publish(t.Context(), r.topics.Culled, all...); err != nil {
		t.Fatal(err)
	}
	s, lives := r.run(audit.Options{Seed: oona.AnySeed, Memory: 20_000})
	if len(lives) != 1 || s.Events != 7 || s.Faults[audit.Unreadable] != rubbish || len(s.Other) != 1000 {
		t.Errorf("%d lives, %d faults are listed, %v", len(lives), len(s.Other), s.Faults)
	}
}

// counting counts the reads of a log.
type counting struct {
	audit.Log
	reads int
}

func (c *counting) Read(ctx context.Context, topic string, r bus.Range, take func(*message.Message) error) error {
	c.reads++
	return c.Log.Read(ctx, topic, r, take)
}

// TestMemory checks that an audit with little memory reads the topics more often and has the same
// result, and that a seed that does not fit into the memory is an error.
func TestMemory(t *testing.T) {
	r := newTrail(t)
	const seeds = 200
	for seed := range oona.SeedID(seeds) {
		all := way()
		for i := range all {
			all[i].Seed, all[i].TriggerPosition = seed, int64(i%2)
		}
		all[3].Sequence = 2 // a conflict and a gap
		r.write(all...)
	}
	whole, _ := r.run(audit.Options{Seed: oona.AnySeed})
	log := &counting{Log: r}
	o := audit.Options{Topics: r.topics, Seed: oona.AnySeed, Memory: 20_000}
	seen := make(map[oona.SeedID]int)
	s, err := audit.Run(t.Context(), log, o, func(l *audit.Life) error {
		seen[l.Seed] += len(l.Events)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if log.reads < 10*len(r.topics.Events())*partitions {
		t.Errorf("the topics were read in %d reads", log.reads)
	}
	if s.Seeds != seeds || len(seen) != seeds || seen[7] != 7 || fmt.Sprint(s.Faults) != fmt.Sprint(whole.Faults) || s.Events != whole.Events || s.Faults[audit.Writers] != 1 {
		t.Errorf("with little memory: %+v, want %+v", s, whole)
	}
	o.Memory, o.Seed = 500, 3
	if _, err := audit.Run(t.Context(), r, o, func(*audit.Life) error { return nil }); err == nil {
		t.Error("a seed that does not fit is audited")
	}
	o.Topics, err = oona.NewTopics("other")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := audit.Run(t.Context(), r, o, nil); !errors.Is(err, bus.ErrNoTopic) {
		t.Errorf("without topics: %v", err)
	}
}

// TestTopicsThatCannotBeRead checks that the other topics are audited if some cannot be read. If the
// events of a missing topic leave a gap, the gap is flagged.
func TestTopicsThatCannotBeRead(t *testing.T) {
	r := newTrail(t)
	r.write(way()...)
	if err := r.DeleteTopic(r.topics.Grafted); err != nil {
		t.Fatal(err)
	}
	denied := &refusing{Log: r, topic: r.topics.Culled, err: bus.ErrDenied}
	var lives []*audit.Life
	s, err := audit.Run(t.Context(), denied, audit.Options{Topics: r.topics, Seed: oona.AnySeed}, func(l *audit.Life) error {
		lives = append(lives, l)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(lives) != 1 || len(lives[0].Events) != len(way())-1 || s.Faults[audit.Gap] != 1 {
		t.Errorf("%+v, %+v", s, lives)
	}
	unread := make(map[string]string)
	for _, u := range s.Unread {
		unread[u.Topic] = u.Reason
		if !errors.Is(u.Err, bus.ErrNoTopic) && !errors.Is(u.Err, bus.ErrDenied) {
			t.Errorf("%s: %v", u.Topic, u.Err)
		}
	}
	if len(unread) != 2 || unread[r.topics.Grafted] != "missing" || unread[r.topics.Culled] != "denied" {
		t.Errorf("the unread topics are %v", unread)
	}
	denied.err = bus.ErrUnreachable // this error does not concern one topic
	if _, err := audit.Run(t.Context(), denied, audit.Options{Topics: r.topics, Seed: oona.AnySeed}, nil); !errors.Is(err, bus.ErrUnreachable) {
		t.Errorf("without an answer: %v", err)
	}
	for _, topic := range r.topics.Events() {
		_ = r.DeleteTopic(topic) // one is already deleted
	}
	if _, err := audit.Run(t.Context(), r, audit.Options{Topics: r.topics, Seed: oona.AnySeed}, nil); !errors.Is(err, bus.ErrNoTopic) {
		t.Errorf("without topics: %v", err)
	}
}

// refusing is a log that returns an error for the extents of a topic.
type refusing struct {
	audit.Log
	topic string
	err   error
}

func (r *refusing) Extents(ctx context.Context, topics ...string) (map[string][]bus.Extent, error) {
	if slices.Contains(topics, r.topic) {
		return nil, r.err
	}
	return r.Log.Extents(ctx, topics...)
}
