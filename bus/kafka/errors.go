package kafka

import (
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
	if _, err := cfg.identity(); err != nil {
		return nil, fmt.Errorf("bus: %w", err)
	}
	client, err := sarama.NewClient(cfg.Brokers, s)
	if err != nil {
		if refusal := cfg.refusal(err); refusal != nil {
			return nil, refusal
		}
		return nil, unreachable(cfg, err)
	}
	return client, nil
}

// unreachable returns the error of a client that could not be made. A broker that refuses
// the connection is not unreachable.
func unreachable(cfg Config, err error) error {
	if err = refusedAccess(err); errors.Is(err, bus.ErrUntrusted) || errors.Is(err, bus.ErrCredentials) || errors.Is(err, bus.ErrDenied) {
		if cause := errors.Unwrap(err); cause != nil && errors.Is(err, sarama.ErrOutOfBrokers) && errors.Is(cause, bus.ErrUntrusted) {
			return cause // without sarama's text that there are no more brokers
		}
		return err
	}
	return fmt.Errorf("%w at %s: %w", bus.ErrUnreachable, strings.Join(cfg.Brokers, ","), err)
}

// noTopic adds bus.ErrNoTopic to an error of a broker that does not know a topic.
func noTopic(err error) error {
	if errors.Is(err, sarama.ErrUnknownTopicOrPartition) {
		return fmt.Errorf("%w: %w", bus.ErrNoTopic, err)
	}
	return err
}

// passing lists the errors of brokers after which another attempt may succeed.
var passing = []sarama.KError{
	sarama.ErrInvalidMessage, // the checksum is wrong: the batch was damaged on its way
	sarama.ErrUnknownTopicOrPartition, sarama.ErrLeaderNotAvailable, sarama.ErrNotLeaderForPartition,
	sarama.ErrRequestTimedOut, sarama.ErrBrokerNotAvailable, sarama.ErrReplicaNotAvailable, sarama.ErrNetworkException,
	sarama.ErrNotEnoughReplicas, sarama.ErrNotEnoughReplicasAfterAppend, sarama.ErrKafkaStorageError,
	sarama.ErrFencedLeaderEpoch, sarama.ErrUnknownLeaderEpoch, sarama.ErrOffsetNotAvailable,
	sarama.ErrSASLAuthenticationFailed, // the file of the password may be about to change
	sarama.ErrNotCoordinatorForConsumer, sarama.ErrConsumerCoordinatorNotAvailable, sarama.ErrOffsetsLoadInProgress,
}

// passes returns true if another attempt may succeed. An error that is not an answer of a broker
// comes from a broken connection, so it also returns true for that.
func passes(err error) bool {
	if errors.Is(err, sarama.ErrClosedClient) || errors.Is(err, bus.ErrAnotherTopic) {
		return false
	}
	answer, answered := errors.AsType[sarama.KError](err)
	return !answered || slices.Contains(passing, answer)
}
