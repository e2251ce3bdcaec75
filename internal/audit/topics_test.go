package audit_test

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/bus"
	"github.com/morphogenetic/oona/internal/audit"
)

// closing is a log that says which records a topic has, but does not show them after some reads.
type closing struct {
	audit.Log
	err   error
	topic string // empty for all topics
	open  int    // number of reads of the topic that still succeed
}

func (c *closing) Read(ctx context.Context, topic string, r bus.Range, take func(*message.Message) error) error {
	if c.topic == "" || topic == c.topic {
		if c.open == 0 {
			return fmt.Errorf("read %s: %w", topic, c.err)
		}
		c.open--
	}
	return c.Log.Read(ctx, topic, r, take)
}

// TestTopicsWhoseRecordsCannotBeRead: a user who may describe a topic, but not read it, gets an audit of
// the other topics, and so does one whose permission ends, or whose topic is deleted, during the audit.
func TestTopicsWhoseRecordsCannotBeRead(t *testing.T) {
	r := newTrail(t)
	const seeds = 20
	for seed := range oona.SeedID(seeds) {
		all := way()
		for i := range all {
			all[i].Seed = seed
		}
		r.write(all...)
	}
	run := func(log audit.Log, memory int) (s *audit.Summary, seen int, err error) {
		s, err = audit.Run(t.Context(), log, audit.Options{Topics: r.topics, Seed: oona.AnySeed, Memory: memory}, func(l *audit.Life) error {
			for _, e := range l.Events {
				if e.Record.Topic == r.topics.Germinated {
					seen++
				}
			}
			return nil
		})
		return s, seen, err
	}
	for name, c := range map[string]struct {
		err    error
		open   int // each pass reads a topic once for each of its partitions
		memory int
		reason string
		seen   bool // whether events of the topic are seen all the same
	}{
		"denied":                   {bus.ErrDenied, 0, 0, "denied", false},
		"deleted":                  {bus.ErrNoTopic, 0, 0, "missing", false},
		"denied in the first pass": {bus.ErrDenied, partitions - 1, 0, "denied", true},
		"denied later":             {bus.ErrDenied, partitions, 20_000, "denied", true},
	} {
		s, seen, err := run(&closing{Log: r, topic: r.topics.Germinated, err: c.err, open: c.open}, c.memory)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if len(s.Unread) != 1 || s.Unread[0].Topic != r.topics.Germinated || s.Unread[0].Reason != c.reason || !errors.Is(s.Unread[0].Err, c.err) {
			t.Errorf("%s: unread are %+v", name, s.Unread)
		}
		if s.Seeds != seeds || s.Events < 6*seeds || (seen > 0) != c.seen || seen == seeds && c.memory > 0 {
			t.Errorf("%s: %d events of the topic, %+v", name, seen, s)
		}
	}
	if s, _, err := run(r, 20_000); err != nil || len(s.Unread) != 0 || s.Events != 7*seeds {
		t.Errorf("with all topics: %+v, %v", s, err)
	}
	for _, log := range []*closing{{Log: r, err: bus.ErrUnreachable, topic: r.topics.Germinated}, {Log: r, err: bus.ErrDenied}} {
		if _, _, err := run(log, 0); !errors.Is(err, log.err) {
			t.Errorf("%v of %q: %v", log.err, log.topic, err)
		}
	}
}
