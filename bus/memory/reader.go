package memory

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/morphogenetic/oona/bus"
)

// Reader is a bus.Reader.
type Reader struct {
	bus  *Bus
	from time.Time

	mu      sync.Mutex
	ranges  map[string][]bus.Range
	closing context.Context
	close   context.CancelFunc
	reading sync.WaitGroup

	progress chan struct{}  // closed and replaced after each ack; guarded by Bus.mu
	next     map[*log]int64 // the offset after the last acked message; guarded by Bus.mu
}

// Reader returns a *Reader.
func (b *Bus) Reader(opts bus.ReaderOptions) (bus.Reader, error) {
	r := &Reader{bus: b, from: opts.From, ranges: make(map[string][]bus.Range), progress: make(chan struct{}), next: make(map[*log]int64)}
	r.closing, r.close = context.WithCancel(context.Background())
	return r, nil
}

// Subscribe reads a topic until ctx ends. A reader can read a topic once.
func (r *Reader) Subscribe(ctx context.Context, topic string) (<-chan *message.Message, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closing.Err() != nil {
		return nil, fmt.Errorf("read %s: %w", topic, bus.ErrClosed)
	}
	if _, again := r.ranges[topic]; again {
		return nil, fmt.Errorf("%s is read already; use another reader", topic)
	}
	logs, ranges, err := r.locate(topic)
	if err != nil {
		return nil, err
	}
	r.ranges[topic] = ranges
	ctx, cancel := context.WithCancel(ctx)
	stop := context.AfterFunc(r.closing, cancel)
	out := make(chan *message.Message)
	var partitions sync.WaitGroup
	for i, of := range ranges {
		h := handing{bus: r.bus, log: logs[i], at: bus.Position{Topic: topic, Partition: of.Partition}, out: out, acked: func(next int64) { r.advance(logs[i], next) }}
		partitions.Go(func() { h.handOut(ctx, of.From) })
	}
	r.reading.Go(func() {
		partitions.Wait()
		stop()
		cancel()
		close(out)
	})
	return out, nil
}

func (r *Reader) locate(topic string) ([]*log, []bus.Range, error) {
	r.bus.mu.Lock()
	defer r.bus.mu.Unlock()
	t, err := r.bus.topic(topic)
	if err != nil {
		return nil, nil, err
	}
	ranges := make([]bus.Range, len(t.partitions))
	for i, p := range t.partitions {
		ranges[i] = bus.Range{Partition: int32(i), From: p.start, End: p.end()}
		if !r.from.IsZero() {
			ranges[i].From = p.firstAt(r.from)
		}
		r.next[p] = ranges[i].From
	}
	return t.partitions, ranges, nil
}

// Ranges implements bus.Reader.
func (r *Reader) Ranges(topic string) []bus.Range {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.ranges[topic]
}

func (r *Reader) advance(p *log, next int64) {
	r.bus.mu.Lock()
	defer r.bus.mu.Unlock()
	r.next[p] = next
	close(r.progress)
	r.progress = make(chan struct{})
}

// CaughtUp waits until all records of the subscribed topics are acked.
func (r *Reader) CaughtUp(ctx context.Context) error {
	for {
		r.bus.mu.Lock()
		behind, progress := 0, r.progress
		for p, next := range r.next {
			if next < p.end() {
				behind++
			}
		}
		r.bus.mu.Unlock()
		if behind == 0 {
			return nil
		}
		select {
		case <-progress:
		case <-ctx.Done():
			return fmt.Errorf("%d partitions are not read to their ends: %w", behind, context.Cause(ctx))
		}
	}
}

// Close ends all subscriptions. It does not wait for handlers.
func (r *Reader) Close() error {
	r.close()
	r.mu.Lock() // wait for Subscribe
	defer r.mu.Unlock()
	r.reading.Wait()
	return nil
}
