package kafka

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/IBM/sarama"

	"github.com/morphogenetic/oona/bus"
)

// membership is the state of a member in its group.
type membership struct {
	mu       sync.Mutex
	session  sarama.ConsumerGroupSession // nil between sessions
	assigned int                         // number of partitions of the session
	open     int                         // number of these partitions that are read
	final    error                       // the reason why the member has ended for good
	failure  error                       // the last error of joining or reading, or nil
	failed   time.Time
}

// failureKept is for how long a denied request makes a member unready. Denied requests are repeated
// more often than that.
const failureKept = 10 * time.Second

// fail records an error of joining the group or of reading.
func (m *membership) fail(err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.failure, m.failed = err, time.Now()
}

func (m *membership) begin(session sarama.ConsumerGroupSession) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.session, m.assigned, m.open, m.failure = session, 0, 0, nil
	for _, partitions := range session.Claims() {
		m.assigned += len(partitions)
	}
}

// opened records that a partition of a session is read. All partitions end with their session.
func (m *membership) opened() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.open++
}

// refuse ends the member for good, after its session.
func (m *membership) refuse(err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.final = err
}

// end returns true if the member has ended for good.
func (m *membership) end() (final bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.session != nil && errors.Is(context.Cause(m.session.Context()), sarama.ErrFencedInstancedId) {
		m.final = bus.ErrInstance
	}
	m.session = nil
	return m.final != nil
}

func (m *membership) joined() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.final != nil {
		return m.final
	}
	if m.session == nil || m.session.Context().Err() != nil { // the context ends when heartbeats fail
		if m.failure != nil {
			return fmt.Errorf("%w: %w", bus.ErrNotJoined, m.failure)
		}
		return bus.ErrNotJoined
	}
	if errors.Is(m.failure, bus.ErrDenied) && time.Since(m.failed) < failureKept {
		return m.failure
	}
	if m.open < m.assigned {
		return fmt.Errorf("%w: %d of %d", bus.ErrNotAssigned, m.assigned-m.open, m.assigned)
	}
	return nil
}
