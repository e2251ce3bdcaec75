package drain_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"testing"
	"testing/synctest"
	"time"

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

func options() spool.Options {
	return spool.Options{
		MaxBytes: 1 << 30, SegmentBytes: 1 << 20, RecordBytes: 1 << 20, Logger: slog.New(slog.DiscardHandler),
		Keys: func(body []byte) []string {
			e, err := entry.Decode(body)
			if err != nil {
				return nil
			}
			return entry.Runs(e.Messages)
		},
	}
}

func openSpool(t *testing.T, dir string) *spool.Queues {
	t.Helper()
	s, err := spool.OpenQueues(dir, options())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

// fill appends requests of three messages each, to two topics in turn. If named is true, they are
// in the queues of their topics, otherwise in the queue without a name.
func fill(t *testing.T, s *spool.Queues, requests int, named bool) {
	t.Helper()
	for i := range requests {
		e := &entry.Entry{Topic: fmt.Sprintf("topic-%d", i/7%2)}
		for n := range 3 {
			m := bus.NewMessage(fmt.Appendf(nil, "%04d-%d", i, n), bus.Target{Key: oona.Key("run", "layer")})
			m.Metadata.Set(oona.HeaderPath, "ingest-1")
			e.Messages = append(e.Messages, m)
		}
		name := ""
		if named {
			name = e.Topic
		}
		queue, err := s.Queue(name)
		if err == nil {
			err = queue.Append(t.Context(), entry.Runs(e.Messages), entry.Append(nil, e))
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

// If the bus fails at any call, another drain sends the rest, even in another process. No message is
// missing or out of order, or has another path.
func TestRepeat(t *testing.T) {
	t.Parallel()
	for _, named := range []bool{false, true} {
		repeats(t, named)
	}
}

func repeats(t *testing.T, named bool) {
	t.Helper()
	away := errors.New("the bus does not answer")
	for failing := 1; ; failing++ {
		dir := t.TempDir()
		s := openSpool(t, dir)
		fill(t, s, 30, named)
		p := &publisher{topics: make(map[string][]string), fail: func(call int, _ []*message.Message) error {
			if call == failing {
				return away
			}
			return nil
		}}
		first, err := (&drain.Drain{Spool: s, Publisher: p}).Run(t.Context())
		if err == nil && failing > 2 {
			return // the drain makes fewer calls than failing
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

// Messages that are too large together are sent one by one. If one message is too large by itself, the
// other messages of its request are sent, and the request is set aside.
func TestTooLarge(t *testing.T) {
	s := openSpool(t, t.TempDir())
	fill(t, s, 7, true)
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
		t.Errorf("the requests %v are set aside, and the bus has %v", aside, p.topics)
	}
}

// A drain with a rate sends each batch at the time at which that rate has sent all bytes before it.
func TestRate(t *testing.T) { synctest.Test(t, testRate) }

func testRate(t *testing.T) {
	const requests, rate = 30, 1000
	s := openSpool(t, t.TempDir())
	defer s.Close()
	fill(t, s, requests, false) // to two topics in turn, so there are several batches
	var sent []int              // how many requests were sent before each call
	var after []time.Duration   // when each call began
	began, before := time.Now(), 0
	p := &publisher{topics: make(map[string][]string), fail: func(_ int, messages []*message.Message) error {
		sent, after = append(sent, before), append(after, time.Since(began))
		before += len(messages) / 3
		return nil
	}}
	report, err := (&drain.Drain{Spool: s, Publisher: p, Rate: rate}).Run(t.Context())
	if err != nil || report.Requests != requests || len(sent) < 3 {
		t.Fatalf("%v, %+v, in %d batches", err, report, len(sent))
	}
	each := float64(report.Bytes) / requests // all have the same size
	for i, n := range sent {
		if due := time.Duration(float64(n) * each / rate * float64(time.Second)); (after[i] - due).Abs() > time.Microsecond {
			t.Errorf("a batch after %d requests is sent after %s, want %s", n, after[i], due)
		}
	}
}

// If the context has ended, nothing is sent.
func TestEnded(t *testing.T) {
	s := openSpool(t, t.TempDir())
	fill(t, s, 7, true)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	p := &publisher{topics: make(map[string][]string), fail: func(int, []*message.Message) error { return nil }}
	if report, err := (&drain.Drain{Spool: s, Publisher: p}).Run(ctx); !errors.Is(err, context.Canceled) || report.Left != 7 || len(p.topics) > 0 {
		t.Errorf("%v, %+v", err, report)
	}
}

// Requests for a topic that cannot be used stay in the spool, in order and with the same path. All
// others are sent. When the topic can be used, the rest is sent, too.
func TestUnusableTopic(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		err   error
		named bool // the requests are in queues with names
		known bool // the drain knows beforehand that the topic cannot be used
	}{
		"missing":         {fmt.Errorf("publish: %w", bus.ErrNoTopic), true, false},
		"denied":          {fmt.Errorf("publish: %w", bus.ErrDenied), true, false},
		"known":           {bus.ErrNoTopic, true, true},
		"earlier version": {bus.ErrNoTopic, false, false},
	} {
		dir := t.TempDir()
		s := openSpool(t, dir)
		fill(t, s, 30, test.named)
		unusable, asked := true, 0
		p := &publisher{topics: make(map[string][]string), fail: func(_ int, messages []*message.Message) error {
			if first := string(messages[0].Payload); unusable && first >= "0000" && first < "0007" || unusable && first >= "0014" && first < "0021" || unusable && first >= "0028" {
				asked++
				return test.err
			}
			return nil
		}}
		d := &drain.Drain{Spool: s, Publisher: p}
		if test.known {
			d.Unusable = map[string]error{"topic-0": test.err}
		}
		report, err := d.Run(t.Context())
		if err != nil || report.Requests != 14 || report.Left != 16 || len(report.Unusable) != 1 || report.Unusable["topic-0"] != 16 || !errors.Is(d.Unusable["topic-0"], test.err) {
			t.Errorf("%s: %v, %+v, %v", name, err, report, d.Unusable)
		}
		if want := map[bool]int{true: 0, false: 1}[test.known]; asked != want {
			t.Errorf("%s: the topic was tried %d times", name, asked)
		}
		if len(p.topics["topic-0"]) > 0 || len(p.topics["topic-1"]) != 42 {
			t.Errorf("%s: the bus has %v", name, p.topics)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		unusable = false
		s = openSpool(t, dir)
		report, err = (&drain.Drain{Spool: s, Publisher: p}).Run(t.Context())
		if err != nil || report.Requests != 16 || report.Left != 0 || len(report.Unusable) != 0 {
			t.Errorf("%s: then %v, %+v", name, err, report)
		}
		if sent := p.topics["topic-0"]; len(sent) != 48 || !slices.IsSorted(sent) || sent[0] != "spool/ingest-1 0000-0" {
			t.Errorf("%s: then the bus has %v", name, sent)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// If the process is killed before or after any batch, nothing is lost: the next drain sends all
// messages that were not sent, those of each topic in order. It may repeat the last ones.
func TestKilled(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct{ named, missing bool }{
		"queues":                             {named: true},
		"an earlier version":                 {},
		"an earlier version without a topic": {missing: true},
	} {
		dir := t.TempDir()
		opts := options()
		opts.SegmentBytes = 256 // so that files are removed during the drain
		s, err := spool.OpenQueues(dir, opts)
		if err != nil {
			t.Fatal(err)
		}
		fill(t, s, 28, test.named)
		type state struct {
			dir  string
			sent map[string]int // messages that the bus has then, by topic
		}
		var states []state
		p := &publisher{topics: make(map[string][]string)}
		snapshot := func() {
			at := state{dir: t.TempDir(), sent: make(map[string]int)}
			if err := os.CopyFS(at.dir, os.DirFS(dir)); err != nil {
				t.Fatal(err)
			}
			for topic, sent := range p.topics {
				at.sent[topic] = len(sent)
			}
			states = append(states, at)
		}
		p.fail = func(_ int, messages []*message.Message) error {
			snapshot()
			if test.missing && string(messages[0].Payload) < "0007" {
				return bus.ErrNoTopic
			}
			return nil
		}
		d := &drain.Drain{Spool: s, Publisher: p, Sent: func(int) { snapshot() }}
		if _, err := d.Run(t.Context()); err != nil {
			t.Fatal(err)
		}
		snapshot()
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		removed := false
		for n, at := range states {
			again, err := spool.OpenQueues(at.dir, opts)
			if err != nil {
				t.Fatal(err)
			}
			after := &publisher{topics: make(map[string][]string), fail: func(int, []*message.Message) error { return nil }}
			report, err := (&drain.Drain{Spool: again, Publisher: after}).Run(t.Context())
			if err != nil || report.Left+report.Lost+report.Aside > 0 {
				t.Fatalf("%s: after a kill in state %d: %v, %+v", name, n, err, report)
			}
			for topic := range 2 {
				var all []string
				for i := range 28 {
					for part := range 3 {
						if i/7%2 == topic {
							all = append(all, fmt.Sprintf("spool/ingest-1 %04d-%d", i, part))
						}
					}
				}
				of := fmt.Sprintf("topic-%d", topic)
				got := after.topics[of]
				repeats := len(got) - (len(all) - at.sent[of])
				if repeats < 0 || len(got) > len(all) || !slices.Equal(got, all[len(all)-len(got):]) {
					t.Errorf("%s: after a kill in state %d, when the bus had %d of %s, the next drain sends %v", name, n, at.sent[of], of, got)
				}
				removed = removed || len(got) < len(all)
			}
			if err := again.Close(); err != nil {
				t.Fatal(err)
			}
		}
		if len(states) < 4 || !removed {
			t.Errorf("%s: %d states, and something was done in one of them: %t", name, len(states), removed)
		}
	}
}
