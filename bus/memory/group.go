package memory

import (
	"context"
	"fmt"
	"slices"

	"github.com/morphogenetic/oona/bus"
)

// maxMetadata is the limit of a commit's metadata, in bytes.
const maxMetadata = 4096

// place is a partition of a topic.
type place struct {
	topic     string
	partition int32
}

// group is a group, whose members may read several topics. It is guarded by Bus.mu.
type group struct {
	commits    map[place]bus.Commit
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

func (b *Bus) group(name string) *group {
	g := b.groups[name]
	if g == nil {
		g = &group{commits: make(map[place]bus.Commit), waiting: make(map[*Member]chan *session)}
		b.groups[name] = g
	}
	return g
}

func (g *group) committed(of place) bus.Commit {
	if c, found := g.commits[of]; found {
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

// advance begins a generation if all members wait for it. The members that read a topic
// get consecutive partitions of it.
func (g *group) advance(b *Bus) {
	if len(g.waiting) < len(g.members) || len(g.members) == 0 {
		return
	}
	g.generation++
	readers := make(map[string][]*Member)
	for _, m := range g.members {
		readers[m.topic] = append(readers[m.topic], m)
	}
	for topic, members := range readers {
		partitions := 0
		if t := b.topics[topic]; t != nil {
			partitions = len(t.partitions)
		}
		next := 0
		for i, m := range members {
			share := (partitions + len(members) - 1 - i) / len(members)
			m.begin(g, next, share)
			next += share
		}
	}
}

// begin gives a member its part of a generation: n partitions from first on.
func (m *Member) begin(g *group, first, n int) {
	s := &session{generation: g.generation}
	s.Context, s.end = context.WithCancel(m.running)
	for p := range n {
		s.partitions = append(s.partitions, int32(first+p))
	}
	m.session, m.open = s, 0
	g.waiting[m] <- s
	delete(g.waiting, m)
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
	g.commits[place{m.topic, partition}] = c
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
