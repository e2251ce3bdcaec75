package bus

import (
	"errors"
	"net"
	"strconv"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/internal/bus/embedded"
)

// A connection that is given up fails the calls on it, and the next call makes
// another.
func TestGivenUpConnection(t *testing.T) {
	opts := embedded.Options{DataDir: t.TempDir()}
	broker, err := embedded.Start(t.Context(), opts)
	if err != nil {
		t.Fatal(err)
	}
	cfg := Config{Brokers: broker.Addrs, ClientID: "test"}
	if _, err := ApplyTopics(t.Context(), cfg, []oona.TopicSpec{{Name: "t", Partitions: 1}}); err != nil {
		t.Fatal(err)
	}
	p, err := NewPublisher(cfg, PublisherOptions{Patience: 50 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Publish("t", message.NewMessage("", []byte("connects"))); err != nil {
		t.Fatal(err)
	}
	if err := broker.Close(); err != nil {
		t.Fatal(err)
	}
	first := p.current
	failed := make(chan error, 1)
	go func() { failed <- p.Publish("t", message.NewMessage("", []byte("x"))) }()
	select {
	case err := <-failed:
		t.Fatalf("failed before its patience was over: %v", err)
	case <-time.After(300 * time.Millisecond):
	}
	p.giveUp(first)
	p.giveUp(first) // a second watchdog
	var unacknowledged *PublishError
	if err := <-failed; !errors.As(err, &unacknowledged) {
		t.Errorf("%v", err)
	}
	if err := p.Publish("t", message.NewMessage("", []byte("x"))); !errors.Is(err, ErrUnreachable) {
		t.Errorf("without a bus: %v", err)
	}

	_, port, err := net.SplitHostPort(cfg.Brokers[0])
	if err != nil {
		t.Fatal(err)
	}
	if opts.Port, err = strconv.Atoi(port); err != nil {
		t.Fatal(err)
	}
	if broker, err = embedded.Start(t.Context(), opts); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(30 * time.Second); ; {
		err := p.Publish("t", message.NewMessage("", []byte("back")))
		if err == nil {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
		time.Sleep(50 * time.Millisecond)
	}
	if p.current == first {
		t.Error("the connection that was given up is used")
	}
	if err := errors.Join(p.Close(), broker.Close()); err != nil {
		t.Error(err)
	}
}

// A bus that accepts connections and says nothing is reported in time.
func TestSilentBus(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close() // it is never accepted from: the system takes the connections
	began := time.Now()
	_, err = NewPublisher(Config{Brokers: []string{listener.Addr().String()}, ClientID: "test"}, PublisherOptions{})
	if !errors.Is(err, ErrUnreachable) {
		t.Errorf("%v", err)
	}
	if took := time.Since(began); took > 30*time.Second {
		t.Errorf("it took %s", took)
	}
}
