package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/bus"
)

// otherCount is the remedy for a topic of events with another number of partitions than the
// topic of frames. The general one would lose its events.
const otherCount = "do not delete it, as it has the events of all runs. If it has fewer, add partitions (kafka-topics.sh --alter --partitions); if it has more, leave it. The order of a seed's events is in their sequence numbers, wherever they are"

// keepEvents gives its remedy to the fault of a topic of events that has another number of
// partitions than the topic of frames. If both have another number than was asked for, the
// general remedy is right.
func keepEvents(err error) error {
	wrong, ok := errors.AsType[*bus.TopicsError](err)
	if !ok {
		return err
	}
	both := slices.ContainsFunc(wrong.Faults, func(f bus.TopicFault) bool {
		return f.Kind == bus.FaultPartitions && f.Topic == oona.Topics{}.Around(f.Topic).SeedMetrics
	})
	for i := range wrong.Faults {
		f := &wrong.Faults[i]
		differs := f.Kind == bus.FaultUnequal || f.Kind == bus.FaultPartitions && !both
		if differs && (oona.Topics{}).Around(f.Topic).Schema(f.Topic) == oona.EventSchema {
			f.Remedy = otherCount
		}
	}
	return err
}

// eventNotes returns what operators should know of the topics of events, and the error of
// Check without that: everything else works without these topics, and with any number of
// partitions. An operator may limit how long they keep events, but an audit then lacks those
// that are deleted.
func eventNotes(ctx context.Context, b bus.Admin, topics oona.Topics, checked error) (notes []string, rest error) {
	wrong, ok := errors.AsType[*bus.TopicsError](keepEvents(checked))
	if checked != nil && !ok {
		return nil, checked
	}
	var missing []string
	var others []bus.TopicFault
	if ok {
		for _, f := range wrong.Faults {
			switch {
			case topics.Schema(f.Topic) != oona.EventSchema:
				others = append(others, f)
			case f.Kind == bus.FaultMissing:
				missing = append(missing, f.Topic)
			case f.Kind == bus.FaultUnequal:
				notes = append(notes, "topic "+f.String())
			default:
				others = append(others, f)
			}
		}
	}
	if len(others) > 0 {
		rest = &bus.TopicsError{Faults: others}
	}
	if len(missing) > 0 {
		notes = append(notes, fmt.Sprintf("topics of events do not exist, so ingest refuses the events that belong there (503), and oona audit does not work; run `oona topics apply`, if trainers send events: %s", strings.Join(missing, ", ")))
	}
	for _, topic := range topics.Events() {
		if slices.Contains(missing, topic) {
			continue
		}
		kept, err := b.Retention(ctx, topic)
		if err != nil {
			return notes, errors.Join(rest, err)
		}
		if kept > 0 {
			notes = append(notes, fmt.Sprintf("topic %s keeps events for %s only, and oona audit takes what is deleted for gaps; to keep all of them, set its retention.ms to -1 (kafka-configs.sh --alter --entity-type topics --entity-name %s --add-config retention.ms=-1)", topic, kept, topic))
		}
	}
	return notes, rest
}
