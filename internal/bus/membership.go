package bus

import (
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
}

// ErrNotJoined says that a member is in no generation of its group: no partition
// can be assigned to it.
var ErrNotJoined = errors.New("not a member of the consumer group now: joining, a rebalance is under way, or the group's coordinator cannot be reached")

// ErrNotOpen says that partitions were assigned that are not open yet.
var ErrNotOpen = errors.New("partitions that the consumer group has assigned are not open yet")

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

func (m *membership) end() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.session = nil
}

func (m *membership) joined() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.session == nil || m.session.Context().Err() != nil { // it ends as soon as heartbeats fail
		return ErrNotJoined
	}
	if m.open < m.assigned {
		return fmt.Errorf("%w: %d of %d", ErrNotOpen, m.assigned-m.open, m.assigned)
	}
	return nil
}
