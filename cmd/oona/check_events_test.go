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

// TestEventNotes: topics of events that are missing, or forget events by age or size, are notes.
// Faults of other topics, and settings that lose events, remain.
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
			for _, topic := range topics.AllEvents() {
				if strings.Contains(says, topic) {
					about[topic]++
				}
			}
		}
		return about, rest
	}
	if about, rest := look(specs); len(about) != len(topics.AllEvents()) || about[topics.Culled] != 1 || len(faultsOf(rest)) != len(topics.Specs(3)) {
		t.Errorf("without topics: notes of %v, and %v", about, rest)
	}
	if _, err := b.Apply(t.Context(), specs); err != nil {
		t.Fatal(err)
	}
	if about, rest := look(specs); len(about) > 0 || rest != nil {
		t.Errorf("with topics: notes of %v, and %v", about, rest)
	}
	if err := errors.Join(b.AddPartitions(topics.Culled, 5), b.Retain(topics.Grafted, bus.Retention{Age: 7 * 24 * time.Hour}), b.Retain(topics.Fossilized, bus.Retention{Bytes: 1 << 30}), b.Retain(topics.RunEnded, bus.Retention{Age: time.Hour})); err != nil {
		t.Fatal(err)
	}
	loose := append(topics.Specs(0), topics.EventSpecs(0)...)
	for _, specs := range [][]oona.TopicSpec{specs, loose} { // another number of partitions is right, also if one is asked for
		if about, rest := look(specs); len(about) != 3 || about[topics.Fossilized] != 1 || about[topics.Grafted] != 1 || about[topics.RunEnded] != 1 || rest != nil {
			t.Errorf("with three that forget events: notes of %v, and %v", about, rest)
		}
	}
	if _, err := b.Apply(t.Context(), topics.EventSpecs(3)); err != nil {
		t.Errorf("applied: %v", err)
	}
	both := forgets(topics.Culled, oona.EventSchema, bus.Retention{Age: time.Hour, Bytes: 3 << 20})
	for _, want := range []string{"1h0m0s", "3MiB", "retention.ms=-1,retention.bytes=-1"} {
		if !strings.Contains(both, want) {
			t.Errorf("%q lacks %q", both, want)
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
