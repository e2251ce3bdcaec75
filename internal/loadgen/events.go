package loadgen

import (
	"cmp"
	"context"
	"slices"
	"time"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/schemas/avro"
)

// storyteller sends the events of a recording, in the order of their times, one request at
// a time.
type storyteller struct {
	sender
	events []*oona.SeedEvent
	first  oona.Micros // time of the recording's start
	clock  clock
}

// end says that the run has ended.
func (s *storyteller) end(ctx context.Context) error {
	e := oona.RunEnd{Run: s.cfg.Run, At: oona.MicrosOf(time.Now()), Outcome: oona.RunCompleted}
	err := s.send(ctx, &batch{path: eventsPath, body: avro.AppendRunEnd(nil, &e)})
	if err == nil {
		s.counts.ended.Add(1)
	}
	return err
}

const eventsPath = "/v1/events"

func (s *storyteller) play(ctx context.Context) error {
	rest := slices.Clone(s.events) // those of the recording stay as they are
	slices.SortStableFunc(rest, func(a, b *oona.SeedEvent) int { return cmp.Compare(a.At, b.At) })
	for len(rest) > 0 {
		if !sleepUntil(ctx, s.clock.due(rest[0].At-s.first)) {
			return context.Cause(ctx)
		}
		now := time.Now()
		b := batch{path: eventsPath}
		for len(rest) > 0 && b.events < s.cfg.BatchFrames && len(b.body) < s.cfg.BatchBytes {
			after := rest[0].At - s.first
			if s.clock.due(after).After(now) {
				break
			}
			e := *rest[0]
			e.Run, e.At = s.cfg.Run, s.clock.observed(after, now)
			b.body = avro.AppendEvent(b.body, &e)
			b.events++
			rest = rest[1:]
		}
		if err := s.send(ctx, &b); err != nil {
			return err
		}
	}
	return nil
}
