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

// ErrReadBack is returned if the bus has acknowledged a commit, and then returns another one when
// the commit is read back.
var ErrReadBack = errors.New("a commit was acknowledged, but the bus has another one")

// offsets reads and writes the commits of a group over a separate connection. On the connection of
// the member, a commit would have to wait for fetches, its errors would not be reported, and
// metadata that changed at the same offset would be dropped.
type offsets struct {
	cfg      Config
	group    string
	instance string // of static membership; empty for dynamic membership

	mu     sync.Mutex
	client sarama.Client // nil until the first request
	closed bool
}

// attemptPause is the time between attempts at a request whose coordinator may have moved
// or is being chosen. The attempts end after the time to settle.
const attemptPause = 200 * time.Millisecond

func (o *offsets) connection() (sarama.Client, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.closed {
		return nil, bus.ErrClosed
	}
	if o.client == nil {
		client, err := connect(o.cfg, o.cfg.client())
		if err != nil {
			return nil, err
		}
		o.client = client
	}
	return o.client, nil
}

func (o *offsets) close() error {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.closed = true
	if o.client == nil {
		return nil
	}
	err := o.client.Close()
	o.client = nil
	return err
}

// ask sends a request to the group's coordinator. If the coordinator has moved, it looks
// for it and tries again.
func (o *offsets) ask(ctx context.Context, request func(coordinator *sarama.Broker) error) error {
	client, err := o.connection()
	if err != nil {
		return err
	}
	for began := time.Now(); ; {
		coordinator, err := client.Coordinator(o.group)
		if err == nil {
			err = request(coordinator)
		}
		unknown := errors.Is(err, sarama.ErrUnknownTopicOrPartition) // awaitTopic repeats the request if that is right
		if err == nil || unknown || !passes(err) || time.Since(began) > o.cfg.SettleTime() {
			return refusedAccess(err)
		}
		if !bus.Pause(ctx, attemptPause) {
			return errors.Join(err, ctx.Err())
		}
		client.RefreshCoordinator(o.group) //nolint:errcheck // if this fails, the next attempt fails, too
	}
}

// fetch returns the group's commits of partitions, in their order. Without a commit the
// offset is bus.NoOffset.
func (o *offsets) fetch(ctx context.Context, topic string, partitions ...int32) ([]bus.Commit, error) {
	commits := make([]bus.Commit, len(partitions))
	err := o.ask(ctx, func(coordinator *sarama.Broker) error {
		request := sarama.NewOffsetFetchRequest(o.cfg.client().Version, o.group, map[string][]int32{topic: partitions})
		response, err := coordinator.FetchOffset(request)
		if err != nil {
			return err
		}
		if response.Err != sarama.ErrNoError {
			return response.Err
		}
		for i, p := range partitions {
			block := response.GetBlock(topic, p)
			if block == nil {
				return sarama.ErrIncompleteResponse
			}
			if block.Err != sarama.ErrNoError {
				return block.Err
			}
			commits[i] = bus.Commit{Offset: block.Offset, Metadata: block.Metadata}
		}
		return nil
	})
	if errors.Is(err, sarama.ErrGroupIDNotFound) { // the group has no commit
		for i := range commits {
			commits[i] = bus.Commit{Offset: bus.NoOffset}
		}
		return commits, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read the commits of group %s on %s, partitions %v: %w", o.group, topic, partitions, err)
	}
	return commits, nil
}

// topicID asks the coordinator of the group for the id of a topic. The id changes if the topic is
// deleted and created again. It is zero if the brokers do not support topic ids.
func (o *offsets) topicID(ctx context.Context, topic string) (id sarama.Uuid, err error) {
	err = o.cfg.awaitTopic(ctx, topic, func() error {
		return o.ask(ctx, func(coordinator *sarama.Broker) (err error) {
			id, err = o.topicIDOf(coordinator, topic)
			return err
		})
	})
	return id, err
}

func (o *offsets) topicIDOf(coordinator *sarama.Broker, topic string) (sarama.Uuid, error) {
	response, err := coordinator.GetMetadata(sarama.NewMetadataRequest(o.cfg.client().Version, []string{topic}))
	if err != nil {
		return sarama.Uuid{}, err
	}
	if len(response.Topics) != 1 {
		return sarama.Uuid{}, sarama.ErrIncompleteResponse
	}
	switch t := response.Topics[0]; t.Err {
	case sarama.ErrNoError, sarama.ErrLeaderNotAvailable:
		return t.Uuid, nil
	default:
		return sarama.Uuid{}, t.Err
	}
}

