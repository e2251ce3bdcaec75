package replay

import (
	"context"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/morphogenetic/oona/bus"
)

// Limits of the memory of ReadAhead. It holds the batch that take works on, the batches that wait, and
// the batch that is being read.
const (
	aheadBatches = 2
	aheadRecords = 64
	aheadBytes   = 1 << 20
)

// ReadAhead is like Log.Read, but it continues to read in another goroutine while take works. take is
// called from the goroutine of the caller. The error wraps ErrDeleted if the log has deleted a part of
// the range. When ReadAhead returns, the other goroutine has ended.
func ReadAhead(ctx context.Context, log Log, topic string, r bus.Range, take func(*message.Message) error) error {
	ctx, cancel := context.WithCancel(ctx)
	a := &ahead{batches: make(chan []*message.Message, aheadBatches), ended: make(chan error, 1)}
	go func() {
		err := readWhole(ctx, log, topic, r, func(msg *message.Message) error { return a.add(ctx, msg) })
		rest := a.send(ctx) // take also gets the records that were read before an error
		if err == nil {
			err = rest
		}
		close(a.batches)
		a.ended <- err
	}()
	var failed error
	for batch := range a.batches { // all batches, because the other goroutine may wait until one is received
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

// ahead has the records that were read and that take has not got yet.
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

// send passes the batch to the goroutine of the caller.
func (a *ahead) send(ctx context.Context) error {
	select {
	case a.batches <- a.batch:
	case <-ctx.Done():
		return ctx.Err()
	}
	a.batch, a.bytes = make([]*message.Message, 0, aheadRecords), 0
	return nil
}
