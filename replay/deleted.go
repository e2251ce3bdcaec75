package replay

import (
	"context"
	"errors"
	"fmt"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/morphogenetic/oona/bus"
)

// ErrDeleted means that records of a range were deleted while they were read.
var ErrDeleted = errors.New("the log has deleted records of the range while it was read")

// deleted returns an error that wraps ErrDeleted if the log has deleted records between the offsets
// next and to since the range was determined. A missing offset alone proves nothing, because a
// transaction marker has one, too. So deleted looks at where the log begins now.
func deleted(ctx context.Context, log Log, topic string, partition int32, next, to int64) error {
	if _, kept := log.(Kept); kept || next >= to {
		return nil
	}
	extents, err := log.Extents(ctx, topic)
	if err != nil {
		return err
	}
	if start := extents[topic][partition].Start; start > next {
		return fmt.Errorf("%w: it begins at offset %d now, and offset %d was not read yet; use a later --from, and another directory if the command writes to one", ErrDeleted, start, next)
	}
	return nil
}

// readWhole reads a range as Log.Read does. The error wraps ErrDeleted if the log has deleted
// a part of it.
func readWhole(ctx context.Context, log Log, topic string, r bus.Range, take func(*message.Message) error) error {
	next := r.From
	err := log.Read(ctx, topic, r, func(msg *message.Message) error {
		at, err := bus.PositionOf(msg)
		if err != nil {
			return err
		}
		if err := deleted(ctx, log, topic, r.Partition, next, at.Offset); err != nil {
			return err
		}
		next = at.Offset + 1
		return take(msg)
	})
	if err != nil {
		return err
	}
	return deleted(ctx, log, topic, r.Partition, next, r.End)
}
