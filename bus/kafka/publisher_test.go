package kafka_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/bus"
	"github.com/morphogenetic/oona/bus/kafka"
	"github.com/morphogenetic/oona/bus/kafka/embedded"
	"github.com/morphogenetic/oona/internal/address/addresstest"
)

var _ bus.Publisher = (*kafka.Publisher)(nil)

// In topics with append times, the clocks of producers do not matter, with and without
// compression.
func TestAppendTimesAreTheBrokers(t *testing.T) {
	brokers(t, func(t *testing.T, cfg kafka.Config) {
		topic := makeTopic(t, cfg, 1, true)
		before := time.Now().Truncate(time.Millisecond)
		for _, compression := range []string{"none", "lz4"} {
			p := newPublisher(t, cfg, bus.PublisherOptions{Compression: compression})
			publish(t, p, topic, newMessage("old", withTime, "1000000"))
			publish(t, p, topic, newMessage("old", withTime, "1000000"), newMessage("old", withTime, "1000000"))
		}
		for i, msg := range readAll(t, cfg, topic, 6) {
			if at := position(t, msg).Appended.Time(); at.Before(before) || at.After(time.Now()) {
				t.Errorf("message %d was appended at %s, not since %s", i, at, before)
			}
		}
	})
}

// Kafka's default limit accepts the largest message that the default limit of publishers accepts,
// even without compression.
func TestTheLargestMessageFits(t *testing.T) {
	brokers(t, func(t *testing.T, cfg kafka.Config) {
		topic := makeTopic(t, cfg, 1, false)
		p := newPublisher(t, cfg, bus.PublisherOptions{})
		size := 1<<20 + 1
		var err error
		for failed := true; failed; failed = errors.Is(err, bus.ErrTooLarge) {
			size--
			err = p.Publish(context.Background(), topic, newMessage(strings.Repeat("x", size)))
		}
		if overhead := 1<<20 - size; err != nil || overhead == 0 || overhead > 200 {
			t.Fatalf("a record takes %d bytes besides its value: %v", overhead, err)
		}
		publish(t, p, topic, newMessage(strings.Repeat("y", size)))
		// More small messages than fit into a batch.
		var many []*message.Message
		for range 5000 {
			many = append(many, newMessage(strings.Repeat("z", 400)))
		}
		publish(t, p, topic, many...)
	})
}

// The limit applies to a whole batch with its header. Batches of small records do not exceed it.
func TestBatchesKeepTheLimit(t *testing.T) {
	brokers(t, func(t *testing.T, cfg kafka.Config) {
		topic := makeTopic(t, cfg, 1, false)
		limitMessages(t, cfg, topic, 2000)
		p := newPublisher(t, cfg, bus.PublisherOptions{MaxMessageBytes: 2000})
		for size := 950; size < 970; size++ { // two records take about 2000 bytes
			var many []*message.Message
			for range 20 {
				many = append(many, newMessage(strings.Repeat("x", size)))
			}
			publish(t, p, topic, many...)
		}
	})
}

// A publisher to topics with different limits makes no batch above the lower limit, and
// sends larger single records to the other topic.
func TestBatchesKeepTheLeastLimit(t *testing.T) {
	brokers(t, func(t *testing.T, cfg kafka.Config) {
		less, more := makeTopic(t, cfg, 1, false), makeTopic(t, cfg, 1, false)
		limitMessages(t, cfg, less, 2000)
		p := newPublisher(t, cfg, bus.PublisherOptions{BatchBytes: 2000, MaxMessageBytes: 10_000})
		var many []*message.Message
		for range 20 {
			many = append(many, newMessage(strings.Repeat("x", 500)))
		}
		publish(t, p, less, many...)
		publish(t, p, more, newMessage("before"), newMessage(strings.Repeat("x", 9000)), newMessage("behind"))
	})
}

// limitMessages sets a limit for messages, and returns when the partition's leader applies it. Brokers
// learn of a topic's configuration some time after it was set.
func limitMessages(t *testing.T, cfg kafka.Config, topic string, limit int) {
	t.Helper()
	configure(t, cfg, topic, "max.message.bytes", strconv.Itoa(limit))
	p := newPublisher(t, cfg, bus.PublisherOptions{})
	eventually(t, "the leader refuses what is above the limit", func() bool {
		return p.Publish(context.Background(), topic, newMessage(strings.Repeat("x", limit+1))) != nil
	})
}

