package kafka

import (
	"context"
	"errors"
	"testing"

	"github.com/IBM/sarama"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/bus"
	"github.com/morphogenetic/oona/bus/kafka/embedded"
)

// stranger is a session that the group does not know.
type stranger struct{ sarama.ConsumerGroupSession }

func (stranger) GenerationID() int32      { return 7 }
func (stranger) MemberID() string         { return "a-zombie" }
func (stranger) Context() context.Context { return context.Background() }

// A commit for a session that has ended is refused, and the last commit is kept.
func TestZombieIsFenced(t *testing.T) {
	t.Parallel()
	broker, err := embedded.Start(t.Context(), embedded.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer broker.Close()
	cfg := Config{Brokers: broker.Addrs, ClientID: "test"}
	if _, err := New(cfg, nil).Apply(t.Context(), []oona.TopicSpec{{Name: "fence", Partitions: 1}}); err != nil {
		t.Fatal(err)
	}
	o := offsets{cfg: cfg, group: "g"}
	defer func() {
		if err := o.close(); err != nil {
			t.Error(err)
		}
	}()
	err = o.commit(t.Context(), stranger{}, "fence", sarama.Uuid{}, 0, bus.Commit{Offset: 1, Metadata: "false"})
	if !errors.Is(err, bus.ErrFenced) {
		t.Errorf("error is %v, want bus.ErrFenced", err)
	}
	held, err := o.fetch(t.Context(), "fence", 0)
	if err != nil || held[0].Offset != bus.NoOffset {
		t.Errorf("committed is %+v, %v", held, err)
	}
}

// A commit that was acknowledged, although the bus has another one, is detected.
func TestReadBack(t *testing.T) {
	t.Parallel()
	broker, err := embedded.Start(t.Context(), embedded.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer broker.Close()
	cfg := Config{Brokers: broker.Addrs, ClientID: "test"}
	if _, err := New(cfg, nil).Apply(t.Context(), []oona.TopicSpec{{Name: "back", Partitions: 1}}); err != nil {
		t.Fatal(err)
	}
	o := offsets{cfg: cfg, group: "g"}
	defer func() {
		if err := o.close(); err != nil {
			t.Error(err)
		}
	}()
	if err := o.readBack(t.Context(), "back", 0, bus.Commit{Offset: 3}); !errors.Is(err, ErrReadBack) {
		t.Errorf("error is %v, want ErrReadBack", err)
	}
	if err := o.readBack(t.Context(), "back", 0, bus.Commit{Offset: bus.NoOffset}); err != nil {
		t.Errorf("error is %v for what the bus holds", err)
	}
}
