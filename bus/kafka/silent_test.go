package kafka_test

import (
	"errors"
	"net"
	"testing"
	"time"

	"github.com/morphogenetic/oona/bus/kafka"

	"github.com/morphogenetic/oona/bus"
)

// If a bus accepts connections and does not answer, there is an error after a short time.
func TestSilentBus(t *testing.T) {
	t.Parallel()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close() // no Accept is needed, because the system completes the connections
	began := time.Now()
	_, err = kafka.New(kafka.Config{Brokers: []string{listener.Addr().String()}, ClientID: "test"}, nil).Publisher(bus.PublisherOptions{})
	if !errors.Is(err, bus.ErrUnreachable) {
		t.Errorf("%v", err)
	}
	if took := time.Since(began); took > 90*time.Second { // it takes 5 to 10 seconds, and more on a machine that stops
		t.Errorf("it took %s", took)
	}
}
