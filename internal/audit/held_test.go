package audit

import (
	"context"
	"fmt"
	"testing"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/bus"
	"github.com/morphogenetic/oona/schemas/avro"
)

// counts returns the number of records and of events outside the range of times that a part holds.
func (p *part) counts() (records, outside int) {
	for _, of := range p.lives {
		records, outside = records+len(of.records), outside+len(of.outside)
	}
	return records, outside
}

// TestRepeatsAreNotHeld: however often a client sends its events again, what an audit holds is
// each event once in each partition. The repeats are counted, and the first record is shown.
func TestRepeatsAreNotHeld(t *testing.T) {
	topics, err := oona.NewTopics("audit")
	if err != nil {
		t.Fatal(err)
	}
	const (
		repeats = 50_000
		events  = 5
		early   = 2 // of the events, before the range of times
	)
	extents := make(map[string][]bus.Extent)
	for _, topic := range topics.Events() {
		extents[topic] = make([]bus.Extent, 3)
	}
	a := &audit{
		Options: Options{Topics: topics, Seed: oona.AnySeed, From: 1_790_000_000_000_000 + early, Memory: events*(recordOverhead+100) + outsideOverhead + early*outsideBytes},
		places:  newPlaces(extents), summary: Summary{Faults: make(map[Kind]int), writers: make(map[oona.RunID]writer)},
	}
	p := newPart(a, share{1, 0})
	right, wrong := bus.PartitionOf([]byte("r"), 3), (bus.PartitionOf([]byte("r"), 3)+1)%3
	offset := int64(0)
	read := func(sequence int64, partition int32) {
		t.Helper()
		e := oona.SeedEvent{Run: "r", Layer: "l", Seed: 7, Sequence: sequence, At: 1_790_000_000_000_000 + oona.Micros(sequence), From: oona.Training, To: oona.Training, Reason: "because", Blueprint: fmt.Sprint(sequence)}
		m := message.NewMessage("", avro.AppendEvent(nil, &e))
		at := bus.Position{Topic: topics.Event(&e), Partition: partition, Offset: offset, Appended: 1_790_000_001_000_000 + oona.Micros(offset)*1000, Key: oona.SeedKey(e.Run, e.Layer, e.Seed)}
		offset++
		m.SetContext(bus.WithPosition(context.Background(), at))
		if err := p.take(m); err != nil {
			t.Fatal(err)
		}
	}
	for range repeats / events {
		for sequence := range int64(events) {
			read(sequence, right)
		}
	}
	if records, outside := p.counts(); records != events-early || outside != early {
		t.Fatalf("after %d records of %d events, %d records and %d events outside the range are held", repeats, events, records, outside)
	}
	read(3, wrong)
	offset += 1_000_000
	for range 100 {
		read(3, wrong)
	}
	if records, _ := p.counts(); records != events-early+1 {
		t.Fatalf("with repeats in another partition, %d records are held", records)
	}
	var life *Life
	a.each = func(l *Life) error { life = l; return nil }
	if err := p.end(); err != nil {
		t.Fatal(err)
	}
	s := a.summary
	if s.Events != events-early || s.Repeats != (events-early)*(repeats/events-1)+101 || s.Faults[Place] != 1 || len(s.Faults) != 1 || s.Fewer != 0 {
		t.Errorf("%+v", s)
	}
	for i, e := range life.Events {
		want := repeats/events - 1
		if e.Sequence == 3 {
			want += 101
		}
		if e.Repeats != want || e.Record.Offset != int64(early+i) || e.Record.Partition != right || (len(e.Faults) > 0) != (e.Sequence == 3) {
			t.Errorf("sequence %d: %+v", e.Sequence, e)
		}
	}
}

// TestEqualHashes: two records with one hash that are no repeats are both held.
func TestEqualHashes(t *testing.T) {
	a := stored{payload: []byte("a"), at: bus.Position{Topic: "t", Offset: 3}, records: 1}
	for name, b := range map[string]stored{
		"another event":     {payload: []byte("b"), at: bus.Position{Topic: "t"}, records: 1},
		"another topic":     {payload: []byte("a"), at: bus.Position{Topic: "u"}, records: 1},
		"another partition": {payload: []byte("a"), at: bus.Position{Topic: "t", Partition: 1}, records: 1},
		"a wrong key":       {payload: []byte("a"), at: bus.Position{Topic: "t"}, records: 1, fault: "its key"},
	} {
		if a.merge(&b) || a.records != 1 {
			t.Errorf("%s counts as a repeat", name)
		}
	}
	b := stored{payload: []byte("a"), at: bus.Position{Topic: "t", Offset: 4}, last: placed{4, 1}, records: 1}
	if !a.merge(&b) || a.records != 2 || a.at.Offset != 3 || a.last.offset != 4 {
		t.Errorf("after a repeat: %+v", a)
	}
}
