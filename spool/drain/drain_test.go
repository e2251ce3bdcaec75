package drain_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"testing"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/bus"
	"github.com/morphogenetic/oona/spool"
	"github.com/morphogenetic/oona/spool/drain"
	"github.com/morphogenetic/oona/spool/entry"
)

// publisher is a bus that fails at some calls.
type publisher struct {
	calls  int
	fail   func(call int, messages []*message.Message) error
	topics map[string][]string // payloads, with their paths, by topic
}

func (p *publisher) Publish(ctx context.Context, topic string, messages ...*message.Message) error {
	p.calls++
	if err := errors.Join(ctx.Err(), p.fail(p.calls, messages)); err != nil {
		return err
	}
	for _, m := range messages {
		p.topics[topic] = append(p.topics[topic], m.Metadata.Get(oona.HeaderPath)+" "+string(m.Payload))
	}
	return nil
}

func (p *publisher) Close() error { return nil }

func openSpool(t *testing.T, dir string) *spool.Spool {
	t.Helper()
	fs, err := spool.OpenDirectory(dir)
	if err != nil {
		t.Fatal(err)
	}
	s, err := spool.Open(fs, spool.Options{
		MaxBytes: 1 << 30, SegmentBytes: 1 << 20, RecordBytes: 1 << 20, Logger: slog.New(slog.DiscardHandler),
		Keys: func([]byte) []string { return nil },
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

// fill appends requests of three messages, which go to two topics in turn.
func fill(t *testing.T, s *spool.Spool, requests int) {
	t.Helper()
	for i := range requests {
		e := &entry.Entry{Topic: fmt.Sprintf("topic-%d", i/7%2)}
		for n := range 3 {
			m := bus.NewMessage(fmt.Appendf(nil, "%04d-%d", i, n), bus.Target{Key: []byte("key")})
			m.Metadata.Set(oona.HeaderPath, "ingest-1")
			e.Messages = append(e.Messages, m)
		}
		if err := s.Append(t.Context(), nil, entry.Append(nil, e)); err != nil {
			t.Fatal(err)
		}
	}
}

// At whichever call the bus fails: a repeat, also in another process, sends the rest, and
// nothing is missing, is out of order or has another path.
func TestRepeat(t *testing.T) {
	away := errors.New("the bus is away")
	for failing := 1; ; failing++ {
		dir := t.TempDir()
		s := openSpool(t, dir)
		fill(t, s, 30)
		p := &publisher{topics: make(map[string][]string), fail: func(call int, _ []*message.Message) error {
			if call == failing {
				return away
			}
			return nil
		}}
		first, err := (&drain.Drain{Spool: s, Publisher: p}).Run(t.Context())
		if err == nil && failing > 3 {
			return // there are not so many calls
		}
		if !errors.Is(err, away) || first.Requests+first.Left != 30 {
			t.Fatalf("call %d: %v, %+v", failing, err, first)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		s = openSpool(t, dir)
		second, err := (&drain.Drain{Spool: s, Publisher: p}).Run(t.Context())
		if err != nil || first.Requests+second.Requests != 30 || second.Left != 0 || !s.Empty() {
			t.Fatalf("call %d: %v, %+v", failing, err, second)
		}
		for topic, sent := range p.topics {
			if !slices.IsSorted(sent) || len(slices.Compact(slices.Clone(sent))) != len(sent) || sent[0][:15] != "spool/ingest-1 " {
				t.Errorf("call %d: %s has %v", failing, topic, sent)
			}
		}
		if n := len(p.topics["topic-0"]) + len(p.topics["topic-1"]); n != 90 {
			t.Errorf("call %d: the bus has %d messages", failing, n)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// What is too large together is sent singly, and a request with a message that is too large by
// itself is set aside when the others of it are sent.
func TestTooLarge(t *testing.T) {
	s := openSpool(t, t.TempDir())
	fill(t, s, 7)
	p := &publisher{topics: make(map[string][]string), fail: func(_ int, messages []*message.Message) error {
		if len(messages) > 1 || string(messages[0].Payload) == "0004-1" {
			return fmt.Errorf("publish: %w", bus.ErrTooLarge)
		}
		return nil
	}}
	var aside []uint64
	d := &drain.Drain{Spool: s, Publisher: p, Aside: func(sequence uint64, _ error) { aside = append(aside, sequence) }}
	report, err := d.Run(t.Context())
	if err != nil || report.Requests != 6 || report.Aside != 1 || report.Topics["topic-0"] != 20 || !s.Empty() {
		t.Errorf("%v, %+v", err, report)
	}
	if len(p.topics["topic-0"]) != 20 || !slices.Equal(aside, []uint64{4}) {
		t.Errorf("%v are set aside, the bus has %v", aside, p.topics)
	}
}

// Without time nothing is sent.
func TestEnded(t *testing.T) {
	s := openSpool(t, t.TempDir())
	fill(t, s, 7)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	p := &publisher{topics: make(map[string][]string), fail: func(int, []*message.Message) error { return nil }}
	if report, err := (&drain.Drain{Spool: s, Publisher: p}).Run(ctx); !errors.Is(err, context.Canceled) || report.Left != 7 || len(p.topics) > 0 {
		t.Errorf("%v, %+v", err, report)
	}
}
