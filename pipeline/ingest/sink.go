package ingest

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/bus"
	"github.com/morphogenetic/oona/intake"
	"github.com/morphogenetic/oona/internal/outage"
)

// sink stores the tensors of a batch, publishes its messages and counts them. Requests and the raw
// topic share it. It knows nothing about HTTP.
type sink struct {
	cfg       Config
	intake    intake.Config // the part of cfg for frames
	publisher bus.Publisher
	logger    *slog.Logger
	warnings  throttle
	memory    *budget
	store     storeState
	counts    *frameMetrics
	judge     *judge

	eventTopics eventTopics
}

func newSink(cfg Config, publisher bus.Publisher, registerer prometheus.Registerer, logger *slog.Logger) (*sink, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("ingest: %w", err)
	}
	if cfg.Topic == "" {
		return nil, fmt.Errorf("ingest: %w", &oona.FieldError{Field: "topic", Reason: "is empty; give the topic of frames"})
	}
	s := &sink{
		cfg:       cfg,
		intake:    cfg.intake(),
		publisher: publisher,
		logger:    logger,
		warnings:  throttle{every: 10 * time.Second, kinds: make(map[string]*throttled)},
		memory:    newBudget(cfg.MaxMemoryBytes),
		store:     storeState{failed: make(chan struct{}, 1)},
		counts:    newFrameMetrics(),
		judge:     new(judge),

		eventTopics: eventTopics{unusable: make(map[string]*outage.Outage)},
	}
	c := s.counts
	err := register(registerer, infoGauge(cfg.Instance), c.framesTotal, c.eventsTotal, c.readingsTotal, c.bytesTotal, c.unconfirmedTotal, c.tensorsTotal, c.tensorBytesTotal, c.aside, s.judge.limitsGauge())
	if err == nil && cfg.Tensors != nil {
		err = registerer.Register(s.store.gauge())
	}
	if err != nil {
		return nil, fmt.Errorf("ingest: register metrics: %w", err)
	}
	return s, nil
}

// belowLimit is the warning that the topic has a lower size limit than ingest.
const belowLimit = "the bus refuses a record or a batch that is smaller than --max-message-bytes; set --max-message-bytes of ingest to max.message.bytes of the topic"

// publishTo publishes messages together, or one by one if the batch is too large. It returns a
// *tooLargeError if single messages are too large, and an *eventTopicError if nothing can be
// published to a topic of events.
func (s *sink) publishTo(ctx context.Context, topic string, messages []*message.Message) error {
	err := s.publishOnce(ctx, topic, messages...)
	if !errors.Is(err, bus.ErrTooLarge) {
		return err
	}
	s.warn(belowLimit, "topic", topic, "limit", s.cfg.MaxMessageBytes, "err", err)
	refused := &tooLargeError{of: len(messages)}
	if topic != s.cfg.Topic {
		refused.topic = topic
	}
	for i, m := range messages {
		err := s.publishOnce(ctx, topic, m)
		switch {
		case errors.Is(err, bus.ErrTooLarge):
			refused.which, refused.why = append(refused.which, i), err
		case err != nil:
			return err
		}
	}
	if len(refused.which) > 0 {
		return refused
	}
	return nil
}

// publishOnce publishes messages in one call. It returns an *eventTopicError if nothing can be
// published to a topic of events.
func (s *sink) publishOnce(ctx context.Context, topic string, messages ...*message.Message) error {
	err := s.publisher.Publish(ctx, topic, messages...)
	if topic == s.cfg.Topic {
		return err
	}
	if errors.Is(err, bus.ErrNoTopic) || errors.Is(err, bus.ErrDenied) {
		if skipped, say := s.eventTopics.fails(topic, err, time.Now()); say {
			text := noEventTopic
			if s.foreign(topic) {
				text = noForeignTopic
			}
			s.logger.Warn(text, "topic", topic, "err", err, "suppressed", skipped)
		}
		return &eventTopicError{topic, err, s.foreign(topic)}
	}
	if err == nil && s.eventTopics.works(topic) {
		s.logger.Info("the topic can be published to now", "topic", topic)
	}
	return err
}

// tooLargeError lists the messages to a topic that the bus will never accept. It has accepted the
// others.
type tooLargeError struct {
	topic string // the topic, if the messages are events; empty if they are frames
	which []int  // indexes of these messages among those to this topic
	of    int
	why   error
}

func (e *tooLargeError) Error() string {
	if e.topic != "" {
		return fmt.Sprintf("the bus refused %d of the %d events for the topic %s because they are too large, and accepted the other %d; send a shorter reason and less evidence, or ask the operator to raise max.message.bytes of the topic (%v)",
			len(e.which), e.of, e.topic, e.of-len(e.which), e.why)
	}
	return fmt.Sprintf("the bus refused %d of the %d frames because they are too large (the first is frame %d), and accepted the other %d; split the refused frames by seed ids (%v)",
		len(e.which), e.of, e.which[0], e.of-len(e.which), e.why)
}

// first returns the index in a batch of events of the first event that is too large.
func (e *tooLargeError) first(b *intake.Batch) int {
	before := e.which[0] // the number of earlier events for this topic
	for i, topic := range b.Topics {
		if topic != e.topic {
			continue
		}
		if before == 0 {
			return i
		}
		before--
	}
	return 0 // not reached: the batch has the event
}

// warn logs each text at most once in ten seconds. The text must be a constant. The variable parts
// belong in args.
func (s *sink) warn(text string, args ...any) {
	if skipped, ok := s.warnings.allow(text, time.Now()); ok {
		s.logger.Warn(text, append(args, "suppressed", skipped)...)
	}
}
