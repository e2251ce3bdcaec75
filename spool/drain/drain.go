// Package drain sends the records of a spool to the bus, if the ingest that wrote them will not run
// again.
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

// PathPrefix is put before the path of a drained frame. The path of an ingest has no slash, so
// no ingest has such a path. The drained frames then have a frontier of their own, which holds
// back the watermark until they are sent.
const PathPrefix = "spool/"

// Drain sends the records of a spool.
type Drain struct {
	Spool     *spool.Queues
	Publisher bus.Publisher
	Rate      int64 // maximum bytes per second; 0: no limit
	// Sent is called with the number of frames and events of each batch that the bus has
	// acknowledged. It may be nil.
	Sent func(messages int)
	// Aside is called for each record that is set aside. It may be nil.
	Aside func(sequence uint64, why error)
	// Unusable has the topics to which nothing can be sent, with the reasons. Run adds those
	// that it finds. Records for these topics stay in the spool.
	Unusable map[string]error

	report Report
	began  time.Time
	queue  *spool.Spool // the queue that is being sent
}

// Report says what a drain has done. Each record of a spool is a request.
type Report struct {
	Requests int64            `json:"requests"`  // requests that the bus has acknowledged
	Topics   map[string]int64 `json:"topics"`    // number of frames and events in these requests, by topic
	Bytes    int64            `json:"bytes"`     // size of these requests
	Aside    int64            `json:"set_aside"` // requests that could not be sent, or only in part
	Lost     int64            `json:"lost"`      // requests that were lost through damage
	Left     int64            `json:"left"`      // requests that are still in the spool
	Unusable map[string]int64 `json:"unusable"`  // requests that are left because their topic does not exist or may not be written to, by topic
}

// batch has the records that are sent together. They are for one topic, and no record is divided.
type batch struct {
	queue    string // name of the queue that has the records
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

// Run sends all records of the spool, and marks them as done. It sends the records of each topic in
// order. Records for a topic that cannot be used stay in the spool, and do not delay the others.
// After an error, open the spool again and call Run: it continues with the first record that the bus
// has not acknowledged. Run returns a report even if it returns an error.
func (d *Drain) Run(ctx context.Context) (Report, error) {
	d.report, d.began = Report{Topics: make(map[string]int64), Unusable: make(map[string]int64)}, time.Now()
	if d.Unusable == nil {
		d.Unusable = make(map[string]error)
	}
	err := d.queues(ctx)
	stats := d.Spool.Stats()
	d.report.Lost, d.report.Left = stats.Lost, stats.Records
	for topic := range d.Unusable {
		if queue := d.Spool.Find(topic); queue != nil && !queue.Empty() {
			d.report.Unusable[topic] = queue.Stats().Records
		}
	}
	return d.report, err
}

// queues sends one queue after the other. It begins with the queue without a name, because records may
// be moved from it to others.
func (d *Drain) queues(ctx context.Context) error {
	if err := d.one(ctx, ""); err != nil {
		return err
	}
	for _, topic := range d.Spool.Names() {
		if topic == "" || d.Unusable[topic] != nil {
			continue
		}
		if err := d.one(ctx, topic); err != nil && (d.Unusable[topic] == nil || ctx.Err() != nil) {
			return err
		}
	}
	return nil
}

func (d *Drain) one(ctx context.Context, topic string) (err error) {
	if d.queue, err = d.Spool.Queue(topic); err != nil {
		return err
	}
	return d.run(ctx, topic)
}

// ofTopic reports whether an error concerns only one topic, so others may be usable.
func ofTopic(err error) bool { return errors.Is(err, bus.ErrNoTopic) || errors.Is(err, bus.ErrDenied) }

// run sends the records of a queue.
func (d *Drain) run(ctx context.Context, of string) error {
	b := batch{queue: of}
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
			if err := d.queue.Done(r.Sequence); err != nil {
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

// retryRead is the pause after a failed read. After some attempts, the spool sets aside a file
// that cannot be read.
const retryRead = 100 * time.Millisecond

// next returns a copy of the next record, or nil if there is none.
func (d *Drain) next(ctx context.Context) (*spool.Record, error) {
	now, cancel := context.WithCancelCause(ctx)
	cancel(errEmpty)
	for {
		r, err := d.queue.Next(now)
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

// setPath adds PathPrefix to the paths of messages. A message without a path stays without one.
func setPath(e *entry.Entry) {
	for _, m := range e.Messages {
		if path := m.Metadata.Get(oona.HeaderPath); path != "" && !strings.HasPrefix(path, PathPrefix) {
			m.Metadata.Set(oona.HeaderPath, PathPrefix+path)
		}
	}
}

// flush sends a batch, marks it as done, and empties it.
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
	last := b.records[len(b.records)-1].Sequence
	aside, err := int64(0), d.Unusable[b.topic]
	if err == nil && b.queue != b.topic {
		err = d.Spool.Behind(b.topic, entry.Runs(all)...)
	}
	if err == nil {
		err = d.Publisher.Publish(ctx, b.topic, all...)
	}
	if errors.Is(err, bus.ErrTooLarge) {
		aside, err = d.sendSingly(ctx, b)
	}
	if err != nil && ofTopic(err) {
		d.Unusable[b.topic] = err
	}
	if err != nil && b.queue != b.topic && (ofTopic(err) || errors.Is(err, spool.ErrBehind)) {
		if err := d.move(ctx, b); err != nil {
			return err
		}
		b.empty()
		return d.queue.Done(last)
	}
	if err != nil {
		return fmt.Errorf("send the records of the spool (the next drain continues where this one has stopped): %w", err)
	}
	d.report.Requests += int64(len(b.records)) - aside
	d.report.Topics[b.topic] += int64(b.messages)
	d.report.Bytes += b.bytes
	if d.Sent != nil {
		d.Sent(b.messages)
	}
	b.empty()
	return d.queue.Done(last)
}

func (b *batch) empty() {
	*b = batch{queue: b.queue, records: b.records[:0], entries: b.entries[:0]}
}

// move moves a batch from the queue without a name to the queue of its topic.
func (d *Drain) move(ctx context.Context, b *batch) error {
	to, err := d.Spool.Queue(b.topic)
	if err != nil {
		return fmt.Errorf("move the records for topic %s to another file of the spool, so that the records after them can be sent: %w", b.topic, err)
	}
	for i, r := range b.records {
		if err := to.Append(ctx, entry.Runs(b.entries[i].Messages), r.Body); err != nil {
			return fmt.Errorf("move the records for topic %s to another file of the spool, so that the records after them can be sent: %w", b.topic, err)
		}
	}
	return nil
}

// pace waits until the rate permits to send more.
func (d *Drain) pace(ctx context.Context) error {
	if d.Rate > 0 {
		due := d.began.Add(time.Duration(float64(d.report.Bytes) / float64(d.Rate) * float64(time.Second)))
		bus.Pause(ctx, time.Until(due))
	}
	return ctx.Err()
}

// sendSingly sends each message by itself. It sets aside records that have a message which is
// too large for the bus, and returns their number.
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
	return d.queue.SetAside(r)
}
