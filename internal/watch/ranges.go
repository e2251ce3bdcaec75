package watch

import (
	"context"
	"errors"
	"io"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/morphogenetic/oona/bus"
)

// Ranges writes the records in ranges of the topic of the address, one range after the other, and
// returns.
func Ranges(ctx context.Context, log bus.Admin, ranges []bus.Range, o Options, out io.Writer) error {
	f := follower{Options: o, decoder: newDecoder(o.Topics, o.Address), out: out}
	for _, r := range ranges {
		err := log.Read(ctx, o.Address.Topic, r, func(msg *message.Message) error { return f.show(ctx, msg) })
		if errors.Is(err, errEnough) || ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return err
		}
	}
	return nil
}
