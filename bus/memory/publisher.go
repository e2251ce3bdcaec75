package memory

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/bus"
)

// recordOverhead is the size of a record without its key, payload and headers.
const recordOverhead = 70

// Publisher is a bus.PinnedPublisher.
type Publisher struct {
	bus    *Bus
	opts   bus.PublisherOptions
	pinned int32 // partitions of the pinned topic, when the publisher was made

	mu      sync.Mutex
	closing context.Context
	close   context.CancelCauseFunc
	calls   sync.WaitGroup
	moved   error // a *bus.PartitionsError, for good
}

// Publisher returns a *Publisher. Without a delivery timeout, messages for a partition
// that is frozen wait until their context ends.
func (b *Bus) Publisher(opts bus.PublisherOptions) (bus.PinnedPublisher, error) {
	if err := opts.Validate(); err != nil {
		return nil, fmt.Errorf("publisher: %w", err)
	}
	p := &Publisher{bus: b, opts: opts}
	if opts.Pin != "" {
		extents, err := b.Extents(context.Background(), opts.Pin)
		if err != nil {
			return nil, fmt.Errorf("publisher: %w", err)
		}
		p.pinned = int32(len(extents[opts.Pin]))
	}
	p.closing, p.close = context.WithCancelCause(context.Background())
	return p, nil
}

// Pinned implements bus.PinnedPublisher.
func (p *Publisher) Pinned() error {
	if p.opts.Pin == "" {
		return nil
	}
	extents, err := p.bus.Extents(context.Background(), p.opts.Pin)
	p.mu.Lock()
	defer p.mu.Unlock()
	if has := int32(len(extents[p.opts.Pin])); err == nil && has != p.pinned && p.moved == nil {
		p.moved = &bus.PartitionsError{Topic: p.opts.Pin, Had: p.pinned, Has: has}
	}
	return p.moved
}

// part is the records of a call for one partition, in order.
type part struct {
	at      int32
	records []indexed
	settled chan struct{}
	failed  []bus.FailedMessage
}

type indexed struct {
	record
	index int
	topic *topic
}

func (p *part) settle(failed []bus.FailedMessage) {
	p.failed = failed
	close(p.settled)
}

// Publish implements bus.Publisher.
func (p *Publisher) Publish(ctx context.Context, topic string, messages ...*message.Message) error {
	if !p.begin() {
		return fmt.Errorf("publish to %s: %w", topic, bus.ErrClosed)
	}
	defer p.calls.Done()
	if err := ctx.Err(); err != nil && len(messages) > 0 {
		return fmt.Errorf("publish to %s: %w", topic, context.Cause(ctx))
	}
	if topic == p.opts.Pin {
		if err := p.Pinned(); err != nil {
			return err
		}
	}
	if p.opts.DeliveryTimeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, p.opts.DeliveryTimeout)
		defer cancel()
	}
	parts, failed, err := p.bus.begin(topic, messages, p.opts.MaxMessageBytes)
	if err != nil {
		return err
	}
	for _, part := range parts {
		select {
		case <-part.settled:
		case <-ctx.Done():
			p.bus.withdraw(topic, part, context.Cause(ctx))
		case <-p.closing.Done():
			p.bus.withdraw(topic, part, context.Cause(p.closing))
		}
		failed = append(failed, part.failed...)
	}
	if len(failed) == 0 {
		return nil
	}
	slices.SortFunc(failed, func(a, b bus.FailedMessage) int { return a.Index - b.Index })
	return &bus.PublishError{Topic: topic, Messages: len(messages), Failed: failed}
}

func (p *Publisher) begin() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closing.Err() != nil {
		return false
	}
	p.calls.Add(1)
	return true
}

// Close makes messages that wait fail.
func (p *Publisher) Close() error {
	p.mu.Lock()
	p.close(bus.ErrClosed)
	p.mu.Unlock()
	p.calls.Wait()
	return nil
}

