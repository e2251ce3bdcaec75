package replay

import (
	"context"
	"errors"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/bus"
)

// errFound ends a read.
var errFound = errors.New("found")

// OffsetAt returns the offset of the first record of a partition that was appended at a
// time or after it. An archive knows the times of its files. On a bus, OffsetAt uses a binary
// search, because append times ascend, except for small steps back when the leader changes.
func OffsetAt(ctx context.Context, log Log, topic string, partition int32, held bus.Extent, at oona.Micros) (int64, error) {
	if d, ok := log.(Kept); ok {
		offset, err := d.OffsetAt(ctx, topic, partition, at)
		return max(offset, held.Start), err
	}
	low, high := held.Start, held.End
	for low < high {
		middle := low + (high-low)/2
		offset, appended, err := firstFrom(ctx, log, topic, bus.Range{Partition: partition, From: middle, End: high})
		switch {
		case err != nil:
			return 0, err
		case offset < 0 || appended >= at:
			high = middle
		default:
			low = offset + 1
		}
	}
	return low, nil
}

// firstFrom returns the offset and the time of the first record of a range, or -1.
func firstFrom(ctx context.Context, log Log, topic string, r bus.Range) (offset int64, appended oona.Micros, err error) {
	offset = -1
	err = log.Read(ctx, topic, r, func(msg *message.Message) error {
		at, err := bus.PositionOf(msg)
		if err != nil {
			return err
		}
		offset, appended = at.Offset, at.Appended
		return errFound
	})
	if errors.Is(err, errFound) {
		err = nil
	}
	return offset, appended, err
}
