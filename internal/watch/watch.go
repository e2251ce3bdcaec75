// Package watch shows the records of an address of the bus as they come,
// decoded: as JSON, one a line, or as lines for people.
//
//	records of a topic --> decode --> those of run, layer, seed --> repeats of rollups dropped --> claims resolved --> lines
package watch

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/morphogenetic/oona"
)

// Options say what is shown, and how.
type Options struct {
	Topics  oona.Topics
	Address oona.Address
	Run     oona.RunID // empty: of every run
	JSON    bool
	All     bool    // rollups that repeat, too
	Count   int     // end after so many; 0: go on
	Resolve Tensors // nil: claims are shown as they are
}

// Follow writes what comes to out, until ctx ends or Count is reached. Then it
// returns nil.
func Follow(ctx context.Context, subscriber message.Subscriber, o Options, out io.Writer) error {
	messages, err := subscriber.Subscribe(ctx, o.Address.Topic)
	if err != nil {
		return err
	}
	f := follower{Options: o, decoder: newDecoder(o.Topics, o.Address), out: out, seen: make(map[int32]oona.Trigger)}
	for {
		select {
		case <-ctx.Done():
			return nil
		case msg, open := <-messages:
			switch {
			case ctx.Err() != nil:
				return nil
			case !open:
				return errReader
			}
			err := f.show(ctx, msg)
			msg.Ack()
			if errors.Is(err, errEnough) {
				return nil
			}
			if err != nil {
				return err
			}
		}
	}
}

var (
	errReader = errors.New("the reader has stopped")
	errEnough = errors.New("as many are shown as were asked for")
)

type follower struct {
	Options
	decoder *decoder
	out     io.Writer
	shown   int
	seen    map[int32]oona.Trigger // the highest of each partition
}

func (f *follower) show(ctx context.Context, msg *message.Message) error {
	records, err := f.decoder.decode(msg)
	if err != nil {
		return err
	}
	for _, r := range records {
		// Before anything is left out: a trigger counts for all layers.
		r.Repeat = r.Rollup != nil && f.repeats(r)
		if !f.wants(r) {
			continue
		}
		if f.Resolve != nil && r.Frame != nil {
			r.Frame.resolve(ctx, f.Resolve)
		}
		if err := f.write(r); err != nil {
			return err
		}
		if f.shown++; f.shown == f.Count {
			return errEnough
		}
	}
	return nil
}

// repeats says whether a reader must drop a rollup: one with this trigger, or a
// later one, was there.
func (f *follower) repeats(r *Record) bool {
	trigger := oona.Trigger{Offset: r.Rollup.Offset, Index: r.Rollup.Index}
	if highest, any := f.seen[r.Partition]; any && !trigger.After(highest) {
		return true
	}
	f.seen[r.Partition] = trigger
	return false
}

// wants is false of records of other runs and layers, and of those that are of
// none where one is asked for.
func (f *follower) wants(r *Record) bool {
	return (f.Run == "" || f.Run == r.run) &&
		(f.Address.Layer == "" || f.Address.Layer == r.layer) &&
		(f.Address.Seed == oona.AnySeed || r.Frame != nil) &&
		(f.All || !r.Repeat)
}

func (f *follower) write(r *Record) error {
	var err error
	if f.JSON {
		err = json.NewEncoder(f.out).Encode(r)
	} else {
		_, err = fmt.Fprintln(f.out, r.Line())
	}
	if err != nil {
		return fmt.Errorf("show offset %d of partition %d: %w", r.Offset, r.Partition, err)
	}
	return nil
}
