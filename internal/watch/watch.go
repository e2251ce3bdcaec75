// Package watch shows the records of an address of the bus when they arrive. It decodes them, and
// prints each as a line of JSON or as a line of text.
//
//	records of a topic --> decode --> select by run, layer, seed --> drop repeats of rollups --> resolve claims --> lines
//
// If readers must drop a rollup and it is not a repeat, it is shown with the reason, because such a
// rollup means that something is wrong with the bus.
package watch

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/charmbracelet/x/ansi"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/rollups"
)

// Options select the records that are shown, and their format.
type Options struct {
	Topics  oona.Topics
	Address oona.Address
	Run     oona.RunID // empty for all runs
	JSON    bool
	All     bool    // whether repeats of rollups are shown, too
	Count   int     // number of records after which Follow returns; 0 means no limit
	Resolve Tensors // reads the tensors of claims; if it is nil, claims are shown as they are
	// Size returns the size of the terminal, to which lines of events are cut: their texts can be
	// long. If it is nil, there is no terminal, and nothing is cut.
	Size func() (columns, rows int)
}

// Follow writes the records to out when they arrive, until ctx ends or Count is reached. Then it
// returns nil.
func Follow(ctx context.Context, subscriber message.Subscriber, o Options, out io.Writer) error {
	messages, err := subscriber.Subscribe(ctx, o.Address.Topic)
	if ctx.Err() != nil {
		return nil
	}
	if err != nil {
		return err
	}
	f := follower{Options: o, decoder: newDecoder(o.Topics, o.Address), out: out}
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
	rollups rollups.Reader
}

func (f *follower) show(ctx context.Context, msg *message.Message) error {
	records, err := f.decoder.decode(msg)
	if err != nil {
		return err
	}
	for _, r := range records {
		// This comes before records are left out, because triggers are compared across all layers.
		if r.rollup != nil {
			f.judge(r)
		}
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

// judge sets the fields that say how a reader treats the rollup.
func (f *follower) judge(r *Record) {
	found := f.rollups.Read(r.Partition, r.rollup)
	r.Begins = found.Begins
	if found.Outcome != rollups.New {
		r.Dropped = found.Outcome.String()
	}
}

// wants reports whether a record is shown. If a run, a layer or a seed is selected, records that have
// none are not shown.
func (f *follower) wants(r *Record) bool {
	return (f.Run == "" || f.Run == r.run) &&
		(f.Address.Layer == "" || f.Address.Layer == r.layer) &&
		(f.Address.Seed == oona.AnySeed || r.Frame != nil) &&
		(f.All || r.Dropped != rollups.Repeat.String())
}

func (f *follower) write(r *Record) error {
	var err error
	if f.JSON {
		err = json.NewEncoder(f.out).Encode(r)
	} else {
		text := r.Text()
		if f.Size != nil && (r.Kind == kindEvent || r.Kind == kindRunEnd) {
			columns, _ := f.Size()
			text = ansi.Truncate(text, columns, mark)
		}
		_, err = fmt.Fprintln(f.out, text)
	}
	if err != nil {
		return fmt.Errorf("show offset %d of partition %d: %w", r.Offset, r.Partition, err)
	}
	return nil
}
