package kafka_test

import (
	"context"
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/bus"
	"github.com/morphogenetic/oona/bus/kafka"
)

// If a topic is deleted, calls that wait for it fail with bus.ErrNoTopic although they may wait for
// long, and other topics do not notice. When the topic was created again, publishing works again.
func TestTopicDeletedWhilePublishing(t *testing.T) {
	brokers(t, func(t *testing.T, cfg kafka.Config) {
		gone, other := makeTopic(t, cfg, 2, false), makeTopic(t, cfg, 1, false)
		p := newPublisher(t, cfg, bus.PublisherOptions{DeliveryTimeout: time.Hour})
		message := func() error {
			ctx, cancel := context.WithTimeout(t.Context(), waitLimit)
			defer cancel()
			return p.Publish(ctx, gone, slices.Concat(numbered(0, 1, 0), numbered(0, 1, 1))...)
		}
		if err := message(); err != nil {
			t.Fatal(err)
		}
		publish(t, p, other, newMessage("x"))
		if err := newAdmin(t, cfg).DeleteTopic(gone); err != nil {
			t.Fatal(err)
		}
		var err error
		eventually(t, "publishing fails", func() bool { err = message(); return err != nil })
		var refused *bus.PublishError
		if !errors.Is(err, bus.ErrNoTopic) || !errors.As(err, &refused) || len(refused.Failed) != 2 {
			t.Errorf("%v, want bus.ErrNoTopic for both messages", err)
		}
		publish(t, p, other, newMessage("y"))
		if _, err := kafka.New(cfg, nil).Apply(t.Context(), []oona.TopicSpec{{Name: gone, Partitions: 2}}); err != nil {
			t.Fatal(err)
		}
		eventually(t, "publishing works again", func() bool { return message() == nil })
	})
}

// A topic that the metadata have is not missing, for however long a broker does not know its partition.
func TestUnknownPartitionIsNoMissingTopic(t *testing.T) {
	t.Parallel()
	broker, cfg := startRefuser(t)
	topic := makeTopic(t, cfg, 1, false)
	p := newPublisher(t, cfg, bus.PublisherOptions{DeliveryTimeout: time.Hour})
	const refusals = 5 // the pauses after these are longer than the time after which a topic is missing
	broker.script(slices.Repeat([]*kerr.Error{kerr.UnknownTopicOrPartition}, refusals)...)
	publish(t, p, topic, newMessage("x"))
	if broker.refused != refusals {
		t.Errorf("%d requests were refused, want %d", broker.refused, refusals)
	}
}
