package kafka

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/IBM/sarama"
)

// membership is where a member stands in its group.
type membership struct {
	mu       sync.Mutex
	session  sarama.ConsumerGroupSession // nil: in none
	assigned int                         // partitions, in this session
	open     int                         // of them
	fenced   bool                        // for good
}

// ErrNotJoined says that a member is in no generation of its group: no partition
// can be assigned to it.
var ErrNotJoined = errors.New("not a member of the consumer group now: joining, a rebalance is under way, or the group's coordinator cannot be reached")

// ErrNotOpen says that partitions were assigned that are not open yet.
var ErrNotOpen = errors.New("partitions that the consumer group has assigned are not open yet")

// ErrInstance says that another member has joined the group under this one's
// instance: it has the partitions now, and this one does not join again.
var ErrInstance = errors.New("another worker has joined the consumer group with the same --group-instance; give each its own")

func (m *membership) begin(session sarama.ConsumerGroupSession) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.session, m.assigned, m.open = session, 0, 0
	for _, partitions := range session.Claims() {
		m.assigned += len(partitions)
	}
}

// opened is called for each claim of a session. Claims end with their session.
func (m *membership) opened() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.open++
}

// end returns true where the session has ended because of ErrInstance.
func (m *membership) end() (fenced bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.session != nil && errors.Is(context.Cause(m.session.Context()), sarama.ErrFencedInstancedId) {
		m.fenced = true
	}
	m.session = nil
	return m.fenced
}

func (m *membership) joined() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.fenced {
		return ErrInstance
	}
	if m.session == nil || m.session.Context().Err() != nil { // it ends as soon as heartbeats fail
		return ErrNotJoined
	}
	if m.open < m.assigned {
		return fmt.Errorf("%w: %d of %d", ErrNotOpen, m.assigned-m.open, m.assigned)
	}
	return nil
}
