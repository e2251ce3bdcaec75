package buswatch_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/bus"
	"github.com/morphogenetic/oona/bus/kafka"
	"github.com/morphogenetic/oona/bus/kafka/embedded"
	"github.com/morphogenetic/oona/internal/buswatch"
)

// reads takes all partitions, and reads nothing of them.
type reads struct{ assigned chan string }

func (r reads) Assign(_ context.Context, a bus.Assignment) (int64, bus.Consumer, error) {
	r.assigned <- a.Topic
	return 0, nothing{}, nil
}

type nothing struct{}

func (nothing) Commit() (bus.Commit, bool)  { return bus.Commit{}, false }
func (nothing) Committed(bus.Commit, error) {}
func (nothing) End(int64)                   {}
func (nothing) Revoke()                     {}

// Two installations with different prefixes and one group: the second does not start, and
// starts after the first has gone.
func TestGroupOfAnotherInstallation(t *testing.T) {
	broker, err := embedded.Start(t.Context(), embedded.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer broker.Close()
	b := kafka.New(kafka.Config{Brokers: broker.Addrs, ClientID: "test"}, slog.New(slog.DiscardHandler))
	if _, err := b.Apply(t.Context(), []oona.TopicSpec{{Name: "a.metrics", Partitions: 1}, {Name: "b.metrics", Partitions: 1}}); err != nil {
		t.Fatal(err)
	}
	group := func(topic string) buswatch.Group {
		return buswatch.Group{Bus: b, Flag: "--group", Name: "g", Topics: []string{topic}, Logger: slog.New(slog.DiscardHandler)}
	}
	if err := group("a.metrics").Start(t.Context()); err != nil {
		t.Errorf("the first member: %v", err)
	}
	owner := reads{make(chan string, 8)}
	member, err := b.Member(bus.MemberOptions{Group: "g"}, owner)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := member.Subscribe(t.Context(), "a.metrics"); err != nil {
		t.Fatal(err)
	}
	select {
	case <-owner.assigned:
	case <-time.After(5 * time.Minute):
		t.Fatal("the member has no partition")
	}
	deadline := time.Now().Add(5 * time.Minute)
	for {
		err = group("b.metrics").Start(t.Context())
		if err != nil || time.Now().After(deadline) {
			break
		}
		time.Sleep(20 * time.Millisecond) // until the rebalance has ended
	}
	if field, ok := errors.AsType[*oona.FieldError](err); !errors.Is(err, buswatch.ErrSharedGroup) || !ok || field.Field != "--group" {
		t.Errorf("the other installation: %v", err)
	}
	if err := group("a.metrics").Start(t.Context()); err != nil {
		t.Errorf("another member of the first: %v", err)
	}
	if err := member.Close(); err != nil {
		t.Fatal(err)
	}
	if err := group("b.metrics").Start(t.Context()); err != nil {
		t.Errorf("the other installation alone: %v", err)
	}
}

// membership answers with what it has.
type membership struct {
	bus.Groups

	mu      sync.Mutex
	members []bus.GroupMember
	err     error
}

func (m *membership) set(members []bus.GroupMember, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.members, m.err = members, err
}

func (m *membership) Members(context.Context, string) ([]bus.GroupMember, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.members, m.err
}

// Installations that start at the same time do not see each other before they join. The log
// then has one line until the group is no longer shared.
func TestGroupBecomesShared(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		of := &membership{err: bus.ErrDenied}
		g := buswatch.Group{Bus: of, Flag: "--group", Name: "g", Topics: []string{"a"}, Logger: slog.New(slog.NewTextHandler(&log, nil))}
		if err := g.Start(t.Context()); err != nil || strings.Count(log.String(), "level=WARN") != 1 {
			t.Errorf("if it is not known: %v, %s", err, log.String())
		}
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- g.Run(ctx) }()
		one, other := bus.GroupMember{Partitions: map[string][]int32{"a": {0}}}, bus.GroupMember{Partitions: map[string][]int32{"b": {0}}}
		for i, step := range []struct {
			members []bus.GroupMember
			err     error
			errors  int
		}{
			{[]bus.GroupMember{one, {}}, nil, 0},
			{[]bus.GroupMember{one, other}, nil, 1},
			{nil, bus.ErrUnreachable, 1},
			{[]bus.GroupMember{one, other}, nil, 1},
			{[]bus.GroupMember{one}, nil, 1},
			{[]bus.GroupMember{one, other}, nil, 2},
		} {
			of.set(step.members, step.err)
			time.Sleep(buswatch.GroupInterval)
			synctest.Wait()
			if got := strings.Count(log.String(), "level=ERROR"); got != step.errors {
				t.Errorf("step %d: %d errors in the log, want %d", i, got, step.errors)
			}
		}
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}
