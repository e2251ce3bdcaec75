package bustest

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/bus"
)

var adminCases = []testCase{
	{"ApplyTwice", applyTwice},
	{"ApplyNeedsPartitions", applyNeedsPartitions},
	{"CheckNamesEachFault", checkNamesEachFault},
	{"ApplyCorrects", applyCorrects},
	{"Extents", extents},
	{"Commits", commits},
	{"Retention", retention},
	{"Read", readRanges},
	{"ReadStops", readStops},
	{"RecordAt", recordAt},
	{"LastRecord", lastRecord},
	{"UnknownTopic", unknownTopic},
	{"TopicMadeAgain", topicMadeAgain},
	{"CommitOfATopicMadeAgain", commitOfATopicMadeAgain},
	{"PinnedPartitions", pinnedPartitions},
}

// faults returns the topics and kinds of the faults that an error lists.
func (t *trial) faults(err error) (all []bus.TopicFault) {
	t.Helper()
	wrong, ok := errors.AsType[*bus.TopicsError](err)
	if !ok {
		t.Fatalf("%v, want a *bus.TopicsError", err)
	}
	for _, f := range wrong.Faults {
		if f.Fault == "" {
			t.Errorf("a fault of %s has no text", f.Topic)
		}
		all = append(all, bus.TopicFault{Topic: f.Topic, Kind: f.Kind})
	}
	return all
}

// Apply creates topics that do not exist. The second time it changes nothing.
func applyTwice(t *trial) {
	specs := []oona.TopicSpec{
		{Name: unique("input"), Partitions: 4, AppendTime: true, LeastMessageBytes: 1000},
		{Name: unique("output"), Partitions: 4, MaxMessageBytes: 2 << 20},
		{Name: unique("settings"), Partitions: 1, Compacted: true},
	}
	changes, err := t.Bus.Apply(t.Context(), specs)
	if err != nil || len(changes) != 3 {
		t.Fatalf("%v, %v", changes, err)
	}
	for i, c := range changes {
		if c.Topic != specs[i].Name || c.What == "" {
			t.Errorf("change %d is %v", i, c)
		}
	}
	if err := t.Bus.Check(t.Context(), specs); err != nil {
		t.Error(err)
	}
	if changes, err := t.Bus.Apply(t.Context(), specs); err != nil || len(changes) > 0 {
		t.Errorf("the second time: %v, %v", changes, err)
	}
	specs[0].Partitions, specs[0].AnyPartitions = specs[0].Partitions+1, true
	if changes, err := t.Bus.Apply(t.Context(), specs); err != nil || len(changes) > 0 || t.Bus.Check(t.Context(), specs) != nil {
		t.Errorf("if any number is right in a topic that exists: %v, %v", changes, err)
	}
	specs[0].AnyPartitions, specs[0].Partitions, specs[1].Partitions = false, 0, 0
	if err := t.Bus.Check(t.Context(), specs); err != nil {
		t.Errorf("with any number of partitions: %v", err)
	}
}

func applyNeedsPartitions(t *trial) {
	name := unique("topic")
	changes, err := t.Bus.Apply(t.Context(), []oona.TopicSpec{{Name: name + ".other", Partitions: 1}, {Name: name}})
	if wrong, ok := errors.AsType[*oona.FieldError](err); !ok || wrong.Field != "partitions" || len(changes) > 0 {
		t.Errorf("%v, %v", changes, err)
	}
}

// Check lists the faults of all topics.
func checkNamesEachFault(t *trial) {
	right := t.topic(oona.TopicSpec{Partitions: 2})
	topic := t.topic(oona.TopicSpec{Partitions: 3, MaxMessageBytes: 5000})
	missing := unique("missing")
	err := t.Bus.Check(t.Context(), []oona.TopicSpec{
		{Name: missing},
		{Name: right, Partitions: 2},
		{Name: topic, Partitions: 4, PartitionsOf: right, AppendTime: true, Compacted: true, LeastMessageBytes: 6000},
	})
	got := t.faults(err)
	for _, want := range []bus.TopicFault{
		{Topic: missing, Kind: bus.FaultMissing},
		{Topic: topic, Kind: bus.FaultPartitions},
		{Topic: topic, Kind: bus.FaultUnequal},
		{Topic: topic, Kind: bus.FaultSetting}, // append times
		{Topic: topic, Kind: bus.FaultSetting}, // compaction
		{Topic: topic, Kind: bus.FaultSize},
	} {
		i := slices.Index(got, want)
		if i < 0 {
			t.Errorf("%+v is missing", want)
			continue
		}
		got = slices.Delete(got, i, i+1)
	}
	if len(got) > 0 {
		t.Errorf("also reported: %+v", got)
	}
}