// compare returns bus.ErrAnotherTopic if a topic has another id than before.
func (o *offsets) compare(coordinator *sarama.Broker, topic string, had sarama.Uuid) error {
	if had == (sarama.Uuid{}) {
		return nil
	}
	is, err := o.topicIDOf(coordinator, topic)
	if err == nil && is != had {
		err = bus.ErrAnotherTopic
	}
	return err
}

// commit writes a commit for the member of a session and reads it back. It fails if the topic has
// another id than at the assignment, because then the records were read from another topic. It asks
// the coordinator for the id, because the coordinator deletes the commits of a topic when it learns
// that the topic was deleted. The error wraps bus.ErrFenced if the session has ended, and
// bus.ErrAnotherTopic if the id has changed.
func (o *offsets) commit(ctx context.Context, session sarama.ConsumerGroupSession, topic string, id sarama.Uuid, partition int32, c bus.Commit) error {
	err := o.ask(ctx, func(coordinator *sarama.Broker) error {
		if err := o.compare(coordinator, topic, id); err != nil {
			return err
		}
		request := sarama.NewOffsetCommitRequest(o.cfg.client(), o.group)
		request.ConsumerGroupGeneration = session.GenerationID()
		request.ConsumerID = session.MemberID()
		if o.instance != "" {
			request.GroupInstanceId = &o.instance
		}
		request.AddBlockWithLeaderEpoch(topic, partition, c.Offset, -1, sarama.ReceiveTime, c.Metadata)
		response, err := coordinator.CommitOffset(request)
		if err != nil {
			return err
		}
		answer, answered := response.Errors[topic][partition]
		if !answered {
			return sarama.ErrIncompleteResponse
		}
		if answer != sarama.ErrNoError {
			return answer
		}
		return nil
	})
	if errors.Is(err, sarama.ErrUnknownMemberId) || errors.Is(err, sarama.ErrIllegalGeneration) || errors.Is(err, sarama.ErrFencedInstancedId) {
		err = fmt.Errorf("%w: %w", bus.ErrFenced, err)
	}
	if err != nil {
		return fmt.Errorf("commit offset %d of %s/%d: %w", c.Offset, topic, partition, err)
	}
	return o.readBack(ctx, topic, partition, c)
}

// readBack returns an error if the bus does not have the commit. It accepts a greater offset,
// because the next owner may have made a commit in the meantime.
func (o *offsets) readBack(ctx context.Context, topic string, partition int32, c bus.Commit) error {
	held, err := o.fetch(ctx, topic, partition)
	if err != nil {
		return err
	}
	if is := held[0]; is != c {
		return fmt.Errorf("%w: %s/%d has offset %d and %d bytes of metadata; offset %d and %d bytes were written", ErrReadBack,
			topic, partition, is.Offset, len(is.Metadata), c.Offset, len(c.Metadata))
	}
	return nil
}

// end asks a partition's leader for the offset after its last record.
func (o *offsets) end(topic string, partition int32) (int64, error) {
	client, err := o.connection()
	if err != nil {
		return 0, err
	}
	end, err := client.GetOffset(topic, partition, sarama.OffsetNewest)
	if err != nil {
		return 0, fmt.Errorf("find the end of %s/%d: %w", topic, partition, refusedAccess(err))
	}
	return end, nil
}

// at is like offsetsAt, for partitions of one topic. It returns the offsets in the order of the partitions.
func (o *offsets) at(ctx context.Context, at int64, topic string, partitions []int32) ([]int64, error) {
	client, err := o.connection()
	if err != nil {
		return nil, err
	}
	asked := make([]topicPartition, len(partitions))
	for i, p := range partitions {
		asked[i] = topicPartition{topic, p}
	}
	found, err := offsetsAt(ctx, o.cfg, client, at, asked)
	offsets := make([]int64, len(partitions))
	for i, of := range asked {
		offsets[i] = found[of]
	}
	return offsets, err
}

// count returns how many partitions a topic has now. The metadata of the client may be
// minutes old.
func (o *offsets) count(ctx context.Context, topic string) (int32, error) {
	if err := o.refresh(ctx, topic); err != nil {
		return 0, err
	}
	client, err := o.connection()
	if err != nil {
		return 0, err
	}
	partitions, err := partitionsOf(ctx, o.cfg, client, topic)
	return int32(len(partitions)), err
}

// refresh refreshes the metadata of a topic.
func (o *offsets) refresh(ctx context.Context, topic string) error {
	client, err := o.connection()
	if err != nil {
		return err
	}
	return o.cfg.awaitTopic(ctx, topic, func() error { return client.RefreshMetadata(topic) })
}
