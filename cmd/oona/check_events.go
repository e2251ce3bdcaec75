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

// eventNotes returns what operators should know of the topics of events, and the error of
// Check without that: everything else works without these topics. An operator may limit what
// they keep, but an audit then lacks the events that are deleted.
func eventNotes(ctx context.Context, b bus.Admin, topics oona.Topics, checked error) (notes []string, rest error) {
	wrong, ok := errors.AsType[*bus.TopicsError](checked)
	if checked != nil && !ok {
		return nil, checked
	}
	var missing []string // topics of events of seeds
	noEnds := false
	var others []bus.TopicFault
	if ok {
		for _, f := range wrong.Faults {
			switch schema := topics.Schema(f.Topic); {
			case f.Kind == bus.FaultMissing && schema == oona.EventSchema:
				missing = append(missing, f.Topic)
			case f.Kind == bus.FaultMissing && schema == oona.RunEndSchema:
				noEnds = true
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
	if noEnds {
		notes = append(notes, fmt.Sprintf("topic %s does not exist, so ingest refuses the ends of runs (503), and a run that has ended looks like one whose trainer has died; run `oona topics apply`, if trainers say when a run ends", topics.RunEnded))
	}
	for _, topic := range topics.AllEvents() {
		if slices.Contains(missing, topic) || noEnds && topic == topics.RunEnded {
			continue
		}
		kept, err := b.Retention(ctx, topic)
		if err != nil {
			return notes, errors.Join(rest, err)
		}
		if says := forgets(topic, topics.Schema(topic), kept); says != "" {
			notes = append(notes, says)
		}
	}
	return notes, rest
}

// forgets says that a topic deletes events, or returns "".
func forgets(topic string, schema oona.Schema, kept bus.Retention) string {
	var limits, settings []string
	if kept.Age > 0 {
		limits, settings = append(limits, "for "+kept.Age.String()), append(settings, "retention.ms=-1")
	}
	if kept.Bytes > 0 {
		limits, settings = append(limits, fmt.Sprintf("up to %s of a partition", byteSize(kept.Bytes))), append(settings, "retention.bytes=-1")
	}
	if len(limits) == 0 {
		return ""
	}
	what, so := "events", ", and oona audit takes what is deleted for gaps"
	if schema == oona.RunEndSchema {
		what, so = "ends of runs", ""
	}
	return fmt.Sprintf("topic %s keeps %s %s only%s; to keep all of them, run kafka-configs.sh --alter --entity-type topics --entity-name %s --add-config %s",
		topic, what, strings.Join(limits, " and "), so, topic, strings.Join(settings, ","))
}
