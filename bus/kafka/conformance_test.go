package kafka_test

import (
	"cmp"
	"errors"
	"testing"
	"time"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/bus"
	"github.com/morphogenetic/oona/bus/bustest"
	"github.com/morphogenetic/oona/bus/kafka"
)

// What the port demands of every bus, on each that speaks Kafka's protocol.
func TestConformance(t *testing.T) {
	brokers(t, func(t *testing.T, cfg kafka.Config) {
		unbounded := t.Name() == "TestConformance/embedded"
		bustest.Run(t, func(*testing.T) bustest.Harness {
			h := harness(cfg)
			h.UnboundedMetadata = unbounded
			return h
		})
	})
}

// harness is of a bus that is not made to fail.
func harness(cfg kafka.Config) bustest.Harness {
	return bustest.Harness{
		CreateTopic: func(t *testing.T, spec oona.TopicSpec) {
			t.Helper()
			if _, err := kafka.ApplyTopics(t.Context(), cfg, []oona.TopicSpec{spec}); err != nil {
				t.Fatal(err)
			}
		},
		Publisher: func(t *testing.T, opts bustest.PublisherOptions) bus.Publisher {
			t.Helper()
			p, err := kafka.NewPublisher(cfg, kafka.PublisherOptions{MaxMessageBytes: opts.MaxMessageBytes, Patience: cmp.Or(opts.Wait, time.Minute)})
			if err != nil {
				t.Fatal(err)
			}
			return p
		},
		Member: func(t *testing.T, opts bustest.MemberOptions, owner bus.Owner) bus.Member {
			t.Helper()
			m, err := kafka.NewMember(cfg, kafka.MemberOptions{Group: opts.Group, Instance: opts.Instance, CommitEvery: opts.CommitEvery}, owner, discard())
			if err != nil {
				t.Fatal(err)
			}
			return m
		},
		Reader: func(t *testing.T, from time.Time) bus.Reader {
			t.Helper()
			r, err := kafka.NewReader(cfg, kafka.ReaderOptions{From: from}, discard())
			if err != nil {
				t.Fatal(err)
			}
			return r
		},
		Ends: func(t *testing.T, topic string) []int64 {
			t.Helper()
			of, err := kafka.HighWater(t.Context(), cfg, topic)
			if err != nil {
				t.Fatal(err)
			}
			ends := make([]int64, len(of[topic]))
			for partition, end := range of[topic] {
				ends[partition] = end
			}
			return ends
		},
		Failed: failedMessages,
		Faults: bustest.Faults{
			Trim: func(t *testing.T, topic string, partition int32, start int64) {
				t.Helper()
				if err := newAdmin(t, cfg).DeleteRecords(topic, map[int32]int64{partition: start}); err != nil {
					t.Fatal(err)
				}
			},
		},
	}
}

func failedMessages(err error) (indexes []int) {
	var failed *kafka.PublishError
	var oversize *kafka.OversizeError
	switch {
	case errors.As(err, &oversize):
		return []int{oversize.Index}
	case errors.As(err, &failed):
		for _, f := range failed.Failed {
			indexes = append(indexes, f.Index)
		}
	}
	return indexes
}
