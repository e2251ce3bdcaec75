package kafka

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/IBM/sarama"

	"github.com/morphogenetic/oona/bus"
)

// connect checks cfg and connects with s, which is made of it. Its errors wrap
// an *oona.FieldError, or bus.ErrUnreachable when no broker answers.
func connect(cfg Config, s *sarama.Config) (sarama.Client, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("bus: %w", err)
	}
	client, err := sarama.NewClient(cfg.Brokers, s)
	if err != nil {
		return nil, unreachable(cfg, err)
	}
	return client, nil
}

func unreachable(cfg Config, err error) error {
	return fmt.Errorf("%w at %s; is it running, and are --brokers right? (%w)", bus.ErrUnreachable, strings.Join(cfg.Brokers, ","), err)
}

// OversizeError says that a message is larger than the topic takes. None of
// the call's messages was sent.
type OversizeError struct {
	Topic string
	Index int // of the message in the call
	Bytes int // as a record in a batch of its own
	Limit int
}

func (e *OversizeError) Error() string {
	return fmt.Sprintf("message %d for %s takes %d bytes as a record, more than the limit of %d (the topic's max.message.bytes)", e.Index, e.Topic, e.Bytes, e.Limit)
}

// Is reports whether target is bus.ErrTooLarge.
func (e *OversizeError) Is(target error) bool { return target == bus.ErrTooLarge }

// PublishError says which messages of a call were not acknowledged. They may
// have been written nevertheless; all others are on the bus.
type PublishError struct {
	Topic    string
	Messages int // of the call
	Failed   []FailedMessage
}

// FailedMessage is a message that was not acknowledged.
type FailedMessage struct {
	Index int // in the call
	Err   error
}

func (e *PublishError) Error() string {
	return fmt.Sprintf("%d of %d messages for %s were not acknowledged: %v", len(e.Failed), e.Messages, e.Topic, e.Failed[0].Err)
}

// Unwrap returns the causes, each once.
func (e *PublishError) Unwrap() []error {
	var causes []error
	seen := make(map[string]bool)
	for _, f := range e.Failed {
		if text := f.Err.Error(); !seen[text] {
			seen[text] = true
			causes = append(causes, f.Err)
		}
	}
	return causes
}

// Is reports whether target is bus.ErrTooLarge and the broker takes less than the
// publisher was told.
func (e *PublishError) Is(target error) bool {
	return target == bus.ErrTooLarge && errors.Is(e, sarama.ErrMessageSizeTooLarge)
}

func publishError(topic string, records []*sarama.ProducerMessage, err error) error {
	var failures sarama.ProducerErrors
	if !errors.As(err, &failures) {
		return fmt.Errorf("publish %d messages to %s: %w", len(records), topic, err)
	}
	index := make(map[*sarama.ProducerMessage]int, len(records))
	for i, r := range records {
		index[r] = i
	}
	e := &PublishError{Topic: topic, Messages: len(records)}
	for _, f := range failures {
		e.Failed = append(e.Failed, FailedMessage{index[f.Msg], f.Err})
	}
	slices.SortFunc(e.Failed, func(a, b FailedMessage) int { return cmp.Compare(a.Index, b.Index) })
	return e
}
