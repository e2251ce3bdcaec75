package replay

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"iter"
	"maps"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/morphogenetic/oona/bus"
	"github.com/morphogenetic/oona/replay/archive"
	"github.com/morphogenetic/oona/replay/manifest"
)

// Fault describes an error that Verify has found in a part of an archive.
type Fault struct {
	Topic     string `json:"topic"`
	Partition int32  `json:"partition"`
	What      string `json:"what"`
}

func (f Fault) String() string { return fmt.Sprintf("%s/%d: %s", f.Topic, f.Partition, f.What) }

// Verified says what Verify has read, and which faults it has found.
type Verified struct {
	Files   int   `json:"files"`
	Records int64 `json:"records"`
	// Compared is the number of records that were compared with those of the log.
	Compared int64 `json:"compared"`
	// Deleted is the number of records that the log no longer has because it begins later.
	Deleted int64   `json:"deleted"`
	Faults  []Fault `json:"faults"`
}

// Verify reads all files of an archive, and compares them with its manifest. If log is
// not nil, it also compares the records with those of the same ranges there.
func Verify(ctx context.Context, d *archive.Directory, log Log) (v Verified, err error) {
	v.Faults = []Fault{}
	for _, t := range d.Manifest.Topics {
		var held []bus.Extent
		if log != nil {
			extents, err := log.Extents(ctx, t.Name)
			if err != nil {
				return v, err
			}
			held = extents[t.Name]
		}
		for i := range t.Partitions {
			p := &verifying{Verified: &v, archive: d, topic: t.Name, partition: int32(i), part: &t.Partitions[i]}
			if log != nil {
				p.log, p.held = log, bus.Extent{}
				if i < len(held) {
					p.held = held[i]
				}
			}
			if err := p.run(ctx); err != nil {
				return v, err
			}
		}
	}
	return v, nil
}

// verifying is the verification of a partition.
type verifying struct {
	*Verified
	archive   *archive.Directory
	topic     string
	partition int32
	part      *manifest.Partition
	log       Log // nil if the records are not compared with a log
	held      bus.Extent
}

func (v *verifying) fault(format string, args ...any) {
	v.Faults = append(v.Faults, Fault{v.topic, v.partition, fmt.Sprintf(format, args...)})
}

func (v *verifying) run(ctx context.Context) error {
	if v.log != nil && v.part.End > v.held.End {
		v.fault("the log ends at offset %d, and the archive at %d: the topic was made again or has lost its end, or this is another cluster", v.held.End, v.part.End)
	}
	next := v.part.From
	for _, f := range v.part.Files {
		v.Files++
		v.Records += f.Records
		if f.First != next {
			v.fault("%s begins at offset %d, and the file before it ends before %d", f.Name, f.First, next)
		}
		next = f.End
		if err := v.file(ctx, f); err != nil {
			return err
		}
	}
	if next != v.part.End {
		v.fault("the files end before offset %d, and the manifest says %d", next, v.part.End)
	}
	return nil
}

// file verifies a file.
func (v *verifying) file(ctx context.Context, f manifest.File) error {
	c := &recordComparison{verifying: v, file: f}
	if v.log != nil {
		begin := max(f.First, v.held.Start)
		next, stop := iter.Pull2(recordsOf(ctx, v.log, v.topic, bus.Range{Partition: v.partition, From: begin, End: f.End}))
		defer stop()
		c.next = next
		if err := c.read(); err != nil {
			return err
		}
	}
	err := v.archive.VerifyFile(ctx, f, c.take)
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case errors.Is(err, errLog):
		return err
	case err != nil:
		v.fault("%v", err)
		return nil
	}
	return c.end()
}

// recordsOf returns the records of a range of a log. The messages stay valid.
func recordsOf(ctx context.Context, log Log, topic string, r bus.Range) iter.Seq2[*message.Message, error] {
	return func(yield func(*message.Message, error) bool) {
		err := log.Read(ctx, topic, r, func(msg *message.Message) error {
			if !yield(msg, nil) {
				return errFound
			}
			return nil
		})
		if err != nil && !errors.Is(err, errFound) {
			yield(nil, fmt.Errorf("%w: %w", errLog, err))
		}
	}
}

// errLog means that the log could not be read.
var errLog = errors.New("read the log")

// recordComparison compares the records of a file with those of the log.
type recordComparison struct {
	*verifying
	file  manifest.File
	next  func() (*message.Message, error, bool) // nil if there is no log
	head  *message.Message                       // the next record of the log; nil at the end
	at    bus.Position
	wrong int64 // records that differ
}

func (c *recordComparison) read() (err error) {
	var more bool
	if c.head, err, more = c.next(); err != nil || !more {
		c.head = nil
		return err
	}
	c.at, err = bus.PositionOf(c.head)
	return err
}

// differs counts a difference. Only the first difference of a file becomes a fault of its own.
func (c *recordComparison) differs(offset int64, what string) {
	if c.wrong++; c.wrong == 1 {
		c.fault("%s: offset %d %s", c.file.Name, offset, what)
	}
}

// take compares a record of the archive.
func (c *recordComparison) take(msg *message.Message, at bus.Position) error {
	switch {
	case c.next == nil:
		return nil
	case at.Offset < c.held.Start:
		c.Deleted++
		return nil
	case at.Offset >= c.held.End: // run has reported this
		return nil
	}
	for c.head != nil && c.at.Offset < at.Offset {
		c.differs(c.at.Offset, "is in the log and not in the archive")
		if err := c.read(); err != nil {
			return err
		}
	}
	if c.head == nil || c.at.Offset > at.Offset {
		c.differs(at.Offset, "is in the archive and not in the log")
		return nil
	}
	c.Compared++
	if what := difference(msg, c.head, at, c.at); what != "" {
		c.differs(at.Offset, "has another "+what+" in the log")
	}
	return c.read()
}

// end reports records that the log has after the last record of the file.
func (c *recordComparison) end() error {
	for c.head != nil {
		c.differs(c.at.Offset, "is in the log and not in the archive")
		if err := c.read(); err != nil {
			return err
		}
	}
	if c.wrong > 1 {
		c.fault("%s: %d records differ from the log", c.file.Name, c.wrong)
	}
	return nil
}

// difference returns the first field in which two records differ.
func difference(a, b *message.Message, at, in bus.Position) string {
	switch {
	case at.Appended != in.Appended:
		return "append time"
	case !same(at.Key, in.Key):
		return "key"
	case !same(a.Payload, b.Payload):
		return "value"
	case !maps.Equal(a.Metadata, b.Metadata):
		return "header"
	}
	return ""
}

// same compares bytes. Nil and empty bytes differ.
func same(a, b []byte) bool { return bytes.Equal(a, b) && (a == nil) == (b == nil) }
