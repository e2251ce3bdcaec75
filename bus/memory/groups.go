package memory

import (
	"cmp"
	"context"
	"fmt"
	"slices"

	"github.com/morphogenetic/oona/bus"
)

// Members implements bus.Groups. Members have no ID, client and host.
func (b *Bus) Members(_ context.Context, name string) (all []bus.GroupMember, _ error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, m := range b.group(name).members {
		shown := bus.GroupMember{Instance: m.opts.Instance}
		if m.session != nil && len(m.session.partitions) > 0 {
			shown.Partitions = map[string][]int32{m.topic: slices.Clone(m.session.partitions)}
		}
		all = append(all, shown)
	}
	slices.SortFunc(all, func(a, b bus.GroupMember) int { return cmp.Compare(a.Instance, b.Instance) })
	return all, nil
}

// SetCommits implements bus.Groups.
func (b *Bus) SetCommits(_ context.Context, name, topic string, commits map[int32]bus.Commit) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	g := b.group(name)
	if len(g.members) > 0 {
		return fmt.Errorf("set the commits of group %s: %w", name, bus.ErrHasMembers)
	}
	for partition, c := range commits {
		if _, err := b.partition(topic, partition); err != nil {
			return fmt.Errorf("set the commits of group %s: %w", name, err)
		}
		if len(c.Metadata) > maxMetadata {
			return fmt.Errorf("set the commit of %s/%d: its metadata have %d bytes, more than %d", topic, partition, len(c.Metadata), maxMetadata)
		}
	}
	for partition, c := range commits {
		g.commits[place{topic, partition}] = c
	}
	return nil
}

// RemoveMember implements bus.Groups.
func (b *Bus) RemoveMember(_ context.Context, name, instance string) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	g := b.group(name)
	i := slices.IndexFunc(g.members, func(m *Member) bool { return m.opts.Instance == instance })
	if i < 0 || instance == "" {
		return fmt.Errorf("remove member %s of group %s: %w", instance, name, bus.ErrNoMember)
	}
	if m := g.members[i]; g.waiting[m] == nil { // otherwise it is joining
		if m.session != nil {
			m.session.end()
		}
		g.remove(m, b)
	}
	return nil
}
