package main

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/bus"
	"github.com/morphogenetic/oona/bus/memory"
)

// TestEventNotes: topics of events that are missing, have another number of partitions or
// forget events are notes. Faults of other topics, and settings that lose events, remain.
func TestEventNotes(t *testing.T) {
	topics, err := oona.NewTopics("noted")
	if err != nil {
		t.Fatal(err)
	}
	b := memory.New()
	specs := append(topics.Specs(3), topics.EventSpecs(3)...)
	look := func(specs []oona.TopicSpec) (about map[string]int, rest error) {
		t.Helper()
		notes, rest := eventNotes(t.Context(), b, topics, b.Check(t.Context(), specs))
		about = make(map[string]int)
		for _, says := range notes {
			for _, topic := range topics.Events() {
				if strings.Contains(says, topic) {
					about[topic]++
				}
			}
		}
		return about, rest
	}
	if about, rest := look(specs); len(about) != len(topics.Events()) || about[topics.Culled] != 1 || len(faultsOf(rest)) != len(topics.Specs(3)) {
		t.Errorf("without topics: notes of %v, and %v", about, rest)
	}
	if _, err := b.Apply(t.Context(), specs); err != nil {
		t.Fatal(err)
	}
	if about, rest := look(specs); len(about) > 0 || rest != nil {
		t.Errorf("with topics: notes of %v, and %v", about, rest)
	}
	if err := errors.Join(b.AddPartitions(topics.Culled, 5), b.Retain(topics.Grafted, 7*24*time.Hour)); err != nil {
		t.Fatal(err)
	}
	loose := append(topics.Specs(0), topics.EventSpecs(0)...)
	if about, rest := look(loose); len(about) != 2 || about[topics.Culled] != 1 || about[topics.Grafted] != 1 || rest != nil {
		t.Errorf("with two that differ: notes of %v, and %v", about, rest)
	}
	for _, f := range faultsOf(keepEvents(b.Check(t.Context(), loose))) {
		if f.Remedy != otherCount {
			t.Errorf("%s: the remedy is %q", f, f.Remedy)
		}
	}
	if _, err := b.Apply(t.Context(), []oona.TopicSpec{{Name: topics.Culled, Partitions: 3}}); faultsOf(keepEvents(err))[0].Remedy != otherCount {
		t.Errorf("applied: %v", err)
	}
	asked := append(topics.Specs(4), topics.EventSpecs(4)...)
	for i := range asked {
		asked[i].PartitionsOf = ""
	}
	for _, f := range faultsOf(keepEvents(b.Check(t.Context(), asked))) {
		if f.Remedy != "" {
			t.Errorf("another number was asked for: the remedy of %s is %q", f, f.Remedy)
		}
	}
	for i := range loose {
		loose[i].Compacted = loose[i].Name == topics.Fossilized // it is not
	}
	if _, rest := look(loose); len(faultsOf(rest)) != 1 || faultsOf(rest)[0].Topic != topics.Fossilized {
		t.Errorf("with a wrong setting: %v", rest)
	}
	if notes, rest := eventNotes(t.Context(), b, topics, bus.ErrUnreachable); len(notes) > 0 || !errors.Is(rest, bus.ErrUnreachable) {
		t.Errorf("without a bus: %q, %v", notes, rest)
	}
}

func faultsOf(err error) []bus.TopicFault {
	if wrong, ok := errors.AsType[*bus.TopicsError](err); ok {
		return wrong.Faults
	}
	return nil
}
