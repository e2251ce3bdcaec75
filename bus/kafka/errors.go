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

// connect validates cfg and returns a client with the settings s, which were made from
// cfg. Errors wrap an *oona.FieldError, or bus.ErrUnreachable if no broker answers.
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
	return fmt.Errorf("%w at %s: %w", bus.ErrUnreachable, strings.Join(cfg.Brokers, ","), err)
}

// noTopic adds bus.ErrNoTopic to an error of a broker that does not know a topic.
func noTopic(err error) error {
	if errors.Is(err, sarama.ErrUnknownTopicOrPartition) {
		return fmt.Errorf("%w: %w", bus.ErrNoTopic, err)
	}
	return err
}

// publishError returns the *bus.PublishError of a call in which records have failed.
func publishError(topic string, records []*sarama.ProducerMessage, err error) error {
	var failures sarama.ProducerErrors
	if !errors.As(err, &failures) {
		return fmt.Errorf("publish %d messages to %s: %w", len(records), topic, err)
	}
	index := make(map[*sarama.ProducerMessage]int, len(records))
	for i, r := range records {
		index[r] = i
	}
	e := &bus.PublishError{Topic: topic, Messages: len(records)}
	for _, f := range failures {
		err := f.Err
		if errors.Is(err, sarama.ErrMessageSizeTooLarge) { // the limit of the topic is lower than the publisher's
			err = fmt.Errorf("%w: %w", bus.ErrTooLarge, err)
		}
		e.Failed = append(e.Failed, bus.FailedMessage{Index: index[f.Msg], Err: err})
	}
	slices.SortFunc(e.Failed, func(a, b bus.FailedMessage) int { return cmp.Compare(a.Index, b.Index) })
	return e
}
