package mirror_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/bus"
	"github.com/morphogenetic/oona/bus/memory"
	"github.com/morphogenetic/oona/pipeline/mirror"
	"github.com/morphogenetic/oona/schemas/avro"
)

func topics(t *testing.T, prefix string) oona.Topics {
	t.Helper()
	names, err := oona.NewTopics(prefix)
	if err != nil {
		t.Fatal(err)
	}
	return names
}

// site has a topic of late frames with two partitions, and the topic of its copies.
type site struct {
	*testing.T
	bus       *memory.Bus
	publisher bus.PinnedPublisher
	pair      mirror.Pair
}

const id = 42

func newSite(t *testing.T) *site {
	t.Helper()
	s := &site{T: t, bus: memory.New()}
	for _, pair := range mirror.Pairs(topics(t, "kasmina"), topics(t, "copies")) {
		if pair.From == topics(t, "kasmina").Late {
			s.pair = pair
		}
	}
	for _, schema := range avro.Schemas() {
		if schema.Name == s.pair.Record {
			s.pair.IDs = map[uint64]int32{schema.Fingerprint: id}
		}
	}
	_, err := s.bus.Apply(t.Context(), []oona.TopicSpec{{Name: s.pair.From, Partitions: 2, MaxMessageBytes: 4 << 20}, {Name: s.pair.To, Partitions: 2, MaxMessageBytes: 1 << 20}})
	if err != nil {
		t.Fatal(err)
	}
	if s.publisher, err = s.bus.Publisher(bus.PublisherOptions{MaxMessageBytes: 4 << 20}); err != nil {
		t.Fatal(err)
	}
	return s
}

func frame(sequence int64) []byte {
	return avro.AppendFrame(nil, &oona.Frame{
		Run: "r", Layer: "l", Producer: "p", Epoch: 1, Sequence: sequence, ObservedAt: 2,
		Seeds: []oona.SeedID{0}, States: []oona.State{oona.Training},
	})
}

func (s *site) publish(partition int32, values ...[]byte) {
	s.Helper()
	for i, value := range values {
		msg := bus.NewMessage(value, bus.Target{Partition: partition, Directed: true, Key: []byte("key"), Time: 1_790_000_000_000_000})
		msg.Metadata.Set("n", fmt.Sprint(i))
		if err := s.publisher.Publish(s.Context(), s.pair.From, msg); err != nil {
			s.Fatal(err)
		}
	}
}

func (s *site) read(topic string, partition int32) (all []*message.Message) {
	s.Helper()
	extents, err := s.bus.Extents(s.Context(), topic)
	if err != nil {
		s.Fatal(err)
	}
	e := extents[topic][partition]
	err = s.bus.Read(s.Context(), topic, bus.Range{Partition: partition, From: e.Start, End: e.End}, func(m *message.Message) error {
		all = append(all, m)
		return nil
	})
	if err != nil {
		s.Fatal(err)
	}
	return all
}

// running runs a mirror until end.
func (s *site) running() (stage *mirror.Stage, end func()) {
	s.Helper()
	stage = mirror.New([]mirror.Pair{s.pair}, s.bus, s.publisher, slog.New(slog.DiscardHandler))
	member, err := s.bus.Member(bus.MemberOptions{Group: "mirror"}, stage)
	if err != nil {
		s.Fatal(err)
	}
	ctx, stop := context.WithCancel(s.Context())
	ended := make(chan error, 1)
	go func() { ended <- stage.Run(ctx, map[string]bus.Member{s.pair.From: member}) }()
	synctest.Wait()
	return stage, func() {
		s.Helper()
		stop()
		if err := errors.Join(<-ended, member.Close()); err != nil {
			s.Error(err)
		}
	}
}

// copied checks that each record of a partition has one copy, in order.
func (s *site) copied(partition int32, skipped ...int) {
	s.Helper()
	var want []*message.Message
	for i, m := range s.read(s.pair.From, partition) {
		if len(skipped) == 0 || i != skipped[0] {
			want = append(want, m)
		} else {
			skipped = skipped[1:]
		}
	}
	got := s.read(s.pair.To, partition)
	if len(got) != len(want) {
		s.Fatalf("partition %d has %d copies, want %d", partition, len(got), len(want))
	}
	for i, m := range got {
		at, err := bus.PositionOf(want[i])
		if err != nil {
			s.Fatal(err)
		}
		to, err := bus.PositionOf(m)
		if err != nil {
			s.Fatal(err)
		}
		body, err := avro.Body(want[i].Payload)
		if err != nil {
			s.Fatal(err)
		}
		if !bytes.Equal(m.Payload, append(avro.AppendSchemaID(nil, id), body...)) || string(to.Key) != "key" || to.Appended != at.Appended ||
			m.Metadata.Get("n") != want[i].Metadata.Get("n") || m.Metadata.Get(oona.HeaderMirroredFrom) != fmt.Sprintf("%s/%d/%d", at.Topic, at.Partition, at.Offset) {
			s.Errorf("copy %d is %x %v at %+v", i, m.Payload, m.Metadata, to)
		}
	}
}

func TestCopies(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t)
		s.publish(0, frame(0), frame(1))
		stage, end := s.running()
		s.publish(1, frame(2), []byte("not Avro"), []byte("\xc3\x0112345678?"), frame(3))
		time.Sleep(10 * time.Second)
		end()
		s.copied(0)
		s.copied(1, 1, 2)
		if copied, left := stage.Counts(); copied != 4 || left != 2 {
			t.Errorf("%d copied, %d left out", copied, left)
		}
		_, end = s.running()
		s.publish(0, frame(4))
		time.Sleep(10 * time.Second)
		end()
		s.copied(0)
		s.copied(1, 1, 2)
	})
}

// While the bus does not take copies, records wait. Nothing is lost, and nothing changes
// its place.
func TestTheBusTakesNoCopies(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t)
		_, end := s.running()
		defer end()
		s.bus.Refuse(func(topic string, _ int32) error {
			if topic == s.pair.To {
				return errors.New("no broker")
			}
			return nil
		})
		for i := range int64(100) {
			s.publish(int32(i%2), frame(i))
		}
		time.Sleep(5 * time.Minute)
		if n := len(s.read(s.pair.To, 0)); n != 0 {
			t.Fatalf("%d copies", n)
		}
		s.bus.Refuse(nil)
		time.Sleep(10 * time.Second)
		s.copied(0)
		s.copied(1)
	})
}

// A mirror that ended before it could commit does not copy again what has a copy.
func TestNoCommit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t)
		s.publish(0, frame(0))
		_, end := s.running()
		time.Sleep(10 * time.Second) // there is a commit
		s.bus.RefuseCommits(func(string, int32) error { return errors.New("no coordinator") })
		s.publish(0, frame(1), frame(2))
		time.Sleep(10 * time.Second)
		end()
		s.bus.RefuseCommits(nil)
		s.publish(0, frame(3))
		_, end = s.running()
		time.Sleep(10 * time.Second)
		end()
		s.copied(0)
	})
}

// A record whose copy is too large for its topic is left out, and the others are copied.
func TestTooLarge(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t)
		large := append(frame(1), make([]byte, 2<<20)...)
		s.publish(0, frame(0), large, frame(2))
		stage, end := s.running()
		time.Sleep(time.Minute)
		end()
		s.copied(0, 1)
		if copied, left := stage.Counts(); copied != 2 || left != 1 {
			t.Errorf("%d copied, %d left out", copied, left)
		}
	})
}
