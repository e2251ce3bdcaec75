package kafka

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/IBM/sarama"
	"github.com/ThreeDotsLabs/watermill/message"
	"golang.org/x/sync/errgroup"

	"github.com/morphogenetic/oona"
)

// handlerGrace is how long the end of a claim waits for the message that is in
// a handler's hands.
const handlerGrace = rebalanceTimeout

// nackPause is between a message that was nacked and its redelivery.
const nackPause = 100 * time.Millisecond

// claim is a partition that this member owns.
type claim struct {
	sarama.ConsumerGroupClaim
	about oona.Claim
	id    sarama.Uuid // of the topic
}

// handOut hands the claim's messages out, one at a time, until session ends. It
// returns false when a handler still has the last one after grace.
func (c *claim) handOut(session context.Context, out chan<- *message.Message, grace time.Duration) bool {
	messages := c.Messages()
	for {
		select {
		case r, open := <-messages:
			if !open {
				return true
			}
			if !c.handle(session, r, out, grace) {
				return false
			}
		case <-session.Done(): // messages may stay open while the connection is lost
			return true
		}
	}
}

// handle hands a record out until it is acked, or the session has ended: then
// it is the next owner's.
func (c *claim) handle(session context.Context, r *sarama.ConsumerMessage, out chan<- *message.Message, grace time.Duration) bool {
	msg := newMessage(r, r.Headers, c.about.ID)
	for session.Err() == nil {
		msg.SetContext(session)
		select {
		case out <- msg:
		case <-session.Done():
			return true
		}
		if !settled(session, msg, grace) {
			return false
		}
		select {
		case <-msg.Acked():
			return true
		default: // it comes again, in place
			msg = msg.Copy()
			sleep(session, nackPause)
		}
	}
	return true
}

// settled waits until a handler has acked or nacked a message. It returns false
// when it has done neither for so long after the end of the session.
func settled(session context.Context, msg *message.Message, grace time.Duration) bool {
	select {
	case <-msg.Acked():
		return true
	case <-msg.Nacked():
		return true
	case <-session.Done():
	}
	timer := time.NewTimer(grace)
	defer timer.Stop()
	select {
	case <-msg.Acked():
		return true
	case <-msg.Nacked():
		return true
	case <-timer.C:
		return false
	}
}

// groupHandler handles the sessions of a member of a group, in the place of
// Watermill's handler: that one leaves a claim while its last message is still
// with a handler, and commits what is acked.
type groupHandler struct {
	subscriber *GroupSubscriber
	logger     *slog.Logger
	described  map[string]map[int32]description // the session's, as it began
}

// ConsumeClaim returns when the claim is over. It marks nothing as consumed in
// the session, so nothing is committed but what the owner says.
func (h *groupHandler) ConsumeClaim(session sarama.ConsumerGroupSession, from sarama.ConsumerGroupClaim) error {
	c, err := h.open(session.Context(), from)
	if c == nil {
		return err
	}
	h.subscriber.membership.opened()
	var beside sync.WaitGroup
	open, end := context.WithCancel(context.WithoutCancel(session.Context()))
	defer end()
	reading, leave := context.WithCancel(session.Context())
	defer leave()
	beside.Go(func() { h.commitWhile(open, session, c, leave) })
	beside.Go(func() { h.followEnd(open, c) })
	if !c.handOut(reading, h.subscriber.out, handlerGrace) {
		h.logger.Error("a handler holds a message of a partition that is lost", "topic", c.about.Topic, "partition", c.about.Partition, "waited", handlerGrace)
	}
	end()
	beside.Wait()
	_ = h.commit(session, c) // the owner was told
	h.subscriber.owner.Close(c.about)
	return nil
}

// commitWhile commits what the owner says, now and then, while the claim is open.
// Where the topic is another one by now, the claim must end: the reader asks for
// offsets, and may have gone on in the new log without its beginning.
func (h *groupHandler) commitWhile(open context.Context, session sarama.ConsumerGroupSession, c *claim, leave func()) {
	for sleep(open, h.subscriber.every) {
		if err := h.commit(session, c); errors.Is(err, ErrAnotherTopic) {
			h.logger.Error("the topic is not the one that was read; the partition is claimed again", "topic", c.about.Topic, "partition", c.about.Partition, "err", err)
			leave()
			return
		}
	}
}

