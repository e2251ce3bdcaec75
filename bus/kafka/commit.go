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

// ErrReadBack says that the bus holds another commit than the one that it
// acknowledged.
var ErrReadBack = errors.New("a commit was not read back as it was written")

// offsets reads and writes the commits of a group over a connection of its own:
// on the members' connection a commit would queue behind fetches that wait for
// records, would say nothing of a refusal, and would drop metadata that changed
// at the same offset.
type offsets struct {
	cfg      Config
	group    string
	instance string // of static membership; empty: none

	mu     sync.Mutex
	client sarama.Client // nil until it is needed
	closed bool
}

// attemptPause is between attempts at a request whose coordinator may have
// moved, or is being chosen. They end after the time to settle.
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

// ask sends a request to the group's coordinator, looking for it again where
// it has moved.
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
		if err == nil || !mayHaveMoved(err) || time.Since(began) > o.cfg.SettleTime() {
			return err
		}
		if !bus.Pause(ctx, attemptPause) {
			return errors.Join(err, ctx.Err())
		}
		client.RefreshCoordinator(o.group) //nolint:errcheck // where this fails too, so does the next attempt
	}
}

// mayHaveMoved: everything but the answer of a coordinator that knows better.
func mayHaveMoved(err error) bool {
	if errors.Is(err, bus.ErrAnotherTopic) {
		return false
	}
	var answer sarama.KError
	if !errors.As(err, &answer) {
		return true // the connection broke
	}
	switch answer {
	case sarama.ErrNotCoordinatorForConsumer, sarama.ErrConsumerCoordinatorNotAvailable,
		sarama.ErrOffsetsLoadInProgress, sarama.ErrRequestTimedOut:
		return true
	}
	return false
}

// fetch returns the group's commits of partitions; the offset of one without is
// bus.NoOffset.
func (o *offsets) fetch(ctx context.Context, topic string, partitions ...int32) (map[int32]bus.Commit, error) {
	commits := make(map[int32]bus.Commit, len(partitions))
	err := o.ask(ctx, func(coordinator *sarama.Broker) error {
		request := sarama.NewOffsetFetchRequest(o.cfg.client().Version, o.group, map[string][]int32{topic: partitions})
		response, err := coordinator.FetchOffset(request)
		if err != nil {
			return err
		}
		if response.Err != sarama.ErrNoError {
			return response.Err
		}
		for _, p := range partitions {
			block := response.GetBlock(topic, p)
			if block == nil {
				return sarama.ErrIncompleteResponse
			}
			if block.Err != sarama.ErrNoError {
				return block.Err
			}
			commits[p] = bus.Commit{Offset: block.Offset, Metadata: block.Metadata}
		}
		return nil
	})
	if errors.Is(err, sarama.ErrGroupIDNotFound) { // Kafka itself says that it has no commit
		for _, p := range partitions {
			commits[p] = bus.Commit{Offset: bus.NoOffset}
		}
		return commits, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read the commits of group %s on %s, partitions %v: %w", o.group, topic, partitions, err)
	}
	return commits, nil
}

// topicID returns what tells a topic from another one of the same name, as the
// group's coordinator has it. It is zero where the bus does not number topics.
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

// compare returns bus.ErrAnotherTopic where a topic has another id than it had.
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

// commit writes a commit in the name of a session's member and reads it back. It
// is for the topic with an id: of another one of its name nothing was read. The
// coordinator is asked, as it drops the commits of a topic that it hears was
// deleted. The errors wrap bus.ErrFenced where the session is over, and
// bus.ErrAnotherTopic.
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

// readBack tells a commit that the bus has dropped from one that it holds. A
// commit of the next owner, which has come in between, is further on.
func (o *offsets) readBack(ctx context.Context, topic string, partition int32, c bus.Commit) error {
	held, err := o.fetch(ctx, topic, partition)
	if err != nil {
		return err
	}
	if is := held[partition]; is != c {
		return fmt.Errorf("%w: %s/%d has offset %d and %d bytes of metadata, written were %d and %d", ErrReadBack,
			topic, partition, is.Offset, len(is.Metadata), c.Offset, len(c.Metadata))
	}
	return nil
}

// end returns the offset after the last record of a partition, as its leader says.
func (o *offsets) end(topic string, partition int32) (int64, error) {
	client, err := o.connection()
	if err != nil {
		return 0, err
	}
	end, err := client.GetOffset(topic, partition, sarama.OffsetNewest)
	if err != nil {
		return 0, fmt.Errorf("find the end of %s/%d: %w", topic, partition, err)
	}
	return end, nil
}

// at returns an offset of partitions of a topic, as offsetsAt does.
func (o *offsets) at(ctx context.Context, at int64, topic string, partitions []int32) (map[int32]int64, error) {
	client, err := o.connection()
	if err != nil {
		return nil, err
	}
	found, err := offsetsAt(ctx, o.cfg, client, at, map[string][]int32{topic: partitions})
	return found[topic], err
}

// count returns how many partitions a topic has now: what the client knows of it
// may be minutes old.
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

// refresh asks again who leads the partitions of a topic.
func (o *offsets) refresh(ctx context.Context, topic string) error {
	client, err := o.connection()
	if err != nil {
		return err
	}
	return o.cfg.awaitTopic(ctx, topic, func() error { return client.RefreshMetadata(topic) })
}
