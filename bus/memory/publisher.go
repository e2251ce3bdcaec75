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

// recordOverhead is what a record takes besides its key, payload and headers.
const recordOverhead = 70

// defaultMaxMessage is what a topic takes whose spec leaves it open.
const defaultMaxMessage = 1 << 20

// Publisher is a bus.Publisher. Its errors are *PublishError, an *oona.FieldError
// for a target that cannot be, or wrap an error of package bus.
type Publisher struct {
	bus  *Bus
	most int // bytes of a message; 0: as the topic has it

	mu      sync.Mutex
	closing context.Context
	close   context.CancelCauseFunc
	calls   sync.WaitGroup
}

// PublisherOptions are what publishers differ in.
type PublisherOptions struct {
	// MaxMessageBytes is the most that a message takes with its key and headers; 0:
	// what the topic takes.
	MaxMessageBytes int
}

// NewPublisher returns a publisher to any topic.
func (b *Bus) NewPublisher(opts PublisherOptions) *Publisher {
	p := &Publisher{bus: b, most: opts.MaxMessageBytes}
	p.closing, p.close = context.WithCancelCause(context.Background())
	return p
}

// PublishError says which messages of a call were not appended. If it wraps
// bus.ErrTooLarge, none was.
type PublishError struct {
	Topic  string
	Failed []FailedMessage
}

// FailedMessage is a message that was not appended.
type FailedMessage struct {
	Index int // in the call
	Err   error
}

func (e *PublishError) Error() string {
	return fmt.Sprintf("%d messages for %s were not appended; the first is message %d: %v", len(e.Failed), e.Topic, e.Failed[0].Index, e.Failed[0].Err)
}

// Unwrap returns the cause of each failure.
func (e *PublishError) Unwrap() []error {
	causes := make([]error, len(e.Failed))
	for i, f := range e.Failed {
		causes[i] = f.Err
	}
	return causes
}

// part is the records of a call for one partition, in order.
type part struct {
	at      int32
	records []indexed
	settled chan struct{}
	failed  []FailedMessage // of it
}

type indexed struct {
	record
	index int
	topic *topic
}

func (p *part) settle(failed []FailedMessage) {
	p.failed = failed
	close(p.settled)
}

// Publish appends messages as bus.Publisher says.
func (p *Publisher) Publish(ctx context.Context, topic string, messages ...*message.Message) error {
	if !p.begin() {
		return fmt.Errorf("publish to %s: %w", topic, bus.ErrClosed)
	}
	defer p.calls.Done()
	if err := ctx.Err(); err != nil && len(messages) > 0 {
		return fmt.Errorf("publish to %s: %w", topic, context.Cause(ctx))
	}
	parts, failed, err := p.bus.begin(topic, messages, p.most)
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
	slices.SortFunc(failed, func(a, b FailedMessage) int { return a.Index - b.Index })
	return &PublishError{topic, failed}
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

// Close lets messages that wait fail.
func (p *Publisher) Close() error {
	p.mu.Lock()
	p.close(bus.ErrClosed)
	p.mu.Unlock()
	p.calls.Wait()
	return nil
}

// begin appends the messages of a call to the partitions that take them now, and has
// the others wait.
func (b *Bus) begin(topic string, messages []*message.Message, most int) (parts []*part, failed []FailedMessage, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	t, err := b.topic(topic)
	if err != nil {
		return nil, nil, err
	}
	for i, msg := range messages {
		if err := t.check(msg, most); err != nil {
			return nil, nil, &PublishError{topic, []FailedMessage{{i, err}}}
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

// check returns why nothing of a call may be appended in which a message is.
func (t *topic) check(msg *message.Message, most int) error {
	to := bus.TargetOf(msg)
	if to.Directed && to.Partition < 0 {
		return &oona.FieldError{Field: "partition", Reason: fmt.Sprintf("is %d; partitions are numbered from 0", to.Partition)}
	}
	size := recordOverhead + len(msg.Payload) + len(to.Key)
	for name, value := range msg.Metadata {
		size += len(name) + len(value)
	}
	limit := t.spec.MaxMessageBytes
	if limit == 0 {
		limit = defaultMaxMessage
	}
	if most > 0 {
		limit = min(limit, most)
	}
	if size > limit {
		return fmt.Errorf("%w: it takes %d bytes, and the limit is %d", bus.ErrTooLarge, size, limit)
	}
	return nil
}

// split sorts the messages of a call by partition. Those without one fail.
func (t *topic) split(messages []*message.Message) (parts []*part, failed []FailedMessage) {
	for i, msg := range messages {
		to := bus.TargetOf(msg)
		at := t.place(to)
		if int(at) >= len(t.partitions) {
			failed = append(failed, FailedMessage{i, fmt.Errorf("%s has no partition %d", t.spec.Name, at)})
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
	case to.Key != nil:
		return partitionOf(to.Key, len(t.partitions))
	}
	t.unkeyed++
	return int32((t.unkeyed - 1) % len(t.partitions))
}

// append appends the records of a part up to the first that is refused.
func (b *Bus) append(p *log, part *part) (failed []FailedMessage) {
	for i, r := range part.records {
		if b.refuse != nil {
			if err := b.refuse(r.topic.spec.Name, part.at); err != nil {
				for _, behind := range part.records[i:] {
					failed = append(failed, FailedMessage{behind.index, err})
				}
				return failed
			}
		}
		if r.topic.spec.AppendTime || r.appended == 0 {
			r.appended = oona.MicrosOf(b.now())
		}
		r.appended = oona.MicrosOf(r.appended.Time().Truncate(time.Millisecond))
		r.offset = p.end()
		p.records = append(p.records, r.record)
	}
	return nil
}

// withdraw lets a part fail that still waits.
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
	var failed []FailedMessage
	for _, r := range waiting.records {
		failed = append(failed, FailedMessage{r.index, why})
	}
	if p != nil {
		p.waiting = slices.DeleteFunc(p.waiting, func(other *part) bool { return other == waiting })
	}
	waiting.settle(failed)
}
