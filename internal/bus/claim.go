package bus

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/IBM/sarama"
	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/morphogenetic/oona"
)

// claimHeader carries a claim's id from the claim to the unmarshaler, as the
// last header of a record. What a record brought along stands before it.
const claimHeader = oona.MetaClaim

// handlerGrace is how long the end of a claim waits for the message that is in
// a handler's hands.
const handlerGrace = rebalanceTimeout

// claim is a partition that this member owns, and the message of it that is
// with a handler, of which there is at most one.
type claim struct {
	sarama.ConsumerGroupClaim
	about    oona.Claim
	messages chan *sarama.ConsumerMessage
	revoked  <-chan struct{} // closed when the session ends

	mu       sync.Mutex
	ended    bool
	inFlight *message.Message
}

func (c *claim) Messages() <-chan *sarama.ConsumerMessage { return c.messages }

// stamp hands on the records of the partition with the claim's id, until the
// session ends.
func (c *claim) stamp() {
	defer close(c.messages)
	header := &sarama.RecordHeader{Key: []byte(claimHeader), Value: []byte(c.about.ID)}
	for r := range c.ConsumerGroupClaim.Messages() {
		r.Headers = append(r.Headers, header)
		select {
		case c.messages <- r:
		case <-c.revoked:
			return
		}
	}
}

// begin notes that a message goes to a handler. It returns false when the
// claim is over, and the message is the next owner's.
func (c *claim) begin(msg *message.Message) bool {
	select {
	case <-c.revoked:
		return false
	default:
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ended {
		return false
	}
	c.inFlight = msg
	return true
}

// end lets no further message begin, and waits until the handler is done with
// the last one. It returns false when the handler kept it for too long.
func (c *claim) end(grace time.Duration) bool {
	c.mu.Lock()
	c.ended = true
	msg := c.inFlight
	c.mu.Unlock()
	if msg == nil {
		return true
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

// claims are the open claims of a subscriber, by id.
type claims struct {
	mu   sync.Mutex
	open map[string]*claim
}

func (s *claims) add(c *claim) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.open[c.about.ID] = c
}

func (s *claims) remove(c *claim) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.open, c.about.ID)
}

func (s *claims) find(id string) *claim {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.open[id]
}

// forward hands messages to the handlers and keeps account of them, until in is
// closed. A message that is not handed out is acknowledged to Watermill, which
// then lets go of the claim; it says nothing to the bus, as nothing is
// committed.
func (s *claims) forward(in <-chan *message.Message, out chan<- *message.Message) {
	defer close(out)
	for msg := range in {
		c := s.find(msg.Metadata[oona.MetaClaim])
		if c == nil || !c.begin(msg) {
			msg.Ack()
			continue
		}
		select {
		case out <- msg:
		case <-c.revoked:
			msg.Ack()
		case <-msg.Context().Done(): // Watermill has closed
			msg.Ack()
		}
	}
}

// groupHandler is Watermill's handler of a session, between Open and Close of
// the owner.
type groupHandler struct {
	sarama.ConsumerGroupHandler
	subscriber *GroupSubscriber
	logger     *slog.Logger
}

// ConsumeClaim returns when the claim is over.
func (h *groupHandler) ConsumeClaim(session sarama.ConsumerGroupSession, from sarama.ConsumerGroupClaim) error {
	c := h.open(session.Context(), from)
	if c == nil {
		return nil
	}
	h.subscriber.claims.add(c)
	var stamping sync.WaitGroup
	stamping.Go(c.stamp)
	err := h.ConsumerGroupHandler.ConsumeClaim(uncommitted{session}, c)
	if !c.end(handlerGrace) {
		h.logger.Error("a handler holds a message of a partition that is lost", "topic", c.about.Topic, "partition", c.about.Partition, "waited", handlerGrace)
	}
	h.subscriber.claims.remove(c)
	h.subscriber.owner.Close(c.about)
	return err
}

const (
	openRetryMin = time.Second
	openRetryMax = 30 * time.Second
)

// open opens a claim with the owner, again and again where that fails, for as
// long as this member has the partition: to give the claim up would bring it
// straight back, with a rebalance of the whole group. It returns nil when the
// session ended first.
func (h *groupHandler) open(ctx context.Context, from sarama.ConsumerGroupClaim) *claim {
	for wait := openRetryMin; ; wait = min(2*wait, openRetryMax) {
		opened, err := h.subscriber.describe(ctx, from)
		if err == nil {
			err = h.subscriber.owner.Open(ctx, opened)
		}
		if err == nil {
			return &claim{ConsumerGroupClaim: from, about: opened, messages: make(chan *sarama.ConsumerMessage), revoked: ctx.Done()}
		}
		if ctx.Err() != nil {
			return nil
		}
		h.logger.Error("cannot open a partition; it is not read until that succeeds", "topic", from.Topic(), "partition", from.Partition(), "retry_in", wait, "err", err)
		if !sleep(ctx, wait) {
			return nil
		}
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

// describe says where a claim begins and where its log ends now.
func (s *GroupSubscriber) describe(ctx context.Context, from sarama.ConsumerGroupClaim) (oona.Claim, error) {
	start := from.InitialOffset()
	if start < 0 { // "the oldest", as nothing is committed
		var err error
		if start, err = s.oldest(ctx, from.Topic(), from.Partition()); err != nil {
			return oona.Claim{}, err
		}
	}
	return oona.Claim{
		ID:        fmt.Sprintf("%s-%d", s.id, s.opened.Add(1)),
		Topic:     from.Topic(),
		Partition: from.Partition(),
		Start:     start,
		HighWater: from.HighWaterMarkOffset(), // sarama asks for it before the first fetch
	}, nil
}

// uncommitted is a session that commits nothing.
type uncommitted struct{ sarama.ConsumerGroupSession }

func (uncommitted) MarkMessage(*sarama.ConsumerMessage, string) {}
func (uncommitted) MarkOffset(string, int32, int64, string)     {}
func (uncommitted) ResetOffset(string, int32, int64, string)    {}
func (uncommitted) Commit()                                     {}