// checkTooLarge examines an error as ingest does.
func checkTooLarge(t *testing.T, err error) {
	t.Helper()
	if !errors.Is(err, bus.ErrTooLarge) {
		t.Errorf("does not say that it is too large: %v", err)
	}
}

func TestUnreachable(t *testing.T) {
	cfg := kafka.Config{Brokers: []string{fmt.Sprintf("127.0.0.1:%d", addresstest.Port(t))}, ClientID: "test"}
	_, publisher := kafka.New(cfg, nil).Publisher(bus.PublisherOptions{DeliveryTimeout: time.Hour})
	_, offsets := kafka.New(cfg, nil).Extents(t.Context(), "t")
	_, apply := kafka.New(cfg, nil).Apply(t.Context(), nil)
	check := kafka.New(cfg, nil).Check(t.Context(), nil)
	_, read := newReader(t, cfg, bus.ReaderOptions{}).Subscribe(t.Context(), "t")
	_, join := newGroup(t, cfg, "g", newOwner()).Subscribe(t.Context(), "t")
	for what, err := range map[string]error{"publisher": publisher, "high water": offsets, "apply": apply, "check": check, "read": read, "join": join} {
		if !errors.Is(err, bus.ErrUnreachable) || !strings.Contains(err.Error(), cfg.Brokers[0]) {
			t.Errorf("%s: %v", what, err)
		}
	}
}

// stoppable is an embedded broker that can be started again on the same port, with its data.
type stoppable struct {
	t      *testing.T
	opts   embedded.Options
	broker *embedded.Broker
}

func startStoppable(t *testing.T) (*stoppable, kafka.Config) {
	t.Helper()
	s := &stoppable{t: t, opts: embedded.Options{DataDir: t.TempDir()}}
	s.up()
	_, port, err := net.SplitHostPort(s.broker.Addrs[0])
	if err != nil {
		t.Fatal(err)
	}
	if s.opts.Port, err = strconv.Atoi(port); err != nil {
		t.Fatal(err)
	}
	return s, kafka.Patient(kafka.Config{Brokers: s.broker.Addrs, ClientID: "test"})
}

func (s *stoppable) up() {
	s.t.Helper()
	before := s.broker
	s.broker = startEmbedded(s.t, s.opts)
	if before != nil && before.Addrs[0] != s.broker.Addrs[0] {
		s.t.Fatalf("the broker came back at %v", s.broker.Addrs)
	}
}

func (s *stoppable) down() {
	s.t.Helper()
	if err := s.broker.Close(); err != nil {
		s.t.Fatal(err)
	}
}

func TestPublishWithoutTheBusFailsInTime(t *testing.T) {
	t.Parallel()
	broker, cfg := startStoppable(t)
	topic := makeTopic(t, cfg, 3, false)
	publish(t, newPublisher(t, cfg, bus.PublisherOptions{}), topic, numbered(0, 3, 0)...)
	p := newPublisher(t, cfg, bus.PublisherOptions{DeliveryTimeout: time.Second})
	eventually(t, "it has a connection", func() bool {
		return p.Publish(context.Background(), topic, newMessage("connects", toPartition, "1")) == nil
	})
	broker.down()
	began := time.Now()
	err := p.Publish(context.Background(), topic, numbered(3, 6, 0)...)
	var failed *bus.PublishError
	if !errors.As(err, &failed) || len(failed.Failed) != 3 {
		t.Fatalf("%v", err)
	}
	if took := time.Since(began); took > waitLimit { // the context has no deadline
		t.Errorf("it took %s", took)
	}
	broker.up()
	eventually(t, "publishing works again", func() bool {
		return p.Publish(context.Background(), topic, newMessage("back", toPartition, "0")) == nil
	})
	after, err := bus.RecordAt(t.Context(), kafka.New(cfg, nil), topic, 0, 3)
	if err != nil || after == nil || string(after.Payload) != "back" && string(after.Payload) != "3" {
		t.Errorf("after the outage came %v, %v", after, err)
	}
}

