package main

import (
	"context"
	"errors"
	"strings"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/bus"
	"github.com/morphogenetic/oona/bus/kafka"
)

var commitsRatio = figure{name: "deferred_over_autocommit", unit: "", goal: 1.03, below: true,
	about: "processor time per message with deferred commits, over the time with watermill-kafka's automatic commits"}

// commitBytes is the size of a message. It is small, so that reading costs little compared
// with committing.
const commitBytes = 1_000

// loadCommits fills a topic for measureCommits.
func (w *wire) loadCommits(ctx context.Context, messages int) (topics oona.Topics, err error) {
	if topics, err = w.topics(ctx); err != nil {
		return topics, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, w.forget(topics))
		}
	}()
	publisher, err := kafka.New(w.bus, w.logger).Publisher(bus.PublisherOptions{DeliveryTimeout: measureTimeout})
	if err != nil {
		return topics, err
	}
	defer func() { err = errors.Join(err, publisher.Close()) }()
	payload := []byte(strings.Repeat("x", commitBytes))
	for sent := 0; sent < messages; {
		batch := make([]*message.Message, 0, 1000)
		for range cap(batch) {
			batch = append(batch, bus.NewMessage(payload, bus.Target{Partition: int32(sent % partitions), Directed: true}))
			sent++
		}
		if err := publisher.Publish(ctx, topics.SeedMetrics, batch...); err != nil {
			return topics, err
		}
	}
	return topics, nil
}

// measureCommits reads a topic in both ways, in the order a, b, b, a, so that drift of the
// machine affects both alike.
func (w *wire) measureCommits(ctx context.Context, topic string, messages int, into *figures) error {
	automatic := func() error {
		_, err := w.read(ctx, topic, messages)
		return err
	}
	deferred := func() error {
		s, err := kafka.New(w.bus, w.logger).Member(bus.MemberOptions{Group: w.group()}, constant{metadata: strings.Repeat("m", 2000)})
		if err != nil {
			return err
		}
		_, err = count(ctx, s, topic, messages)
		return err
	}
	var used [2]time.Duration
	for _, which := range []int{0, 1, 1, 0} {
		how := automatic
		if which == 1 {
			how = deferred
		}
		spent, _, err := metered(how)
		if err != nil {
			return err
		}
		used[which] += spent
	}
	into.take(w.named(commitsRatio), used[1].Seconds()/used[0].Seconds())
	return nil
}

// constant is the owner, and the consumer of each assignment. It always has a commit, with
// as much metadata as that of a busy engine.
type constant struct {
	metadata string
	from     int64
}

func (c constant) Assign(_ context.Context, a bus.Assignment) (int64, bus.Consumer, error) {
	c.from, _ = a.Resume()
	return c.from, c, nil
}

func (c constant) Commit() (bus.Commit, bool) {
	return bus.Commit{Offset: c.from, Metadata: c.metadata}, true
}

func (constant) Committed(bus.Commit, error) {}
func (constant) End(int64)                   {}
func (constant) Revoke()                     {}