// followEnd asks the partition's leader, now and then, where it ends: what the
// fetcher has heard of it is worth nothing once the fetcher stands still.
func (h *groupHandler) followEnd(open context.Context, c *claim) {
	for failures := 0; sleep(open, h.subscriber.every); {
		end, err := h.subscriber.end(open, c.about.Topic, c.about.Partition)
		switch {
		case open.Err() != nil:
			return
		case err == nil:
			failures = 0
			h.subscriber.owner.Ends(c.about, end)
		default:
			if failures++; failures == 1 {
				h.logger.Warn("cannot ask where a partition ends: how far behind it is, is not known", "topic", c.about.Topic, "partition", c.about.Partition, "err", err)
			}
		}
	}
}

// commitTimeout bounds a commit: also the last one, at which the session has
// ended and its generation may still be good.
const commitTimeout = 5 * time.Second

func (h *groupHandler) commit(session sarama.ConsumerGroupSession, c *claim) error {
	owner := h.subscriber.owner
	commit, due := owner.Commit(c.about)
	if !due {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(session.Context()), commitTimeout)
	defer cancel()
	err := h.subscriber.offsets.commit(ctx, session, c.about.Topic, c.id, c.about.Partition, commit)
	owner.Committed(c.about, commit, err)
	return err
}

// Setup refuses a session with a partition that must not be read: its consumer
// might not be able to begin, and the owner would never learn of it.
func (h *groupHandler) Setup(session sarama.ConsumerGroupSession) error {
	h.described = make(map[string]map[int32]description)
	for topic, partitions := range session.Claims() {
		described, err := h.subscriber.describe(session.Context(), topic, partitions...)
		if err != nil {
			return err
		}
		h.described[topic] = described
		for _, p := range partitions {
			about, refused := described[p].about, described[p].refused
			if refused != nil {
				return errors.Join(fmt.Errorf("%s/%d must not be read: %w", topic, p, refused), h.subscriber.owner.Open(session.Context(), about))
			}
			if about.Committed.Offset != oona.NoOffset && about.Start != about.Committed.Offset {
				// Only this session's consumer is told: nothing is committed.
				session.MarkOffset(topic, p, about.Start, about.Committed.Metadata)
				session.ResetOffset(topic, p, about.Start, about.Committed.Metadata)
			}
		}
	}
	h.subscriber.membership.begin(session)
	return nil
}

// Cleanup is called once all claims of a session are closed. Where another
// member has this one's instance, the subscription ends: to join again would
// fence that one, and so on.
func (h *groupHandler) Cleanup(sarama.ConsumerGroupSession) error {
	s := h.subscriber
	if s.membership.end() {
		s.ending.Go(func() {
			if err := s.inner.Close(); err != nil { // it waits for this session
				h.logger.Error("cannot leave the consumer group", "err", err)
			}
		})
	}
	return nil
}

const (
	openRetryMin = time.Second
	openRetryMax = 30 * time.Second
)

// errMoved ends a session whose commit was changed while it began.
var errMoved = errors.New("the group's commit has changed since the session began")

// open opens a claim with the owner, again and again where that fails, for as
// long as this member has the partition: to give the claim up would bring it
// straight back, with a rebalance of the whole group. It returns nil when the
// session ended first, or must end.
func (h *groupHandler) open(ctx context.Context, from sarama.ConsumerGroupClaim) (*claim, error) {
	described := h.described[from.Topic()]
	for wait := openRetryMin; ; wait = min(2*wait, openRetryMax) {
		var err error
		if described == nil { // it is tried again
			described, err = h.subscriber.describe(ctx, from.Topic(), from.Partition())
		}
		if err == nil {
			about := described[from.Partition()].about // Open refuses what is refused
			if start := from.InitialOffset(); start > about.Start {
				return nil, fmt.Errorf("%s/%d: %w", from.Topic(), from.Partition(), errMoved)
			}
			if err = h.subscriber.owner.Open(ctx, about); err == nil {
				return &claim{from, about, described[from.Partition()].id}, nil
			}
		}
		described = nil
		if ctx.Err() != nil {
			return nil, nil
		}
		if !sleep(ctx, wait) { // an owner that refuses for good says so, and ends
			return nil, nil
		}
		h.logger.Error("could not open a partition; it is not read until that succeeds, and tried again now", "topic", from.Topic(), "partition", from.Partition(), "after", wait, "err", err)
	}
}