// A publisher with a long delivery timeout waits for the bus, and keeps the order.
func TestDeliveryTimeoutKeepsTheOrder(t *testing.T) {
	t.Parallel()
	broker, cfg := startStoppable(t)
	topic := makeTopic(t, cfg, 1, false)
	p := newPublisher(t, cfg, bus.PublisherOptions{DeliveryTimeout: time.Hour})
	publish(t, p, topic, numbered(0, 10, 0)...)
	broker.down()
	var publishing sync.WaitGroup
	publishing.Go(func() {
		for i := 10; i < 50; i += 10 {
			if err := p.Publish(context.Background(), topic, numbered(i, i+10, 0)...); err != nil {
				t.Errorf("messages from %d: %v", i, err)
			}
		}
	})
	time.Sleep(1500 * time.Millisecond) // some attempts fail during this time; the result does not depend on it
	broker.up()
	publishing.Wait()
	for i, msg := range readAll(t, cfg, topic, 50) {
		if string(msg.Payload) != strconv.Itoa(i) {
			t.Fatalf("message %d is %s", i, msg.Payload)
		}
	}
}

// Close does not wait for hours, however long the delivery timeout is.
func TestCloseEndsTheDeliveryTimeout(t *testing.T) {
	t.Parallel()
	broker, cfg := startStoppable(t)
	topic := makeTopic(t, cfg, 1, false)
	p := newPublisher(t, cfg, bus.PublisherOptions{DeliveryTimeout: 10 * time.Hour})
	publish(t, p, topic, newMessage("connects"))
	broker.down()
	failed := make(chan error, 1)
	go func() { failed <- p.Publish(context.Background(), topic, newMessage("x")) }()
	time.Sleep(200 * time.Millisecond) // so that the request is probably in progress
	began := time.Now()
	if err := p.Close(); err != nil {
		t.Error(err)
	}
	if err := <-failed; err == nil {
		t.Error("published to a bus that is gone")
	}
	if took := time.Since(began); took > waitLimit {
		t.Errorf("it took %s", took)
	}
}

func TestPublishConcurrently(t *testing.T) {
	brokers(t, func(t *testing.T, cfg kafka.Config) {
		topic := makeTopic(t, cfg, 3, false)
		p := newPublisher(t, cfg, bus.PublisherOptions{Compression: "lz4"})
		var publishing sync.WaitGroup
		for g := range 8 {
			publishing.Go(func() {
				for i := range 20 {
					if err := p.Publish(context.Background(), topic, newMessage(fmt.Sprintf("%d-%d", g, i), toPartition, strconv.Itoa(g%3))); err != nil {
						t.Error(err)
					}
				}
			})
		}
		publishing.Wait()
		last := make(map[string]int)
		for _, msg := range readAll(t, cfg, topic, 160) {
			g, number, _ := strings.Cut(string(msg.Payload), "-")
			i, err := strconv.Atoi(number)
			if err != nil || i != last[g] {
				t.Fatalf("%s came where %s-%d was due", msg.Payload, g, last[g])
			}
			last[g]++
		}
	})
}

func TestConfigNamesTheField(t *testing.T) {
	for name, c := range map[string]struct {
		cfg   kafka.Config
		field string
	}{
		"no brokers": {kafka.Config{ClientID: "x"}, "--brokers"},
		"no port":    {kafka.Config{Brokers: []string{"kafka-1:9092", "kafka-2"}, ClientID: "x"}, "--brokers"},
		"no host":    {kafka.Config{Brokers: []string{":9092"}, ClientID: "x"}, "--brokers"},
		"a user":     {kafka.Config{Brokers: []string{"u:secret@kafka:9092"}, ClientID: "x"}, "--brokers"},
		"no client":  {kafka.Config{Brokers: []string{"kafka:9092"}}, "--client-id"},
	} {
		var wrong *oona.FieldError
		if err := c.cfg.Validate(); !errors.As(err, &wrong) || wrong.Field != c.field {
			t.Errorf("%s: %v", name, err)
		}
		if _, err := kafka.New(c.cfg, nil).Extents(context.Background(), "t"); !errors.As(err, &wrong) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := (kafka.Config{Brokers: []string{"[::1]:9092", "kafka:9092"}, ClientID: "x"}).Validate(); err != nil {
		t.Error(err)
	}
}
