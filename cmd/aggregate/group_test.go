package main

import (
	"context"
	"errors"
	"log/slog"
	"testing"
	"time"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/bus"
	"github.com/morphogenetic/oona/bus/kafka"
	"github.com/morphogenetic/oona/bus/kafka/embedded"
	"github.com/morphogenetic/oona/internal/buswatch"
	"github.com/morphogenetic/oona/internal/worker"
)

type joining struct{ assigned chan struct{} }

func (j joining) Assign(context.Context, bus.Assignment) (int64, bus.Consumer, error) {
	select {
	case j.assigned <- struct{}{}:
	default: // asked again
	}
	return 0, nil, errors.New("this test reads nothing")
}

// An aggregator does not join the group of an installation with another prefix.
func TestGroupOfAnotherPrefix(t *testing.T) {
	t.Parallel()
	broker, err := embedded.Start(t.Context(), embedded.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer broker.Close()
	logger := slog.New(slog.DiscardHandler)
	b := kafka.New(kafka.Config{Brokers: broker.Addrs, ClientID: "test"}, logger)
	topics := make(map[string]oona.Topics)
	for _, prefix := range []string{"a", "b"} {
		if topics[prefix], err = oona.NewTopics(prefix); err != nil {
			t.Fatal(err)
		}
		if _, err := b.Apply(t.Context(), topics[prefix].Specs(1)); err != nil {
			t.Fatal(err)
		}
	}
	cfg, _, err := parse(t, "--prefix=b", "--brokers="+broker.Addrs[0])
	if err != nil {
		t.Fatal(err)
	}
	owner := joining{make(chan struct{}, 1)}
	other, err := b.Member(bus.MemberOptions{Group: cfg.Group}, owner)
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	if _, err := other.Subscribe(t.Context(), topics["a"].SeedMetrics); err != nil {
		t.Fatal(err)
	}
	select {
	case <-owner.assigned:
	case <-time.After(5 * time.Minute):
		t.Fatal("the other installation's member has no partition")
	}
	err = run(t.Context(), cfg, &worker.Worker{Logger: logger})
	if field, ok := errors.AsType[*oona.FieldError](err); !errors.Is(err, buswatch.ErrSharedGroup) || !ok || field.Field != "--group" {
		t.Errorf("%v, want ErrSharedGroup", err)
	}
}
