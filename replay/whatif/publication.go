package whatif

import (
	"bytes"
	"context"
	"errors"
	"fmt"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/bus"
	"github.com/morphogenetic/oona/schemas/avro"
)

// ErrOtherRollups means that a topic has rollups that this replay does not make. Readers
// would drop what is published after them.
var ErrOtherRollups = errors.New("the topic has other rollups; publish to the topics of another prefix")

// Publication publishes the rollups of a replay to the rollup topics of a prefix: those of
// partition p to partition p. What the topics have already of the same replay is not
// published again, so that a publication that was interrupted, or is run twice, gives the
// same topics.
type Publication struct {
	Topics    oona.Topics // not those of the log
	Publisher bus.Publisher
	// DryRun publishes nothing, and counts what would be.
	DryRun bool

	Published int64 // rollups
	Present   int64 // rollups that the topics had already

	ends    [2][]end // by group and partition
	waiting map[string][]*message.Message
	bytes   int
}

// end is the last rollup of a partition of a topic.
type end struct {
	found   bool
	trigger oona.Trigger
	payload []byte
	reached bool // the replay has made it, too
	before  bool // the replay has made one that comes before it
}

// Begin reads the last rollup of each partition. The error wraps bus.ErrNoTopic if the
// topics do not exist, and is a *bus.PartitionsError if they do not have as many partitions
// as the log.
func (p *Publication) Begin(ctx context.Context, at bus.Admin, partitions int) error {
	p.waiting = make(map[string][]*message.Message)
	for _, group := range []oona.Group{oona.Health, oona.Performance} {
		topic := p.Topics.Rollup(group)
		extents, err := at.Extents(ctx, topic)
		if err != nil {
			return err
		}
		if has := len(extents[topic]); has != partitions {
			return &bus.PartitionsError{Topic: topic, Had: int32(partitions), Has: int32(has)}
		}
		p.ends[group] = make([]end, partitions)
		for n := range extents[topic] {
			last, err := bus.LastRecord(ctx, at, topic, int32(n))
			if err != nil {
				return err
			}
			if last == nil {
				continue
			}
			var r oona.Rollup
			if _, err := avro.DecodeRollup(last.Payload, &r); err != nil {
				return fmt.Errorf("%s/%d: %w: the last record is none: %w", topic, n, ErrOtherRollups, err)
			}
			p.ends[group][n] = end{found: true, trigger: r.Trigger, payload: bytes.Clone(last.Payload)}
		}
	}
	return nil
}

// Empty begins with topics that have no rollups, for a dry run.
func (p *Publication) Empty(partitions int) {
	for g := range p.ends {
		p.ends[g] = make([]end, partitions)
	}
}

// Rollup publishes a rollup, soon. The error wraps ErrOtherRollups if the topic has others.
func (p *Publication) Rollup(ctx context.Context, partition int32, r *oona.Rollup) error {
	topic, e := p.Topics.Rollup(r.Group), &p.ends[r.Group][partition]
	payload := avro.AppendRollup(nil, r)
	switch {
	case !e.found:
	case r.Trigger == e.trigger:
		if !bytes.Equal(payload, e.payload) {
			return p.others(topic, partition, e)
		}
		e.reached = true
		p.Present++
		return nil
	case !r.Trigger.After(e.trigger):
		e.before = true
		p.Present++
		return nil
	case e.before && !e.reached:
		return p.others(topic, partition, e)
	}
	p.Published++
	if p.DryRun {
		return nil
	}
	p.waiting[topic] = append(p.waiting[topic], bus.NewMessage(payload, bus.Target{Key: oona.Key(r.Run, r.Layer), Partition: partition, Directed: true}))
	if p.bytes += len(payload); p.bytes < batchBytes {
		return nil
	}
	return p.Flush(ctx)
}

// batchBytes is how much is published at a time.
const batchBytes = 4 << 20

func (p *Publication) others(topic string, partition int32, e *end) error {
	return fmt.Errorf("%s/%d: %w (the last one has trigger %d/%d/%d)", topic, partition, ErrOtherRollups, e.trigger.Incarnation, e.trigger.Offset, e.trigger.Index)
}

// Flush publishes what waits.
func (p *Publication) Flush(ctx context.Context) error {
	for topic, messages := range p.waiting {
		if len(messages) == 0 {
			continue
		}
		if err := p.Publisher.Publish(ctx, topic, messages...); err != nil {
			return fmt.Errorf("publish to %s; the same command continues: %w", topic, err)
		}
		clear(messages)
		p.waiting[topic] = messages[:0]
	}
	p.bytes = 0
	return nil
}

// End publishes what waits. The error wraps ErrOtherRollups if the replay ends before what
// a topic has, without having made that.
func (p *Publication) End(ctx context.Context) error {
	for _, group := range []oona.Group{oona.Health, oona.Performance} {
		for n := range p.ends[group] {
			if e := &p.ends[group][n]; e.before && !e.reached {
				return p.others(p.Topics.Rollup(group), int32(n), e)
			}
		}
	}
	return p.Flush(ctx)
}
