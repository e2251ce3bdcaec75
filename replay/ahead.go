package replay

import (
	"context"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/morphogenetic/oona/bus"
)

// Limits of what ReadAhead holds: the batch that take works on, those that wait, and the one
// that is read.
const (
	aheadBatches = 2
	aheadRecords = 64
	aheadBytes   = 1 << 20
)

// ReadAhead reads a range of a log, as Log.Read does, and goes on reading in another goroutine
// while take works. The error wraps ErrDeleted if the log has deleted a part of the range. take is called from the goroutine of the caller. When ReadAhead returns,
// nothing reads any more.
func ReadAhead(ctx context.Context, log Log, topic string, r bus.Range, take func(*message.Message) error) error {
	ctx, cancel := context.WithCancel(ctx)
	a := &ahead{batches: make(chan []*message.Message, aheadBatches), ended: make(chan error, 1)}
	go func() {
		err := readWhole(ctx, log, topic, r, func(msg *message.Message) error { return a.add(ctx, msg) })
		rest := a.send(ctx) // what was read before an error is taken, too
		if err == nil {
			err = rest
		}
		close(a.batches)
		a.ended <- err
	}()
	var failed error
	for batch := range a.batches { // to its end, as the reader may wait for room
		for _, msg := range batch {
			if failed != nil {
				break
			}
			if failed = take(msg); failed != nil {
				cancel()
			}
		}
	}
	err := <-a.ended
	cancel()
	if failed != nil {
		return failed
	}
	return err
}

// ahead is what was read and not taken yet.
type ahead struct {
	batches chan []*message.Message
	ended   chan error
	batch   []*message.Message
	bytes   int
}

// add adds a record to the batch.
func (a *ahead) add(ctx context.Context, msg *message.Message) error {
	a.batch = append(a.batch, msg)
	a.bytes += len(msg.Payload)
	if len(a.batch) < aheadRecords && a.bytes < aheadBytes {
		return nil
	}
	return a.send(ctx)
}

// send hands the batch over.
func (a *ahead) send(ctx context.Context) error {
	select {
	case a.batches <- a.batch:
	case <-ctx.Done():
		return ctx.Err()
	}
	a.batch, a.bytes = make([]*message.Message, 0, aheadRecords), 0
	return nil
}
