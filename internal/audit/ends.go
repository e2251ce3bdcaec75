package audit

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/bus"
	"github.com/morphogenetic/oona/schemas/avro"
)

// RunEnd is the end of a run: of several ends, the one with the latest time.
type RunEnd struct {
	oona.RunEnd
	Record bus.Position // position of its first record
}

// mostEnds is the maximum length of Summary.Ends. Of more runs, those that ended first are left out.
const mostEnds = 10_000

// ends reads the topic of the ends of runs. An installation may lack it, as nothing else in an audit
// depends on it.
func (a *audit) ends(ctx context.Context) error {
	topic, found, err := a.Topics.RunEnded, make(map[oona.RunID]RunEnd), a.noEnds
	for partition, held := range a.endExtents {
		if err == nil {
			err = a.log.Read(ctx, topic, bus.Range{Partition: int32(partition), From: held.Start, End: held.End}, func(msg *message.Message) error { return a.takeEnd(msg, found) })
		}
	}
	switch {
	case errors.Is(err, bus.ErrNoTopic):
		a.summary.NoEnds = &Unread{topic, "missing", err}
	case errors.Is(err, bus.ErrDenied):
		a.summary.NoEnds = &Unread{topic, "denied", err}
	case err != nil:
		return err
	}
	a.summary.Ends = a.latest(found)
	return nil
}

// latest returns the latest mostEnds of the ends in the order of their times, and deletes the others.
func (a *audit) latest(of map[oona.RunID]RunEnd) []RunEnd {
	all := slices.SortedFunc(maps.Values(of), func(x, y RunEnd) int { return cmp.Or(cmp.Compare(x.At, y.At), cmp.Compare(x.Run, y.Run)) })
	more := max(0, len(all)-mostEnds)
	for _, e := range all[:more] {
		a.summary.MoreEnds = true
		delete(of, e.Run)
	}
	return all[more:]
}

func (a *audit) takeEnd(msg *message.Message, found map[oona.RunID]RunEnd) error {
	at, err := bus.PositionOf(msg)
	if err != nil {
		return err
	}
	var e oona.RunEnd
	err = avro.Alone(avro.DecodeRunEnd(msg.Payload, &e))
	if err == nil {
		err = e.Validate()
	}
	if err != nil {
		a.summary.other(Fault{Unreadable, fmt.Sprintf("offset %d of %s/%d is not the end of a run: %v", at.Offset, at.Topic, at.Partition, err)})
		return nil
	}
	known, again := found[e.Run]
	if again && e.At <= known.At || len(a.runs) > 0 && !a.runs[e.Run] || a.From > 0 && e.At < a.From || a.Until > 0 && e.At >= a.Until {
		return nil
	}
	found[e.Run] = RunEnd{e, at}
	if len(found) > 2*mostEnds {
		a.latest(found)
	}
	return nil
}
