package memory_test

import (
	"context"
	"errors"
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/bus"
	"github.com/morphogenetic/oona/bus/memory"
)

// start returns a bus with a topic "t" of one partition with the records "0" to "n"-1.
func start(t *testing.T, n int) (*memory.Bus, bus.Publisher) {
	t.Helper()
	b := memory.New()
	p := publisher(t, b, oona.TopicSpec{Name: "t", Partitions: 1, AppendTime: true})
	for i := range n {
		must(t, p.Publish(t.Context(), "t", message.NewMessage("", []byte(strconv.Itoa(i)))))
	}
	return b, p
}

// publisher makes a topic and returns a publisher.
func publisher(t *testing.T, b *memory.Bus, spec oona.TopicSpec) bus.Publisher {
	t.Helper()
	_, err := b.Apply(t.Context(), []oona.TopicSpec{spec})
	must(t, err)
	p, err := b.Publisher(bus.PublisherOptions{})
	must(t, err)
	return p
}

func reader(t *testing.T, b *memory.Bus) *memory.Reader {
	t.Helper()
	r, err := b.Reader(bus.ReaderOptions{})
	must(t, err)
	return r.(*memory.Reader)
}

func take(t *testing.T, messages <-chan *message.Message, want string, offset int64) {
	t.Helper()
	msg := <-messages
	at, err := bus.PositionOf(msg)
	if err != nil || string(msg.Payload) != want || at.Offset != offset {
		t.Errorf("%q came at %+v (%v), want %q at offset %d", msg.Payload, at, err, want, offset)
	}
	msg.Ack()
}

// After a log has lost its end, its offsets are used again. A reader that had read beyond
// continues with the oldest record.
func TestLoseTail(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, p := start(t, 3)
		r := reader(t, b)
		defer r.Close()
		messages, err := r.Subscribe(t.Context(), "t")
		must(t, err)
		for i := range 3 {
			take(t, messages, strconv.Itoa(i), int64(i))
		}
		must(t, b.LoseTail("t", 0, 1))
		must(t, p.Publish(t.Context(), "t", message.NewMessage("", []byte("another"))))
		take(t, messages, "0", 0)
		take(t, messages, "another", 1)
		if err := b.LoseTail("t", 0, 3); err == nil {
			t.Error("a log has lost what it did not have")
		}
	})
}

// CaughtUp waits for acks while its context lasts.
func TestCaughtUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, _ := start(t, 2)
		r := reader(t, b)
		defer r.Close()
		messages, err := r.Subscribe(t.Context(), "t")
		must(t, err)
		take(t, messages, "0", 0)
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if err := r.CaughtUp(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("with a message that is not taken: %v", err)
		}
		take(t, messages, "1", 1)
		must(t, r.CaughtUp(t.Context()))
	})
}

// begins reads partitions from their beginning and commits nothing.
type begins struct{}

func (begins) Assign(_ context.Context, a bus.Assignment) (int64, bus.Consumer, error) {
	return a.LogStart, begins{}, nil
}
func (begins) Commit() (bus.Commit, bool)  { return bus.Commit{}, false }
func (begins) Committed(bus.Commit, error) {}
func (begins) End(int64)                   {}
func (begins) Revoke()                     {}

// A member that is expelled while it waits for its group is not left outside.
func TestExpelWhileJoining(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, _ := start(t, 1)
		join := func() (*memory.Member, <-chan *message.Message) {
			m, err := b.Member(bus.MemberOptions{Group: "g"}, begins{})
			must(t, err)
			messages, err := m.Subscribe(t.Context(), "t")
			must(t, err)
			return m.(*memory.Member), messages
		}
		first, messages := join()
		inHand := <-messages
		second, others := join() // waits for the first, which has a message
		synctest.Wait()
		second.Expel()
		second.Notice()
		inHand.Ack()
		time.Sleep(time.Minute)
		for _, m := range []*memory.Member{first, second} {
			if err := m.Joined(); err != nil {
				t.Error(err)
			}
		}
		go func() {
			for msg := range messages {
				msg.Ack()
			}
		}()
		go func() {
			for msg := range others {
				msg.Ack()
			}
		}()
		must(t, errors.Join(first.Close(), second.Close()))
	})
}
