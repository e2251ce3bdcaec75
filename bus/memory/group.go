package memory

import (
	"context"
	"fmt"
	"slices"

	"github.com/morphogenetic/oona/bus"
)

// maxMetadata is the limit of a commit's metadata, in bytes.
const maxMetadata = 4096

// groupKey identifies the members of a group that read one topic.
type groupKey struct{ group, topic string }

// group is a group on a topic. It is guarded by Bus.mu.
type group struct {
	commits    map[int32]bus.Commit
	members    []*Member // in the order of joining
	waiting    map[*Member]chan *session
	generation int
}

// session is a member's part of a generation.
type session struct {
	context.Context
	end        context.CancelFunc
	generation int
	partitions []int32
}

func (b *Bus) group(name, topic string) *group {
	key := groupKey{name, topic}
	g := b.groups[key]
	if g == nil {
		g = &group{commits: make(map[int32]bus.Commit), waiting: make(map[*Member]chan *session)}
		b.groups[key] = g
	}
	return g
}

func (g *group) committed(partition int32) bus.Commit {
	if c, found := g.commits[partition]; found {
		return c
	}
	return bus.Commit{Offset: bus.NoOffset}
}

// join waits for the next generation of the group, which begins when all its members wait
// for it. It returns nil if ctx ends first or the member is fenced.
func (m *Member) join(ctx context.Context) *session {
	m.bus.mu.Lock()
	g, next := m.group(), make(chan *session, 1)
	if m.fenced || ctx.Err() != nil {
		m.bus.mu.Unlock()
		return nil
	}
	if !slices.Contains(g.members, m) {
		g.fence(m)
		g.members = append(g.members, m)
		g.rebalance()
	}
	g.waiting[m] = next
	g.advance(m.bus)
	m.bus.mu.Unlock()
	select {
	case s := <-next: // nil if fenced
		return s
	case <-ctx.Done():
		return nil
	}
}

// leave removes the member from its group.
func (m *Member) leave() {
	m.bus.mu.Lock()
	defer m.bus.mu.Unlock()
	m.session = nil
	m.group().remove(m, m.bus)
}

// fence removes the member with the instance of another one that joins.
func (g *group) fence(by *Member) {
	for _, m := range slices.Clone(g.members) {
		if m.opts.Instance != "" && m.opts.Instance == by.opts.Instance {
			m.fenced = true
			if next := g.waiting[m]; next != nil {
				next <- nil
			}
			if m.session != nil {
				m.session.end()
			}
			delete(g.waiting, m)
			g.members = slices.DeleteFunc(g.members, func(other *Member) bool { return other == m })
		}
	}
}

// remove removes a member from the group, and begins another generation with the others.
func (g *group) remove(m *Member, b *Bus) {
	i := slices.Index(g.members, m)
	if i < 0 {
		return
	}
	delete(g.waiting, m)
	g.members = slices.Delete(g.members, i, i+1)
	g.rebalance()
	g.advance(b)
}

// rebalance ends the sessions of all members.
func (g *group) rebalance() {
	for _, m := range g.members {
		if m.session != nil {
			m.session.end()
		}
	}
}

// advance begins a generation if all members wait for it. Each member gets consecutive
// partitions.
func (g *group) advance(b *Bus) {
	if len(g.waiting) < len(g.members) || len(g.members) == 0 {
		return
	}
	g.generation++
	partitions := 0
	if t := b.topics[g.members[0].topic]; t != nil {
		partitions = len(t.partitions)
	}
	next := 0
	for i, m := range g.members {
		s := &session{generation: g.generation}
		s.Context, s.end = context.WithCancel(m.running)
		for range (partitions + len(g.members) - 1 - i) / len(g.members) {
			s.partitions = append(s.partitions, int32(next))
			next++
		}
		m.session, m.open = s, 0
		g.waiting[m] <- s
		delete(g.waiting, m)
	}
}

// commit keeps a commit if the session belongs to the present generation.
func (m *Member) commit(s *session, partition int32, of *log, c bus.Commit) error {
	m.bus.mu.Lock()
	defer m.bus.mu.Unlock()
	g := m.group()
	is, err := m.bus.partition(m.topic, partition)
	switch {
	case err != nil:
		return fmt.Errorf("commit offset %d: %w", c.Offset, err)
	case is != of:
		return fmt.Errorf("commit offset %d of %s/%d: %w", c.Offset, m.topic, partition, bus.ErrAnotherTopic)
	case s.generation != g.generation || !slices.Contains(g.members, m):
		return fmt.Errorf("commit offset %d of %s/%d: %w", c.Offset, m.topic, partition, bus.ErrFenced)
	case len(c.Metadata) > maxMetadata:
		return fmt.Errorf("commit offset %d of %s/%d: its metadata have %d bytes, more than %d", c.Offset, m.topic, partition, len(c.Metadata), maxMetadata)
	}
	if m.bus.refuseCommit != nil {
		if err := m.bus.refuseCommit(m.topic, partition); err != nil {
			return fmt.Errorf("commit offset %d of %s/%d: %w", c.Offset, m.topic, partition, err)
		}
	}
	g.commits[partition] = c
	return nil
}

// Expel removes the member from its group, like a member that has not answered for too
// long. The member does not know it and keeps its partitions, which the others get, too,
// until Notice. A member that waits for the next generation stays: it would be told so
// instead of getting partitions, and join again.
func (m *Member) Expel() {
	m.bus.mu.Lock()
	defer m.bus.mu.Unlock()
	if g := m.group(); g.waiting[m] == nil {
		g.remove(m, m.bus)
	}
}

// Notice tells a member that it was expelled. It joins again.
func (m *Member) Notice() {
	m.bus.mu.Lock()
	defer m.bus.mu.Unlock()
	if m.session != nil {
		m.session.end()
	}
}