// Apply corrects settings. It reports wrong numbers of partitions and does not change
// them.
func applyCorrects(t *trial) {
	topic := t.topic(oona.TopicSpec{Partitions: 3, MaxMessageBytes: 5000})
	spec := oona.TopicSpec{Name: topic, Partitions: 4, AppendTime: true, Compacted: true, LeastMessageBytes: 6000}
	another := oona.TopicSpec{Name: unique("another"), Partitions: 1}
	changes, err := t.Bus.Apply(t.Context(), []oona.TopicSpec{spec, another})
	if got := t.faults(err); !slices.Equal(got, []bus.TopicFault{{Topic: topic, Kind: bus.FaultPartitions}}) {
		t.Errorf("the faults are %+v", got)
	}
	if len(changes) != 4 || changes[3].Topic != another.Name {
		t.Errorf("the changes are %v", changes)
	}
	spec.Partitions = 3
	if err := t.Bus.Check(t.Context(), []oona.TopicSpec{spec, another}); err != nil {
		t.Error(err)
	}
}

func extents(t *trial) {
	t.need("Trim", t.Faults.Trim)
	one, other := t.partitions(3), t.partitions(1)
	t.fill(one, 0, 10)
	t.fill(one, 1, 10)
	t.Faults.Trim(t.T, one, 0, 4)
	t.Faults.Trim(t.T, one, 1, 10)
	all, err := t.Bus.Extents(t.Context(), one, other)
	if err != nil {
		t.Fatal(err)
	}
	if len(all) != 2 || !slices.Equal(all[one], []bus.Extent{{Start: 4, End: 10}, {Start: 10, End: 10}, {}}) || !slices.Equal(all[other], []bus.Extent{{}}) {
		t.Errorf("%v", all)
	}
}

// Every partition has a commit; without one its offset is NoOffset.
func commits(t *trial) {
	topic, group := t.partitions(2), unique("group")
	none := bus.Commit{Offset: bus.NoOffset}
	check := func(want ...bus.Commit) {
		t.Helper()
		if got, err := t.Bus.Commits(t.Context(), group, topic); err != nil || !slices.Equal(got, want) {
			t.Errorf("%+v, %v; want %+v", got, err, want)
		}
	}
	check(none, none)
	o := newOwner()
	t.subscribe(t.member(group, o), topic)
	o.await(t, "assigned", 2)
	made := bus.Commit{Offset: 7, Metadata: "m"}
	if err := o.commit(t.T, made); err != nil {
		t.Fatal(err)
	}
	all, err := t.Bus.Commits(t.Context(), group, topic)
	if err != nil || len(all) != 2 || !slices.Contains(all, made) || !slices.Contains(all, none) {
		t.Errorf("%+v, %v", all, err)
	}
}

func retention(t *trial) {
	t.need("Retain", t.Faults.Retain)
	topic := t.partitions(1)
	for _, want := range []bus.Retention{{Age: 24 * time.Hour}, {Bytes: 1 << 40}, {Age: time.Hour, Bytes: 1 << 20}, {}} {
		t.Faults.Retain(t.T, topic, want)
		t.eventually(fmt.Sprintf("the topic keeps %+v", want), func() bool {
			kept, err := t.Bus.Retention(t.Context(), topic)
			if err != nil {
				t.Fatal(err)
			}
			return kept == want
		})
	}
}

