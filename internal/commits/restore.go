package commits

import (
	"context"
	"errors"
	"fmt"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/bus"
	"github.com/morphogenetic/oona/internal/settings"
	"github.com/morphogenetic/oona/pipeline/aggregate"
	"github.com/morphogenetic/oona/windows"
)

// Change describes what a restore changes in one partition.
type Change struct {
	Partition int32
	Was       bus.Commit // the present commit; its offset is bus.NoOffset if there is none
	Is        bus.Commit // the commit in the file
	// Refused is the reason why the commit cannot be restored, or nil.
	Refused error
}

// None reports whether the group already has this commit.
func (c Change) None() bool { return c.Was == c.Is }

// The errors in Change.Refused wrap one of these reasons.
var (
	// ErrTopic means that the commits in the file are of another topic.
	ErrTopic = errors.New("the file has commits of another topic")
	// ErrPartition means that the topic does not have the partition.
	ErrPartition = errors.New("the topic has no such partition")
	// ErrOutside means that the log does not have the offset of the commit.
	ErrOutside = errors.New("the log does not hold the offset of the commit")
)

// Plan returns the changes that a restore of the file would make to a group. A commit of the topic
// of frames is refused if an aggregator would refuse it.
func (f File) Plan(ctx context.Context, b bus.Bus, topics oona.Topics, group, topic string) ([]Change, error) {
	if f.Topic != topic {
		return nil, fmt.Errorf("%w: %s, and the commits of %s are to be restored; give --prefix or --topic", ErrTopic, f.Topic, topic)
	}
	held, err := b.Commits(ctx, group, topic)
	if err != nil {
		return nil, err
	}
	extents, err := b.Extents(ctx, topic)
	if err != nil {
		return nil, err
	}
	var changes []Change
	for _, p := range f.Partitions {
		c := Change{Partition: p.Partition, Was: bus.Commit{Offset: bus.NoOffset}, Is: bus.Commit{Offset: p.Offset, Metadata: p.Metadata}}
		if int(p.Partition) >= len(held) {
			c.Refused = fmt.Errorf("%w: the number of partitions of %s is %d", ErrPartition, topic, len(held))
			changes = append(changes, c)
			continue
		}
		c.Was = held[p.Partition]
		extent := extents[topic][p.Partition]
		a := bus.Assignment{
			Topic: topic, Partition: p.Partition, Partitions: int32(len(held)),
			LogStart: extent.Start, LogEnd: extent.End, Settled: true, Committed: c.Is,
		}
		if c.Refused, err = refusal(ctx, a, b, topics); err != nil {
			return nil, err
		}
		changes = append(changes, c)
	}
	return changes, nil
}

// refusal returns the reason why an aggregator could not start with the assignment, or nil.
func refusal(ctx context.Context, a bus.Assignment, b bus.Bus, topics oona.Topics) (refused, err error) {
	if a.Topic != topics.SeedMetrics {
		if _, held := a.Resume(); !held {
			return fmt.Errorf("%w: it has %d to %d", ErrOutside, a.LogStart, a.LogEnd), nil
		}
		return nil, nil
	}
	past, err := aggregate.PastOf(ctx, a, settings.Log{Bus: b, Topics: topics})
	if err == nil {
		return past.Lost, nil
	}
	for _, of := range []error{aggregate.ErrCommitText, aggregate.ErrPartitions, windows.ErrCommit} {
		if errors.Is(err, of) {
			return err, nil
		}
	}
	return nil, err
}

// Restore writes the commits of changes that are not refused. The error wraps
// bus.ErrHasMembers if the group has members.
func Restore(ctx context.Context, b bus.Bus, group, topic string, changes []Change) error {
	restored := make(map[int32]bus.Commit)
	for _, c := range changes {
		if c.Refused == nil && !c.None() {
			restored[c.Partition] = c.Is
		}
	}
	if len(restored) == 0 {
		return nil
	}
	return b.SetCommits(ctx, group, topic, restored)
}