// sleep returns false when ctx ended first.
func sleep(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// errNotHeld refuses a claim whose log does not hold the offset of its commit.
var errNotHeld = errors.New("records were deleted or lost")

// startAtCommit returns where a claim begins that goes by its commit's offset
// alone.
func startAtCommit(fromHere bool) func(context.Context, oona.Claim) (oona.Start, error) {
	return func(_ context.Context, c oona.Claim) (oona.Start, error) {
		at := c.Committed.Offset
		if at == oona.NoOffset {
			return oona.Start{From: c.LogStart}, nil
		}
		if at >= c.LogStart && at <= c.HighWater {
			return oona.Start{From: at}, nil
		}
		start := oona.Start{From: c.LogStart, Short: at > c.HighWater}
		if !fromHere {
			start.Refused = fmt.Errorf("%w: it was committed at offset %d and holds offsets %d to %d", errNotHeld, at, c.LogStart, c.HighWater)
		}
		return start, nil
	}
}

// A leader that was just elected, or deposed and does not know it, may say that
// the log ends before it does: it is asked again so often, after a pause.
const (
	endAttempts = 6
	endPause    = 500 * time.Millisecond
)

// description is what there is to know of a partition as its claim begins, and
// why it must not be read, if so.
type description struct {
	about   oona.Claim
	refused error
	id      sarama.Uuid // of the topic
}

// describe asks for all partitions together, as a rebalance waits for it.
func (s *GroupSubscriber) describe(ctx context.Context, topic string, partitions ...int32) (map[int32]description, error) {
	commits, err := s.offsets.fetch(ctx, topic, partitions...)
	if err != nil {
		return nil, err
	}
	count, err := s.offsets.count(ctx, topic)
	if err != nil {
		return nil, err
	}
	id, err := s.offsets.topicID(ctx, topic) // before the offsets: these are of it, or of a later one
	if err != nil {
		return nil, err
	}
	oldest, err := s.offsets.at(ctx, sarama.OffsetOldest, topic, partitions)
	if err != nil {
		return nil, err
	}
	claims := make([]oona.Claim, len(partitions))
	for i, p := range partitions {
		claims[i] = oona.Claim{
			ID:         fmt.Sprintf("%s-%d", s.id, s.opened.Add(1)),
			Topic:      topic,
			Partition:  p,
			Partitions: count,
			LogStart:   oldest[p],
			Committed:  commits[p],
		}
	}
	return s.begin(ctx, topic, id, claims)
}

// begin decides where claims begin. Of those whose log seems to be short the end
// is asked for again.
func (s *GroupSubscriber) begin(ctx context.Context, topic string, id sarama.Uuid, claims []oona.Claim) (map[int32]description, error) {
	described := make(map[int32]description, len(claims))
	for attempt := 1; ; attempt++ {
		partitions := make([]int32, len(claims))
		for i, c := range claims {
			partitions[i] = c.Partition
		}
		ends, err := s.offsets.at(ctx, sarama.OffsetNewest, topic, partitions)
		if err != nil {
			return nil, err
		}
		for i := range claims {
			claims[i].HighWater = ends[claims[i].Partition]
		}
		starts, err := s.starts(ctx, claims)
		if err != nil {
			return nil, err
		}
		var short []oona.Claim
		for i, c := range claims {
			c.Start = starts[i].From
			described[c.Partition] = description{c, starts[i].Refused, id}
			if starts[i].Short {
				short = append(short, c)
			}
		}
		if len(short) == 0 || attempt == endAttempts {
			return described, nil
		}
		claims = short
		if !sleep(ctx, endPause) {
			return nil, ctx.Err()
		}
		if err := s.offsets.refresh(ctx, topic); err != nil {
			return nil, err
		}
	}
}

// startsAtOnce is how many partitions are looked into at the same time.
const startsAtOnce = 16

// starts decides for each claim where it begins.
func (s *GroupSubscriber) starts(ctx context.Context, claims []oona.Claim) ([]oona.Start, error) {
	starts := make([]oona.Start, len(claims))
	deciding, ctx := errgroup.WithContext(ctx)
	deciding.SetLimit(startsAtOnce)
	for i, c := range claims {
		deciding.Go(func() (err error) {
			if starts[i], err = s.start(ctx, c); err != nil {
				return fmt.Errorf("%s/%d: %w", c.Topic, c.Partition, err)
			}
			return nil
		})
	}
	return starts, deciding.Wait()
}

// end asks where a partition ends, until ctx ends. sarama's request cannot be
// given up: it goes on until its own time is over, and Close waits for it.
func (s *GroupSubscriber) end(ctx context.Context, topic string, partition int32) (int64, error) {
	type answer struct {
		end int64
		err error
	}
	answers := make(chan answer, 1)
	s.ending.Go(func() {
		end, err := s.offsets.end(topic, partition)
		answers <- answer{end, err}
	})
	select {
	case a := <-answers:
		return a.end, a.err
	case <-ctx.Done():
		return 0, ctx.Err()
	}
}
