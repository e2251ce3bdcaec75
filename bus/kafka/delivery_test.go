package kafka_test

import (
	"context"
	"sync/atomic"
	"testing"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/morphogenetic/oona/bus"
	"github.com/morphogenetic/oona/bus/kafka"
)

// If the bus fails during the request of a batch, the request is repeated until the delivery timeout,
// even while no broker knows the leader of the partition. The batch is written once.
func TestDeliveryTimeoutWithoutALeader(t *testing.T) {
	t.Parallel()
	broker, err := kfake.NewCluster(kfake.NumBrokers(1))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(broker.Close)
	var down atomic.Bool
	var produced, asked atomic.Int64 // numbers of failed requests
	broker.Control(func(r kmsg.Request) (kmsg.Response, error, bool) {
		broker.KeepControl()
		if !down.Load() {
			return nil, nil, false
		}
		if r.Key() == kmsg.Produce.Int16() {
			produced.Add(1)
		}
		asked.Add(1)
		return nil, errCutOff, true
	})
	cfg := kafka.Patient(kafka.Config{Brokers: broker.ListenAddrs(), ClientID: "test"})
	topic := makeTopic(t, cfg, 1, false)
	p := newPublisher(t, cfg, bus.PublisherOptions{})
	publish(t, p, topic, numbered(0, 10, 0)...)
	down.Store(true)
	published := make(chan error, 1)
	go func() { published <- p.Publish(context.Background(), topic, numbered(10, 20, 0)...) }()
	eventually(t, "the bus is asked again and again", func() bool { return asked.Load() >= 12 || len(published) > 0 })
	down.Store(false)
	if err := <-published; err != nil || produced.Load() == 0 {
		t.Fatalf("%v; %d batches were cut off", err, produced.Load())
	}
	publish(t, p, topic, numbered(20, 30, 0)...)
	for i, msg := range readAll(t, cfg, topic, 30) {
		if want := numbered(i, i+1, 0)[0]; string(msg.Payload) != string(want.Payload) {
			t.Fatalf("message %d is %s", i, msg.Payload)
		}
	}
}
