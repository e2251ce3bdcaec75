package bus

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/IBM/sarama"
	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/morphogenetic/oona"
)

// handlerGrace is how long the end of a claim waits for the message that is in
// a handler's hands.
const handlerGrace = rebalanceTimeout

// claim is a partition that this member owns, and the message of it that is
// with a handler, of which there is at most one.
type claim struct {
	sarama.ConsumerGroupClaim
	about   oona.Claim
	revoked <-chan struct{} // closed when the session ends

	mu       sync.Mutex
	ended    bool
	inFlight *message.Message
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

// claims are the open claims of a subscriber: by id, and by partition, of which
// a claim closes before the next opens.
type claims struct {
	mu          sync.RWMutex
	open        map[string]*claim
	byPartition map[topicPartition]*claim
}

type topicPartition struct {
	topic     string
	partition int32
}

func newClaims() claims {
	return claims{open: make(map[string]*claim), byPartition: make(map[topicPartition]*claim)}
}

// Unmarshal is called by Watermill in the claim's own goroutine.
func (s *claims) Unmarshal(r *sarama.ConsumerMessage) (*message.Message, error) {
	s.mu.RLock()
	c := s.byPartition[topicPartition{r.Topic, r.Partition}]
	s.mu.RUnlock()
	if c == nil { // forward drops it
		return newMessage(r, r.Headers, ""), nil
	}
	return newMessage(r, r.Headers, c.about.ID), nil
}

func (s *claims) add(c *claim) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.open[c.about.ID] = c
	s.byPartition[topicPartition{c.about.Topic, c.about.Partition}] = c
}

func (s *claims) remove(c *claim) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.open, c.about.ID)
	if at := (topicPartition{c.about.Topic, c.about.Partition}); s.byPartition[at] == c {
		delete(s.byPartition, at)
	}
}

func (s *claims) find(id string) *claim {
	s.mu.RLock()
	defer s.mu.RUnlock()
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
	c, err := h.open(session.Context(), from)
	if c == nil {
		return err
	}
	h.subscriber.claims.add(c)
	var committing sync.WaitGroup
	stop := make(chan struct{})
	committing.Go(func() { h.commitUntil(stop, session, c) })
	err = h.ConsumerGroupHandler.ConsumeClaim(uncommitted{session}, c)
	close(stop)
	committing.Wait()
	if !c.end(handlerGrace) {
		h.logger.Error("a handler holds a message of a partition that is lost", "topic", c.about.Topic, "partition", c.about.Partition, "waited", handlerGrace)
	}
	h.commit(session, c)
	h.subscriber.claims.remove(c)
	h.subscriber.owner.Close(c.about)
	return err
}

// commitUntil commits what the owner says, now and then.
func (h *groupHandler) commitUntil(stop <-chan struct{}, session sarama.ConsumerGroupSession, c *claim) {
	ticker := time.NewTicker(h.subscriber.every)
	defer ticker.Stop()
	for {
		select {
		case <-stop:
			return
		case <-ticker.C:
			h.commit(session, c)
		}
	}
}

// commitTimeout bounds a commit: also the last one, at which the session has
// ended and its generation may still be good.
const commitTimeout = 5 * time.Second

func (h *groupHandler) commit(session sarama.ConsumerGroupSession, c *claim) {
	owner := h.subscriber.owner
	commit, due := owner.Commit(c.about, c.HighWaterMarkOffset())
	if !due {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(session.Context()), commitTimeout)
	defer cancel()
	err := h.subscriber.offsets.commit(ctx, session, c.about.Topic, c.about.Partition, commit)
	owner.Committed(c.about, commit, err)
}

// Setup refuses a session some of whose partitions no longer hold what was
// committed: the claim's consumer could not begin, and the owner would never
// hear of it.
func (h *groupHandler) Setup(session sarama.ConsumerGroupSession) error {
	for topic, partitions := range session.Claims() {
		for _, p := range partitions {
			about, err := h.subscriber.describe(session.Context(), topic, p)
			if err != nil {
				return err
			}
			if about.Committed.Offset != oona.NoOffset && about.Committed.Offset < about.LogStart {
				err := fmt.Errorf("%s/%d was committed at offset %d and begins at %d: records were deleted before they were read", topic, p, about.Committed.Offset, about.LogStart)
				return errors.Join(err, h.subscriber.owner.Open(session.Context(), about))
			}
		}
	}
	return h.ConsumerGroupHandler.Setup(session)
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
	for wait := openRetryMin; ; wait = min(2*wait, openRetryMax) {
		about, err := h.subscriber.describe(ctx, from.Topic(), from.Partition())
		if err == nil {
			about.HighWater = from.HighWaterMarkOffset() // sarama asks for it before the first fetch
			if start := from.InitialOffset(); start > about.Start {
				return nil, fmt.Errorf("%s/%d: %w", from.Topic(), from.Partition(), errMoved)
			}
			err = h.subscriber.owner.Open(ctx, about)
		}
		if err == nil {
			return &claim{ConsumerGroupClaim: from, about: about, revoked: ctx.Done()}, nil
		}
		if ctx.Err() != nil {
			return nil, nil
		}
		h.logger.Error("cannot open a partition; it is not read until that succeeds", "topic", from.Topic(), "partition", from.Partition(), "retry_in", wait, "err", err)
		if !sleep(ctx, wait) {
			return nil, nil
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

// describe says what there is to know of a partition as a claim begins, but
// for its high-water mark.
func (s *GroupSubscriber) describe(ctx context.Context, topic string, partition int32) (oona.Claim, error) {
	commit, err := s.offsets.fetch(ctx, topic, partition)
	if err != nil {
		return oona.Claim{}, err
	}
	oldest, partitions, err := s.offsets.extent(topic, partition)
	if err != nil {
		return oona.Claim{}, err
	}
	about := oona.Claim{
		ID:         fmt.Sprintf("%s-%d", s.id, s.opened.Add(1)),
		Topic:      topic,
		Partition:  partition,
		Partitions: partitions,
		LogStart:   oldest,
		Start:      oldest,
		Committed:  commit,
	}
	if commit.Offset != oona.NoOffset {
		about.Start = commit.Offset
	}
	return about, nil
}

// uncommitted is a session in which to ack a message commits nothing.
type uncommitted struct{ sarama.ConsumerGroupSession }

func (uncommitted) MarkMessage(*sarama.ConsumerMessage, string) {}
func (uncommitted) MarkOffset(string, int32, int64, string)     {}
func (uncommitted) ResetOffset(string, int32, int64, string)    {}
func (uncommitted) Commit()                                     {}
