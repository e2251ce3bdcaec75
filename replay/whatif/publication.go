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
// would drop the rollups that are published after them.
var ErrOtherRollups = errors.New("the topic has other rollups; publish to the topics of another prefix")

// Publication publishes the rollups of a replay to the rollup topics of a prefix. Rollups of
// partition p go to partition p. Rollups that the topics already have from the same replay are not
// published again. So a publication can be interrupted or run twice, and the topics are the same in
// the end.
type Publication struct {
	Topics    oona.Topics // must not be the topics of the log
	Publisher bus.Publisher
	// DryRun only counts the rollups that would be published.
	DryRun bool

	Published int64 // number of rollups that were published
	Present   int64 // number of rollups that the topics already had

	ends    [2][]end // by group and partition
	waiting map[string][]*message.Message
	bytes   int
}

// end is the last rollup of a partition of a topic.
type end struct {
	found   bool
	trigger oona.Trigger
	payload []byte
	reached bool // whether the replay has made it, too
	before  bool // whether the replay has made a rollup that comes before it
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
				return fmt.Errorf("%s/%d: %w: the last record is not a rollup: %w", topic, n, ErrOtherRollups, err)
			}
			p.ends[group][n] = end{found: true, trigger: r.Trigger, payload: bytes.Clone(last.Payload)}
		}
	}
	return nil
}

// Empty is used instead of Begin for a dry run with topics that have no rollups.
func (p *Publication) Empty(partitions int) {
	for g := range p.ends {
		p.ends[g] = make([]end, partitions)
	}
}

// Rollup adds a rollup to the next batch, and publishes the batch if it is large enough. The error
// wraps ErrOtherRollups if the topic has other rollups.
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

// batchBytes is the size at which a batch is published.
const batchBytes = 4 << 20

func (p *Publication) others(topic string, partition int32, e *end) error {
	return fmt.Errorf("%s/%d: %w (the last one has trigger %d/%d/%d)", topic, partition, ErrOtherRollups, e.trigger.Incarnation, e.trigger.Offset, e.trigger.Index)
}

// Flush publishes the rollups that wait.
func (p *Publication) Flush(ctx context.Context) error {
	for topic, messages := range p.waiting {
		if len(messages) == 0 {
			continue
		}
		if err := p.Publisher.Publish(ctx, topic, messages...); err != nil {
			return fmt.Errorf("publish to %s (run the same command again to continue): %w", topic, err)
		}
		clear(messages)
		p.waiting[topic] = messages[:0]
	}
	p.bytes = 0
	return nil
}

// End publishes the rollups that wait. The error wraps ErrOtherRollups if the replay ends without
// having made the last rollup of a topic, although it has made an earlier one.
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
