package memory

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/morphogenetic/oona/bus"
)

const (
	defaultCommitEvery = time.Second
	// handlerGrace is how long the end of an assignment waits for a handler that has a
	// message.
	handlerGrace = time.Minute

	// How often the end of a log is asked for that the owner finds short, and the pause
	// between two attempts.
	endAttempts = 6
	endPause    = 500 * time.Millisecond

	// Pauses after which an owner that has failed is asked again.
	retryMin = time.Second
	retryMax = 30 * time.Second
)

// Member is a bus.Member.
type Member struct {
	bus   *Bus
	owner bus.Owner
	opts  bus.MemberOptions
	out   chan *message.Message

	// The rest is guarded by Bus.mu.
	topic   string // empty before Subscribe
	closed  bool
	fenced  bool     // another member has its instance
	session *session // nil between sessions
	open    int      // partitions of the session that the owner has taken
	running context.Context
	stop    context.CancelFunc
	joined  sync.WaitGroup
}

// Member returns a *Member.
func (b *Bus) Member(opts bus.MemberOptions, owner bus.Owner) (bus.Member, error) {
	if err := opts.Validate(); err != nil {
		return nil, fmt.Errorf("member of a group: %w", err)
	}
	opts.CommitEvery = cmp.Or(opts.CommitEvery, defaultCommitEvery)
	return &Member{bus: b, owner: owner, opts: opts, out: make(chan *message.Message)}, nil
}

func (m *Member) group() *group { return m.bus.group(m.opts.Group) }

// Subscribe joins the group. It can be called once.
func (m *Member) Subscribe(ctx context.Context, topic string) (<-chan *message.Message, error) {
	m.bus.mu.Lock()
	defer m.bus.mu.Unlock()
	switch _, err := m.bus.topic(topic); {
	case m.closed:
		return nil, fmt.Errorf("subscribe to %s: %w", topic, bus.ErrClosed)
	case m.topic != "":
		return nil, fmt.Errorf("subscribe to %s: %w", topic, bus.ErrSubscribed)
	case err != nil:
		return nil, fmt.Errorf("subscribe: %w", err)
	}
	m.topic = topic
	m.running, m.stop = context.WithCancel(ctx)
	m.joined.Go(m.run)
	return m.out, nil
}

// run takes part in the generations of the group, one after the other.
func (m *Member) run() {
	defer close(m.out)
	defer m.leave()
	defer m.stop()
	for {
		s := m.join(m.running)
		if s == nil {
			return
		}
		var partitions sync.WaitGroup
		for _, p := range s.partitions {
			partitions.Go(func() { m.own(s, p) })
		}
		<-s.Done()
		partitions.Wait()
		m.ended(s)
	}
}

func (m *Member) ended(s *session) {
	s.end()
	m.bus.mu.Lock()
	defer m.bus.mu.Unlock()
	m.session = nil
}

// own runs an assignment.
func (m *Member) own(s *session, partition int32) {
	from, consumer, log := m.take(s, partition)
	if consumer == nil {
		return
	}
	defer consumer.Revoke()
	m.opened(s)
	var beside sync.WaitGroup
	open, end := context.WithCancel(context.WithoutCancel(s))
	beside.Go(func() {
		for bus.Pause(open, m.opts.CommitEvery) {
			m.settle(s, partition, log, consumer)
			if at, answers := m.bus.end(log); answers {
				consumer.End(at)
			}
		}
	})
	at := bus.Position{Topic: m.topic, Partition: partition, Consumer: consumer}
	handing{bus: m.bus, log: log, at: at, out: m.out, grace: handlerGrace}.handOut(s, from)
	end()
	beside.Wait()
	m.settle(s, partition, log, consumer)
}

// settle makes the Consumer's commit. If the topic was deleted and created again, its
// partitions are assigned again.
func (m *Member) settle(s *session, partition int32, log *log, consumer bus.Consumer) {
	c, due := consumer.Commit()
	if !due {
		return
	}
	err := m.commit(s, partition, log, c)
	consumer.Committed(c, err)
	if errors.Is(err, bus.ErrAnotherTopic) {
		m.bus.mu.Lock()
		defer m.bus.mu.Unlock()
		m.group().rebalance()
	}
}

// end returns where a log ends, or false if the log is frozen.
func (b *Bus) end(p *log) (int64, bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return p.end(), !p.frozen
}

// take asks the owner until it takes a partition. It returns no consumer if ctx ends
// first.
func (m *Member) take(ctx context.Context, partition int32) (int64, bus.Consumer, *log) {
	for wait := retryMin; ; wait = min(2*wait, retryMax) {
		from, consumer, log, err := m.assign(ctx, partition)
		if err == nil {
			return from, consumer, log
		}
		if !bus.Pause(ctx, wait) {
			return 0, nil, nil
		}
	}
}

// assign asks the owner, and asks again while it finds the log short.
func (m *Member) assign(ctx context.Context, partition int32) (int64, bus.Consumer, *log, error) {
	for attempt := 1; ; attempt++ {
		a, log, err := m.describe(partition)
		if err != nil {
			return 0, nil, nil, err
		}
		a.Settled = attempt == endAttempts
		from, consumer, err := m.owner.Assign(ctx, a)
		if err == nil || a.Settled || !errors.Is(err, bus.ErrShort) {
			return from, consumer, log, err
		}
		if !bus.Pause(ctx, endPause) {
			return 0, nil, nil, context.Cause(ctx)
		}
	}
}

func (m *Member) describe(partition int32) (bus.Assignment, *log, error) {
	m.bus.mu.Lock()
	defer m.bus.mu.Unlock()
	p, err := m.bus.partition(m.topic, partition)
	if err != nil {
		return bus.Assignment{}, nil, err
	}
	return bus.Assignment{
		Topic: m.topic, Partition: partition, Partitions: int32(len(m.bus.topics[m.topic].partitions)),
		LogStart: p.start, LogEnd: p.end(), Committed: m.group().committed(place{m.topic, partition}),
	}, p, nil
}

func (m *Member) opened(s *session) {
	m.bus.mu.Lock()
	defer m.bus.mu.Unlock()
	if m.session == s {
		m.open++
	}
}

// Joined implements bus.Member.
func (m *Member) Joined() error {
	m.bus.mu.Lock()
	defer m.bus.mu.Unlock()
	switch {
	case m.fenced:
		return bus.ErrInstance
	case m.session == nil || m.session.Err() != nil:
		return bus.ErrNotJoined
	case m.open < len(m.session.partitions):
		return fmt.Errorf("%w: %d of %d", bus.ErrNotAssigned, len(m.session.partitions)-m.open, len(m.session.partitions))
	}
	return nil
}

// Close leaves the group after its assignments have ended.
func (m *Member) Close() error {
	m.bus.mu.Lock()
	m.closed = true
	if m.stop != nil {
		m.stop()
	}
	m.bus.mu.Unlock()
	m.joined.Wait()
	return nil
}