// readRange returns the payloads of a range.
func (t *trial) readRange(topic string, r bus.Range) (payloads []string) {
	t.Helper()
	err := t.Bus.Read(t.Context(), topic, r, func(msg *message.Message) error {
		at := t.position(msg)
		if at.Topic != topic || at.Partition != r.Partition || at.Offset < r.From || at.Offset >= r.End || at.Consumer != nil {
			t.Errorf("%s is at %+v", msg.Payload, at)
		}
		payloads = append(payloads, string(msg.Payload))
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return payloads
}

// Read returns the records of a range with their keys, headers and times.
func readRanges(t *trial) {
	t.need("Trim", t.Faults.Trim)
	topic := t.topic(oona.TopicSpec{Partitions: 2, AppendTime: true})
	t.fill(topic, 0, 1)
	t.fill(topic, 1, 300)
	last := bus.NewMessage([]byte("last"), bus.Target{Key: []byte("key"), Partition: 1, Directed: true})
	last.Metadata["header"] = "value"
	t.publish(t.publisher(bus.PublisherOptions{}), topic, last)
	t.Faults.Trim(t.T, topic, 1, 4)
	for _, tt := range []struct {
		r          bus.Range
		count      int
		first, end string
	}{
		{bus.Range{Partition: 1, End: math.MaxInt64}, 297, "4", "last"},
		{bus.Range{Partition: 1, From: 10, End: 13}, 3, "10", "12"},
		{bus.Range{Partition: 1, From: 2, End: 5}, 1, "4", "4"},
		{bus.Range{Partition: 1, From: 10, End: 10}, 0, "", ""},
		{bus.Range{Partition: 1, From: 0, End: 4}, 0, "", ""},
		{bus.Range{Partition: 1, From: 400, End: 500}, 0, "", ""},
		{bus.Range{Partition: 0, End: math.MaxInt64}, 1, "0", "0"},
	} {
		got := t.readRange(topic, tt.r)
		if len(got) != tt.count || tt.count > 0 && (got[0] != tt.first || got[tt.count-1] != tt.end) {
			t.Errorf("%+v has %q, want %d from %q to %q", tt.r, got, tt.count, tt.first, tt.end)
		}
	}
	msg, err := bus.RecordAt(t.Context(), t.Bus, topic, 1, 300)
	if err != nil || msg == nil {
		t.Fatalf("%v, %v", msg, err)
	}
	if at := t.position(msg); string(at.Key) != "key" || at.Appended == 0 || len(msg.Metadata) != 1 || msg.Metadata["header"] != "value" {
		t.Errorf("%+v with headers %v", at, msg.Metadata)
	}
}

// Read ends with the error of take.
func readStops(t *trial) {
	topic := t.partitions(1)
	t.fill(topic, 0, 5)
	enough, taken := errors.New("enough"), 0
	err := t.Bus.Read(t.Context(), topic, bus.Range{End: math.MaxInt64}, func(*message.Message) error {
		if taken++; taken == 3 {
			return enough
		}
		return nil
	})
	if !errors.Is(err, enough) || taken != 3 {
		t.Errorf("%v after %d records", err, taken)
	}
}

func recordAt(t *trial) {
	t.need("Trim", t.Faults.Trim)
	topic := t.partitions(1)
	t.fill(topic, 0, 10)
	t.Faults.Trim(t.T, topic, 0, 4)
	for offset, want := range map[int64]string{0: "", 3: "", 4: "4", 9: "9", 10: "", 1000: ""} {
		msg, err := bus.RecordAt(t.Context(), t.Bus, topic, 0, offset)
		if err != nil {
			t.Fatal(err)
		}
		if (msg == nil) != (want == "") || msg != nil && string(msg.Payload) != want {
			t.Errorf("at offset %d there is %v, want %q", offset, msg, want)
		}
	}
}

func lastRecord(t *trial) {
	topic := t.partitions(2)
	if msg, err := bus.LastRecord(t.Context(), t.Bus, topic, 1); msg != nil || err != nil {
		t.Errorf("an empty partition has %v, %v", msg, err)
	}
	t.fill(topic, 1, 100)
	msg, err := bus.LastRecord(t.Context(), t.Bus, topic, 1)
	if err != nil || msg == nil || string(msg.Payload) != "99" || t.position(msg).Offset != 99 {
		t.Errorf("%v, %v", msg, err)
	}
	if msg, err := bus.LastRecord(t.Context(), t.Bus, topic, 2); err == nil {
		t.Errorf("a partition that does not exist has %v", msg)
	}
}

// checkUnknown checks the errors for a topic that does not exist.
func (t *trial) checkUnknown(topic string) {
	t.Helper()
	_, err := t.Bus.Extents(t.Context(), topic)
	_, errOfCommits := t.Bus.Commits(t.Context(), unique("group"), topic)
	_, errOfRetention := t.Bus.Retention(t.Context(), topic)
	_, errOfPublisher := t.Bus.Publisher(bus.PublisherOptions{Pin: topic})
	for call, err := range map[string]error{
		"Extents":   err,
		"Commits":   errOfCommits,
		"Retention": errOfRetention,
		"Publisher": errOfPublisher,
		"Read":      t.Bus.Read(t.Context(), topic, bus.Range{End: math.MaxInt64}, func(*message.Message) error { return nil }),
	} {
		if !errors.Is(err, bus.ErrNoTopic) {
			t.Errorf("%s: %v, want bus.ErrNoTopic", call, err)
		}
	}
	if got := t.faults(t.Bus.Check(t.Context(), []oona.TopicSpec{{Name: topic}})); !slices.Equal(got, []bus.TopicFault{{Topic: topic, Kind: bus.FaultMissing}}) {
		t.Errorf("Check reports %+v", got)
	}
}

func unknownTopic(t *trial) { t.checkUnknown(unique("unknown")) }

// A deleted topic does not exist. After it was created again, it is empty.
func topicMadeAgain(t *trial) {
	t.need("DeleteTopic", t.Faults.DeleteTopic)
	spec := oona.TopicSpec{Name: t.partitions(2), Partitions: 3}
	t.fill(spec.Name, 1, 10)
	t.Faults.DeleteTopic(t.T, spec.Name)
	t.eventually("every server knows that it was deleted", func() bool {
		_, err := t.Bus.Extents(t.Context(), spec.Name)
		return errors.Is(err, bus.ErrNoTopic)
	})
	t.checkUnknown(spec.Name)
	if changes, err := t.Bus.Apply(t.Context(), []oona.TopicSpec{spec}); err != nil || len(changes) != 1 {
		t.Fatalf("%v, %v", changes, err)
	}
	if got := t.extents(spec.Name); !slices.Equal(got, make([]bus.Extent, 3)) {
		t.Errorf("it holds %v", got)
	}
	t.fill(spec.Name, 1, 2)
	if got := t.readRange(spec.Name, bus.Range{Partition: 1, End: math.MaxInt64}); !slices.Equal(got, []string{"0", "1"}) {
		t.Errorf("it holds %q", got)
	}
}

// A commit of records of a deleted topic is not made for a new topic with its name. The
// member reads the new topic from its beginning.
func commitOfATopicMadeAgain(t *trial) {
	t.need("DeleteTopic", t.Faults.DeleteTopic)
	spec := oona.TopicSpec{Name: t.partitions(1), Partitions: 1}
	t.fill(spec.Name, 0, 3)
	o := newOwner()
	messages := t.subscribe(t.member(unique("group"), o), spec.Name)
	t.take(messages, 3)
	old := o.await(t, "assigned", 1)[0]
	old.gate <- struct{}{} // the bus may notice the deletion, but the assignment cannot end without its commit
	t.Faults.DeleteTopic(t.T, spec.Name)
	t.createTopic(t.T, spec)
	t.publish(t.publisher(bus.PublisherOptions{}), spec.Name, numbered(100, 105, 0)...)
	old.due <- bus.Commit{Offset: 3}
	<-old.gate
	if err := o.outcome(t.T); !errors.Is(err, bus.ErrAnotherTopic) {
		t.Errorf("%v, want bus.ErrAnotherTopic", err)
	}
	o.await(t, "revoked", 1)
	c := o.await(t, "assigned", 1)[0]
	if c.Assignment.Committed.Offset != bus.NoOffset || c.from != 0 {
		t.Errorf("%+v", c.Assignment)
	}
	for due := 100; due < 105; {
		msg := t.next(messages)
		if at := t.position(msg); at.Consumer == c { // the first assignment may have read on
			if string(msg.Payload) != strconv.Itoa(due) {
				t.Fatalf("%s came, want %d", msg.Payload, due)
			}
			due++
		}
		msg.Ack()
	}
}

// After partitions were added to a pinned topic, nothing is published to it.
func pinnedPartitions(t *trial) {
	t.need("AddPartitions", t.Faults.AddPartitions)
	topic, other := t.partitions(2), t.partitions(2)
	p := t.publisher(bus.PublisherOptions{Pin: topic})
	t.publish(p, topic, keyed("x", "k"))
	if err := p.Pinned(); err != nil {
		t.Fatal(err)
	}
	t.Faults.AddPartitions(t.T, topic, 5)
	var err error
	t.eventually("the publisher notices", func() bool { err = p.Publish(t.Context(), topic, keyed("x", "k")); return err != nil })
	moved, ok := errors.AsType[*bus.PartitionsError](err)
	if !ok || !errors.Is(err, bus.ErrPartitions) || *moved != (bus.PartitionsError{Topic: topic, Had: 2, Has: 5}) {
		t.Errorf("%v", err)
	}
	for call, err := range map[string]error{"Pinned": p.Pinned(), "Publish": p.Publish(t.Context(), topic, directed("x", 0))} {
		if !errors.Is(err, bus.ErrPartitions) {
			t.Errorf("%s: %v", call, err)
		}
	}
	t.publish(p, other, keyed("x", "k"))
}
