package kafka

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/IBM/sarama"
)

// leaders keeps connections to the brokers that lead partitions. A broker answers the requests of a
// connection one after the other, so each request has a connection for itself. Afterwards the
// connection is kept for the next request.
type leaders struct {
	settings *sarama.Config

	mu   sync.Mutex
	idle map[string][]idleLeader // by address, in order of their last use
}

type idleLeader struct {
	broker *sarama.Broker
	since  time.Time
}

// longestIdle is shorter than the time after which brokers close idle connections, which
// is ten minutes (connections.max.idle.ms).
const longestIdle = 5 * time.Minute

func newLeaders(settings *sarama.Config) *leaders {
	return &leaders{settings: settings, idle: make(map[string][]idleLeader)}
}

// produce sends a request and returns the answer. It ends with ctx.
func (l *leaders) produce(ctx context.Context, address string, request *sarama.ProduceRequest) (*sarama.ProduceResponse, error) {
	broker, err := l.take(address)
	if err != nil {
		return nil, err
	}
	type answer struct {
		response *sarama.ProduceResponse
		err      error
	}
	answers := make(chan answer, 1)
	err = broker.AsyncProduce(request, func(response *sarama.ProduceResponse, err error) { answers <- answer{response, err} })
	if err == nil {
		select {
		case a := <-answers:
			if a.err == nil {
				l.give(address, broker)
				return a.response, nil
			}
			err = a.err
		case <-ctx.Done():
			err = ctx.Err()
		}
	}
	return nil, errors.Join(err, disconnect(broker))
}

// take returns a connection that is not in use.
func (l *leaders) take(address string) (*sarama.Broker, error) {
	if broker := l.reuse(address); broker != nil {
		return broker, nil
	}
	broker := sarama.NewBroker(address)
	return broker, broker.Open(l.settings) // Open only checks the settings; requests wait for the connection
}

func (l *leaders) reuse(address string) *sarama.Broker {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.expire(address)
	idle := l.idle[address]
	if len(idle) == 0 {
		return nil
	}
	last := len(idle) - 1
	l.idle[address] = idle[:last]
	return idle[last].broker
}

func (l *leaders) give(address string, broker *sarama.Broker) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.expire(address)
	l.idle[address] = append(l.idle[address], idleLeader{broker, time.Now()})
}

// expire disconnects connections that were not used for a long time.
func (l *leaders) expire(address string) {
	l.idle[address] = slices.DeleteFunc(l.idle[address], func(idle idleLeader) bool {
		if time.Since(idle.since) < longestIdle {
			return false
		}
		_ = disconnect(idle.broker) // the broker may already have closed the connection
		return true
	})
}

// close disconnects the connections that are not in use.
func (l *leaders) close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, idle := range l.idle {
		for _, each := range idle {
			_ = disconnect(each.broker) // no request is in progress, so an error does not matter
		}
	}
	l.idle = nil
}

func disconnect(broker *sarama.Broker) error {
	if err := broker.Close(); !errors.Is(err, sarama.ErrNotConnected) {
		return err
	}
	return nil
}
