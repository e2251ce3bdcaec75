package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/bus"
	"github.com/morphogenetic/oona/internal/watch"
	"github.com/morphogenetic/oona/spool"
	"github.com/morphogenetic/oona/spool/entry"
)

type spoolCat struct {
	Directory string         `arg:"" name:"directory" type:"path" help:"Directory of the spool."`
	OfRun     []oona.RunID   `name:"run" env:"-" placeholder:"ID" help:"Print only frames and events of this run. This flag and --layer can be repeated."`
	Layer     []oona.LayerID `env:"-" placeholder:"ID" help:"Print only frames and events of this layer."`
	Limit     int64          `env:"-" placeholder:"N" help:"Print at most this many frames and events."`
	SetAside  bool           `env:"-" help:"Print the content of the requests that could not be sent and were set aside, instead of what was not sent yet."`
}

// spoolPrinter prints the frames and events of a spool in the format of oona watch --json.
type spoolPrinter struct {
	*spoolCat
	out     *bufio.Writer
	lines   map[string]*watch.Lines // by topic
	printed int64
	unknown int64 // records that are not requests
}

// errLimit stops the reading of a spool when enough was printed.
var errLimit = errors.New("the maximum of --limit was printed")

// Run runs the command.
func (c *spoolCat) Run(ctx context.Context, to streams) error {
	p := &spoolPrinter{spoolCat: c, out: bufio.NewWriterSize(to.out, 1<<16), lines: make(map[string]*watch.Lines)}
	v, used, err := lookAt(c.Directory, func(_ string, r spool.Record) error {
		if c.SetAside {
			return ctx.Err()
		}
		return errors.Join(ctx.Err(), p.record(r))
	})
	if err == nil && c.SetAside {
		err = p.setAside(v)
	}
	if errors.Is(err, errLimit) {
		err = nil
	}
	if err = errors.Join(err, p.out.Flush()); err != nil {
		return err
	}
	noteUse(to.messages, c.Directory, used)
	lost := int64(0)
	for _, seg := range v.Segments {
		lost += seg.Lost
		if seg.Err != nil {
			fmt.Fprintf(to.messages, "oona: %s cannot be read: %v\n", seg.Name, seg.Err)
		}
	}
	if lost > 0 {
		fmt.Fprintf(to.messages, "oona: %s lost in damaged parts of the files\n", plural(lost, "request"))
	}
	if p.unknown > 0 {
		fmt.Fprintf(to.messages, "oona: %s skipped, because they are not requests\n", plural(p.unknown, "record"))
	}
	return nil
}

// record prints the frames and events of a record. Their offset in the output is the sequence number
// of the record in the spool.
func (p *spoolPrinter) record(r spool.Record) error {
	e, err := entry.Decode(r.Body)
	if err != nil {
		p.unknown++
		return nil
	}
	lines, err := p.linesOf(e.Topic)
	if err != nil {
		return err
	}
	for _, m := range e.Messages {
		key := bus.TargetOf(m).Key
		if !p.selected(m) {
			continue
		}
		at := bus.Position{Topic: e.Topic, Partition: notOnTheBus, Offset: int64(r.Sequence), Appended: e.Spooled, Key: key}
		msg := message.NewMessage("", m.Payload)
		msg.Metadata = m.Metadata
		msg.SetContext(bus.WithPosition(context.Background(), at))
		n, err := lines.Write(msg, nil, nil)
		if err != nil {
			return err
		}
		if p.printed += n; p.Limit > 0 && p.printed >= p.Limit {
			return errLimit
		}
	}
	return nil
}

// notOnTheBus stands for the partition in the output, because frames in a spool are not on the bus yet.
const notOnTheBus = -1

func (p *spoolPrinter) linesOf(topic string) (*watch.Lines, error) {
	if p.lines[topic] == nil {
		topics, err := topicsOf(topic)
		if err != nil {
			return nil, err
		}
		p.lines[topic] = watch.NewLines(topics, topic, p.out)
	}
	return p.lines[topic], nil
}

func (p *spoolPrinter) selected(m *message.Message) bool {
	run, layer := placeOf(m)
	return (len(p.OfRun) == 0 || slices.Contains(p.OfRun, run)) && (len(p.Layer) == 0 || slices.Contains(p.Layer, layer))
}

// setAside prints the records that were set aside.
func (p *spoolPrinter) setAside(v *spool.View) error {
	fs, err := spool.OpenExisting(p.Directory)
	if err != nil {
		return err
	}
	for _, kept := range v.Kept {
		if !kept.Record {
			continue
		}
		r, err := spool.ReadAside(fs, kept)
		if err != nil {
			return err
		}
		if err := p.record(r); err != nil {
			return err
		}
	}
	return nil
}
