// Package drain sends what a spool holds to the bus, for a spool whose ingest does not come
// back.
package drain

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/bus"
	"github.com/morphogenetic/oona/spool"
	"github.com/morphogenetic/oona/spool/entry"
)

// PathPrefix begins the paths of drained frames; the path over which their ingest accepted
// them follows. An ingest's path has no slash, so no ingest has such a path: a frontier of
// its own holds the watermark for the drained frames.
const PathPrefix = "spool/"

// Drain sends the records of a spool.
type Drain struct {
	Spool     *spool.Spool
	Publisher bus.Publisher
	Rate      int64 // most bytes per second; 0: no limit
	// Sent is called with the number of frames and events of each batch that the bus has; may
	// be nil.
	Sent func(messages int)
	// Aside is called for each record that is set aside; may be nil.
	Aside func(sequence uint64, why error)

	report Report
	began  time.Time
}

// Report is what a drain has done.
type Report struct {
	Requests int64            `json:"requests"`  // that the bus has
	Topics   map[string]int64 `json:"topics"`    // frames and events of them, by topic
	Bytes    int64            `json:"bytes"`     // of them
	Aside    int64            `json:"set_aside"` // requests that were not sent, or not in whole
	Lost     int64            `json:"lost"`      // requests, by damage
	Left     int64            `json:"left"`      // requests
}

// batch is what is sent together: whole records of one topic.
type batch struct {
	topic    string
	records  []spool.Record
	entries  []*entry.Entry
	messages int
	bytes    int64
}

// Limits of a batch, unless one record is larger.
const (
	batchBytes    = 1 << 20
	batchMessages = 1 << 12
)

// Run sends all records of the spool in order, and marks them as done. After an error,
// another Run continues with the first record that the bus has not acknowledged. It
// returns a report with every error, too.
func (d *Drain) Run(ctx context.Context) (Report, error) {
	d.report, d.began = Report{Topics: make(map[string]int64)}, time.Now()
	err := d.run(ctx)
	stats := d.Spool.Stats()
	d.report.Lost, d.report.Left = stats.Lost, stats.Records
	return d.report, err
}

func (d *Drain) run(ctx context.Context) error {
	var b batch
	for {
		r, err := d.next(ctx)
		if err != nil {
			return err
		}
		if r == nil {
			return d.flush(ctx, &b)
		}
		e, err := entry.Decode(r.Body)
		if err != nil {
			e = nil
		}
		if len(b.records) > 0 && (e == nil || e.Topic != b.topic || b.bytes+int64(len(r.Body)) > batchBytes || b.messages+len(e.Messages) > batchMessages) {
			if err := d.flush(ctx, &b); err != nil {
				return err
			}
		}
		if e == nil {
			if err := d.setAside(*r, err); err != nil {
				return err
			}
			if err := d.Spool.Done(r.Sequence); err != nil {
				return err
			}
			continue
		}
		setPath(e)
		b.topic = e.Topic
		b.records, b.entries = append(b.records, *r), append(b.entries, e)
		b.messages, b.bytes = b.messages+len(e.Messages), b.bytes+int64(len(r.Body))
	}
}

// retryRead is the pause after a read that failed. The spool sets a file aside that cannot be
// read after some attempts.
const retryRead = 100 * time.Millisecond

// next returns a copy of the next record, or nil if there is none.
func (d *Drain) next(ctx context.Context) (*spool.Record, error) {
	now, cancel := context.WithCancelCause(ctx)
	cancel(errEmpty)
	for {
		r, err := d.Spool.Next(now)
		switch {
		case err == nil:
			r.Body = bytes.Clone(r.Body)
			return &r, nil
		case ctx.Err() != nil:
			return nil, context.Cause(ctx)
		case errors.Is(err, errEmpty):
			return nil, nil
		case errors.Is(err, spool.ErrClosed):
			return nil, err
		}
		bus.Pause(ctx, retryRead)
	}
}

var errEmpty = errors.New("the spool has no further record")

// setPath gives frames the path of drained ones. Other messages have no path.
func setPath(e *entry.Entry) {
	for _, m := range e.Messages {
		if path := m.Metadata.Get(oona.HeaderPath); path != "" && !strings.HasPrefix(path, PathPrefix) {
			m.Metadata.Set(oona.HeaderPath, PathPrefix+path)
		}
	}
}

// flush sends a batch, notes that it is done, and empties it.
func (d *Drain) flush(ctx context.Context, b *batch) error {
	if len(b.records) == 0 {
		return ctx.Err()
	}
	if err := d.pace(ctx); err != nil {
		return err
	}
	var all []*message.Message
	for _, e := range b.entries {
		all = append(all, e.Messages...)
	}
	err := d.Publisher.Publish(ctx, b.topic, all...)
	aside := int64(0)
	if errors.Is(err, bus.ErrTooLarge) {
		aside, err = d.sendSingly(ctx, b)
	}
	if err != nil {
		return fmt.Errorf("send what is in the spool; a repeat continues there: %w", err)
	}
	d.report.Requests += int64(len(b.records)) - aside
	d.report.Topics[b.topic] += int64(b.messages)
	d.report.Bytes += b.bytes
	if d.Sent != nil {
		d.Sent(b.messages)
	}
	last := b.records[len(b.records)-1].Sequence
	*b = batch{records: b.records[:0], entries: b.entries[:0]}
	return d.Spool.Done(last)
}

// pace waits until the rate allows to send more.
func (d *Drain) pace(ctx context.Context) error {
	if d.Rate > 0 {
		due := d.began.Add(time.Duration(float64(d.report.Bytes) / float64(d.Rate) * float64(time.Second)))
		bus.Pause(ctx, time.Until(due))
	}
	return ctx.Err()
}

// sendSingly sends each message by itself, and sets the records aside that have one which is
// too large for the bus. It returns how many these are.
func (d *Drain) sendSingly(ctx context.Context, b *batch) (aside int64, err error) {
	for i, e := range b.entries {
		var tooLarge error
		for _, m := range e.Messages {
			err := d.Publisher.Publish(ctx, b.topic, m)
			switch {
			case errors.Is(err, bus.ErrTooLarge):
				tooLarge = err
				b.messages--
			case err != nil:
				return aside, err
			}
		}
		if tooLarge != nil {
			aside++
			if err := d.setAside(b.records[i], tooLarge); err != nil {
				return aside, err
			}
		}
	}
	return aside, nil
}

func (d *Drain) setAside(r spool.Record, why error) error {
	d.report.Aside++
	if d.Aside != nil {
		d.Aside(r.Sequence, why)
	}
	return d.Spool.SetAside(r)
}