// begin appends the messages of a call to the partitions that are not frozen. The others
// wait.
func (b *Bus) begin(topic string, messages []*message.Message, most int) (parts []*part, failed []bus.FailedMessage, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	t, err := b.topic(topic)
	if err != nil {
		return nil, nil, err
	}
	for i, msg := range messages {
		if err := t.check(msg, most); err != nil {
			return nil, nil, &bus.PublishError{Topic: topic, Messages: len(messages), Failed: []bus.FailedMessage{{Index: i, Err: err}}}
		}
	}
	parts, failed = t.split(messages)
	for _, part := range parts {
		p := t.partitions[part.at]
		if p.frozen {
			p.waiting = append(p.waiting, part)
			continue
		}
		part.settle(b.append(p, part))
		p.wake()
	}
	return parts, failed, nil
}

// check returns an error if a message makes its whole call fail.
func (t *topic) check(msg *message.Message, most int) error {
	to := bus.TargetOf(msg)
	if (to.Directed || to.Hashed) && to.Partition < 0 {
		return &oona.FieldError{Field: "partition", Reason: fmt.Sprintf("is %d; partitions are numbered from 0", to.Partition)}
	}
	size := recordOverhead + len(to.Key) + bus.SizeOf(msg)
	limit := t.maxBytes
	if most > 0 {
		limit = min(limit, most)
	}
	if size > limit {
		return fmt.Errorf("%w: it takes %d bytes, and the limit is %d", bus.ErrTooLarge, size, limit)
	}
	return nil
}

// split sorts the messages of a call by partition. Messages without a valid partition
// fail.
func (t *topic) split(messages []*message.Message) (parts []*part, failed []bus.FailedMessage) {
	for i, msg := range messages {
		to := bus.TargetOf(msg)
		at := t.place(to)
		if int(at) >= len(t.partitions) {
			failed = append(failed, bus.FailedMessage{Index: i, Err: fmt.Errorf("%s has no partition %d", t.name, at)})
			continue
		}
		n := slices.IndexFunc(parts, func(p *part) bool { return p.at == at })
		if n < 0 {
			n = len(parts)
			parts = append(parts, &part{at: at, settled: make(chan struct{})})
		}
		parts[n].records = append(parts[n].records, indexed{record{
			appended: to.Time,
			key:      slices.Clone(to.Key),
			payload:  slices.Clone(msg.Payload),
			headers:  maps.Clone(msg.Metadata),
		}, i, t})
	}
	return parts, failed
}

func (t *topic) place(to bus.Target) int32 {
	switch {
	case to.Directed:
		return to.Partition
	case to.Hashed:
		return to.Partition % int32(len(t.partitions))
	case to.Key != nil:
		return bus.PartitionOf(to.Key, len(t.partitions))
	}
	t.unkeyed++
	return int32((t.unkeyed - 1) % len(t.partitions))
}

// append appends the records of a part until one is refused.
func (b *Bus) append(p *log, part *part) (failed []bus.FailedMessage) {
	for i, r := range part.records {
		if b.refuse != nil {
			if err := b.refuse(r.topic.name, part.at); err != nil {
				for _, behind := range part.records[i:] {
					failed = append(failed, bus.FailedMessage{Index: behind.index, Err: err})
				}
				return failed
			}
		}
		if r.topic.appendTime || r.appended == 0 {
			r.appended = oona.MicrosOf(time.Now())
		}
		r.appended = oona.MicrosOf(r.appended.Time().Truncate(time.Millisecond))
		r.offset = p.end()
		p.records = append(p.records, r.record)
	}
	return nil
}

// withdraw makes a part fail that still waits.
func (b *Bus) withdraw(topic string, waiting *part, why error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	p, err := b.partition(topic, waiting.at)
	if err != nil {
		why = errors.Join(why, err)
	}
	select {
	case <-waiting.settled:
		return
	default:
	}
	var failed []bus.FailedMessage
	for _, r := range waiting.records {
		failed = append(failed, bus.FailedMessage{Index: r.index, Err: why})
	}
	if p != nil {
		p.waiting = slices.DeleteFunc(p.waiting, func(other *part) bool { return other == waiting })
	}
	waiting.settle(failed)
}
