package kafka_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/morphogenetic/oona/bus"
)

// When its context has ended, Publish waits only for the request in progress. It does not wait for what
// the publisher does before the next attempt, because a frozen broker does not answer that, either.
func TestPublishEndsWithTheRequestOnItsWay(t *testing.T) {
	t.Parallel()
	broker, cfg := startRefuser(t)
	cfg.Patience = time.Hour
	topic := makeTopic(t, cfg, 1, false)
	p := newPublisher(t, cfg, bus.PublisherOptions{})
	publish(t, p, topic, newMessage("connects"))
	asked, open := make(chan struct{}, 100), make(chan struct{})
	thaw := sync.OnceFunc(func() { close(open) })
	t.Cleanup(thaw)
	broker.ControlKey(kmsg.Metadata.Int16(), func(kmsg.Request) (kmsg.Response, error, bool) {
		broker.KeepControl()
		asked <- struct{}{}
		broker.SleepControl(func() { <-open })
		return nil, nil, false
	})
	ctx, cancel := context.WithCancel(t.Context())
	broker.ControlKey(kmsg.Produce.Int16(), func(request kmsg.Request) (kmsg.Response, error, bool) {
		cancel() // while the request is in progress
		return refusal(request.(*kmsg.ProduceRequest), kerr.NotLeaderForPartition), nil, true
	})
	ended := make(chan error, 1)
	go func() { ended <- p.Publish(ctx, topic, newMessage("x")) }()
	select {
	case err := <-ended:
		if !errors.Is(err, context.Canceled) {
			t.Errorf("Publish returns %v", err)
		}
	case <-time.After(waitLimit):
		t.Error("Publish waits for the metadata")
	}
	select {
	case <-asked: // the publisher has asked for the metadata
	case <-time.After(waitLimit):
		t.Error("the fault did not occur")
	}
	thaw()
}
