package kafka

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/IBM/sarama"

	"github.com/morphogenetic/oona/bus"
)

// Members implements bus.Groups.
func (b *Bus) Members(ctx context.Context, group string) (_ []bus.GroupMember, err error) {
	of := &offsets{cfg: b.cfg, group: group}
	defer func() { err = errors.Join(err, of.close()) }()
	var members []bus.GroupMember
	err = of.ask(ctx, func(coordinator *sarama.Broker) error {
		request := &sarama.DescribeGroupsRequest{Version: 4, Groups: []string{group}} // the first version with instances
		response, err := coordinator.DescribeGroups(request)
		if err != nil {
			return err
		}
		if len(response.Groups) != 1 {
			return sarama.ErrIncompleteResponse
		}
		described := response.Groups[0]
		if described.Err != sarama.ErrNoError {
			return described.Err
		}
		members, err = membersOf(described)
		return err
	})
	if errors.Is(err, sarama.ErrGroupIDNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("look at the members of group %s: %w", group, err)
	}
	return members, nil
}

func membersOf(g *sarama.GroupDescription) (all []bus.GroupMember, err error) {
	for id, m := range g.Members {
		member := bus.GroupMember{ID: id, Client: m.ClientId, Host: m.ClientHost}
		if m.GroupInstanceId != nil {
			member.Instance = *m.GroupInstanceId
		}
		if len(m.MemberAssignment) > 0 { // it is empty during a rebalance
			assigned, err := m.GetMemberAssignment()
			if err != nil {
				return nil, fmt.Errorf("decode which partitions member %s has: %w", id, err)
			}
			member.Partitions = assigned.Topics
		}
		for _, partitions := range member.Partitions {
			slices.Sort(partitions)
		}
		all = append(all, member)
	}
	slices.SortFunc(all, func(a, b bus.GroupMember) int {
		return cmp.Or(cmp.Compare(a.Instance, b.Instance), cmp.Compare(a.ID, b.ID))
	})
	return all, nil
}

// SetCommits implements bus.Groups. It reads the commits back.
func (b *Bus) SetCommits(ctx context.Context, group, topic string, commits map[int32]bus.Commit) (err error) {
	of := &offsets{cfg: b.cfg, group: group}
	defer func() { err = errors.Join(err, of.close()) }()
	err = of.ask(ctx, func(coordinator *sarama.Broker) error {
		request := sarama.NewOffsetCommitRequest(b.cfg.client(), group)
		request.ConsumerGroupGeneration = sarama.GroupGenerationUndefined
		for partition, c := range commits {
			request.AddBlockWithLeaderEpoch(topic, partition, c.Offset, -1, sarama.ReceiveTime, c.Metadata)
		}
		response, err := coordinator.CommitOffset(request)
		if err != nil {
			return err
		}
		for partition := range commits {
			answer, answered := response.Errors[topic][partition]
			if !answered {
				return sarama.ErrIncompleteResponse
			}
			if answer != sarama.ErrNoError {
				return fmt.Errorf("partition %d: %w", partition, answer)
			}
		}
		return nil
	})
	// A group with members refuses commits that do not come from a member.
	if errors.Is(err, sarama.ErrUnknownMemberId) || errors.Is(err, sarama.ErrIllegalGeneration) || errors.Is(err, sarama.ErrRebalanceInProgress) {
		err = fmt.Errorf("%w: %w", bus.ErrHasMembers, err)
	}
	if err != nil {
		return fmt.Errorf("set the commits of group %s on %s: %w", group, topic, noTopic(err))
	}
	for partition, c := range commits {
		if err := of.readBack(ctx, topic, partition, c); err != nil {
			return err
		}
	}
	return nil
}

// RemoveMember implements bus.Groups.
func (b *Bus) RemoveMember(ctx context.Context, group, instance string) (err error) {
	of := &offsets{cfg: b.cfg, group: group}
	defer func() { err = errors.Join(err, of.close()) }()
	err = of.ask(ctx, func(coordinator *sarama.Broker) error {
		request := &sarama.LeaveGroupRequest{Version: 3, GroupId: group, Members: []sarama.MemberIdentity{{GroupInstanceId: &instance}}}
		response, err := coordinator.LeaveGroup(request)
		switch {
		case err != nil:
			return err
		case response.Err != sarama.ErrNoError:
			return response.Err
		case len(response.Members) != 1:
			return sarama.ErrIncompleteResponse
		case response.Members[0].Err != sarama.ErrNoError:
			return response.Members[0].Err
		}
		return nil
	})
	if errors.Is(err, sarama.ErrUnknownMemberId) || errors.Is(err, sarama.ErrGroupIDNotFound) {
		err = fmt.Errorf("%w: %w", bus.ErrNoMember, err)
	}
	if err != nil {
		return fmt.Errorf("remove member %s of group %s: %w", instance, group, err)
	}
	return nil
}
