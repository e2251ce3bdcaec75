package deadletters_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/bus"
	"github.com/morphogenetic/oona/bus/kafka"
	"github.com/morphogenetic/oona/bus/kafka/embedded"
	"github.com/morphogenetic/oona/deadletters"
	"github.com/morphogenetic/oona/intake"
	"github.com/morphogenetic/oona/pipeline"
	"github.com/morphogenetic/oona/pipeline/aggregate"
	"github.com/morphogenetic/oona/schemas/avro"
	"github.com/morphogenetic/oona/windows"
)

// world is a broker, with an aggregator if a test starts it.
type world struct {
	t         *testing.T
	bus       *kafka.Bus
	topics    oona.Topics
	publisher bus.Publisher
}

func newWorld(t *testing.T) *world {
	t.Helper()
	broker, err := embedded.Start(t.Context(), embedded.Options{Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = broker.Close() })
	w := &world{t: t, bus: kafka.New(kafka.Config{Brokers: broker.Addrs, ClientID: "test", Settle: 20 * time.Millisecond, Patience: 2 * time.Minute}, slog.New(slog.DiscardHandler))}
	if w.topics, err = oona.NewTopics(oona.DefaultPrefix); err != nil {
		t.Fatal(err)
	}
	if _, err := w.bus.Apply(t.Context(), append(append(w.topics.Specs(2), w.topics.RawSpecs(1)...), w.topics.RedrivesSpec())); err != nil {
		t.Fatal(err)
	}
	if w.publisher, err = w.bus.Publisher(bus.PublisherOptions{MaxMessageBytes: oona.MaxSideBytes}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = w.publisher.Close() })
	return w
}

func (w *world) publish(topic string, messages ...*message.Message) {
	w.t.Helper()
	if err := w.publisher.Publish(w.t.Context(), topic, messages...); err != nil {
		w.t.Fatal(err)
	}
}

// frame returns a frame that is observed at a time.
func frame(sequence int64, at time.Time) *oona.Frame {
	return &oona.Frame{
		Run: "a", Layer: "enc.0", Producer: "p", Epoch: 1_790_000_000_000_000, Sequence: sequence, ObservedAt: oona.MicrosOf(at), Step: 7,
		Seeds: []oona.SeedID{3, 4}, States: []oona.State{oona.Training, oona.Dormant},
		Metrics: []oona.Column{{Name: "gradient_norm", Values: []float32{0.1, 3.25}}},
	}
}

func frameMessage(f *oona.Frame) *message.Message {
	msg := bus.NewMessage(avro.AppendFrame(nil, f), bus.Target{Key: oona.Key(f.Run, f.Layer)})
	msg.Metadata.Set(oona.HeaderPath, "ingest-0")
	return msg
}

// letter publishes a record to a side topic, as a stage does.
func (w *world) letter(topic string, msg *message.Message, offset int64, reason string) {
	w.t.Helper()
	at := bus.Position{Topic: w.topics.SeedMetrics, Partition: 1, Offset: offset, Incarnation: 77, Key: bus.TargetOf(msg).Key, Appended: oona.MicrosOf(time.Now())}
	if topic == w.topics.SeedRawDead {
		at.Topic, at.Partition, at.Incarnation = w.topics.SeedRaw, 0, 0
	}
	w.publish(topic, pipeline.SideMessage(msg, at, pipeline.Rejection{Stage: "aggregate", Reason: reason, Detail: "because"}))
}

// records returns the records of a topic, partition by partition.
func (w *world) records(topic string) (all []*message.Message) {
	w.t.Helper()
	extents, err := w.bus.Extents(w.t.Context(), topic)
	for p, held := range extents[topic] {
		err = errors.Join(err, w.bus.Read(w.t.Context(), topic, bus.Range{Partition: int32(p), End: held.End}, func(msg *message.Message) error {
			all = append(all, msg)
			return nil
		}))
	}
	if err != nil {
		w.t.Fatal(err)
	}
	return all
}

// frames returns the frames that were redriven, in their order.
func (w *world) redriven() (all []*oona.Frame) {
	w.t.Helper()
	for _, msg := range w.records(w.topics.SeedMetrics) {
		if msg.Metadata.Get(oona.HeaderRedrivenFrom) == "" {
			continue
		}
		var decoder avro.FrameDecoder
		decoder.Limits = oona.DefaultFrameLimits
		f := new(oona.Frame)
		if rest, err := decoder.Decode(msg.Payload, f); err != nil || len(rest) > 0 {
			w.t.Fatalf("%d bytes left, %v", len(rest), err)
		}
		all = append(all, f)
	}
	return all
}

// redrive returns a redrive of everything.
func (w *world) redrive() *deadletters.Redrive {
	w.t.Helper()
	ledger, err := deadletters.OpenLedger(w.t.Context(), w.bus, w.topics, slog.New(slog.DiscardHandler))
	if err != nil {
		w.t.Fatal(err)
	}
	return &deadletters.Redrive{
		Box:       &deadletters.Box{Bus: w.bus, Ledger: ledger, Topics: w.topics.Sides()},
		Publisher: w.publisher, Topics: w.topics, Call: "c1", By: "alice",
		Checks: deadletters.Checks{MaxBodyBytes: 8 << 20, Intake: intake.Config{
			Frame: oona.DefaultFrameLimits, MaxFrames: 1024, MaxDecompressedBytes: 16 << 20, MaxRecordBytes: oona.DefaultRecordBytes - 1024, InlineTensorBytes: 16 << 10,
		}},
	}
}

func (w *world) run(r *deadletters.Redrive) *deadletters.Report {
	w.t.Helper()
	report, err := r.Run(w.t.Context())
	if err != nil {
		w.t.Fatal(err)
	}
	return report
}

// states counts the letters by state.
func (w *world) states() map[deadletters.State]int {
	w.t.Helper()
	counts := make(map[deadletters.State]int)
	err := w.redrive().Box.Each(w.t.Context(), &deadletters.Selection{}, nil, func(l *deadletters.Letter) error {
		counts[l.Outcome.State]++
		return nil
	})
	if err != nil {
		w.t.Fatal(err)
	}
	return counts
}

// aggregate folds all that comes. The function waits until n records of the log are
// processed, and returns the counts.
func (w *world) aggregate() func(n int64) aggregate.Counts {
	w.t.Helper()
	windowing := windows.DefaultConfig()
	windowing.TickInterval = time.Minute // fewer records that are not frames
	windowing.IdleHorizon = 4 * time.Minute
	out, err := w.bus.Publisher(bus.RollupOptions())
	if err != nil {
		w.t.Fatal(err)
	}
	known := func(name string) oona.Metric { return oona.Metric{Name: name, Group: oona.Health} }
	cfg := aggregate.Config{Worker: "test", Topics: w.topics, Windows: windowing, Limits: oona.DefaultFrameLimits}
	stage, err := aggregate.New(cfg, windows.Always(known), out, prometheus.NewRegistry(), slog.New(slog.DiscardHandler))
	if err != nil {
		w.t.Fatal(err)
	}
	member, err := w.bus.Member(bus.MemberOptions{Group: aggregate.DefaultGroup}, stage)
	if err != nil {
		w.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(w.t.Context())
	ended := make(chan error, 1)
	go func() { ended <- stage.Run(ctx, member) }()
	w.t.Cleanup(func() {
		cancel()
		if err := errors.Join(<-ended, member.Close(), out.Close()); err != nil {
			w.t.Error(err)
		}
	})
	return func(n int64) aggregate.Counts {
		w.t.Helper()
		for deadline := time.Now().Add(5 * time.Minute); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
			c := stage.Counts()
			if frames := c.Folded + c.Duplicate + c.Late + c.Quarantined + c.Overflowed + c.Dead; frames >= n && c.Pending == 0 {
				return c
			}
		}
		w.t.Fatalf("%+v, want %d records", stage.Counts(), n)
		return aggregate.Counts{}
	}
}

// mortal is a publisher that a process has until it is killed.
type mortal struct {
	bus.Publisher
	dies func(topic string, published bool) bool
	dead bool
}

var errKilled = errors.New("killed")

func (m *mortal) Publish(ctx context.Context, topic string, messages ...*message.Message) error {
	if m.dead = m.dead || m.dies(topic, false); m.dead {
		return errKilled
	}
	err := m.Publisher.Publish(ctx, topic, messages...)
	if m.dead = m.dies(topic, true); m.dead {
		return errKilled
	}
	return err
}

// A redrive that is killed at any place, and called again with another repair, sends the
// frames that it began to send, and the real engine folds each of them once.
func TestKilledRedriveIsFoldedOnce(t *testing.T) {
	for name, dies := range map[string]func(*world) func(string, bool) bool{
		"before pending is written": func(w *world) func(string, bool) bool {
			return func(topic string, published bool) bool { return topic == w.topics.Redrives && !published }
		},
		"between pending and send": func(w *world) func(string, bool) bool {
			return func(topic string, _ bool) bool { return topic == w.topics.SeedMetrics }
		},
		"between send and done": func(w *world) func(string, bool) bool {
			return func(topic string, published bool) bool { return topic == w.topics.SeedMetrics && published }
		},
		"after done is written": func(w *world) func(string, bool) bool {
			writes := 0
			return func(topic string, published bool) bool {
				if topic == w.topics.Redrives && published {
					writes++
				}
				return writes == 2
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			const letters = 5
			now := time.Now()
			for i := range int64(letters) {
				w.publish(w.topics.SeedMetrics, frameMessage(frame(i, now.Add(time.Hour))))
			}
			counts := w.aggregate()
			if c := counts(letters); c.Quarantined != letters {
				t.Fatalf("%+v", c)
			}
			first := w.redrive()
			first.Repair.Shift = -time.Hour
			first.Publisher = &mortal{Publisher: w.publisher, dies: dies(w)}
			if _, err := first.Run(t.Context()); !errors.Is(err, errKilled) {
				t.Fatalf("the first call: %v", err)
			}
			begun := w.states()[deadletters.Pending]
			second := w.redrive()
			second.Call = "c2"
			second.Repair.Shift = -time.Hour
			if begun > 0 { // otherwise the frames would be others
				second.Repair.Shift = -time.Hour - time.Second
			}
			report := w.run(second)
			if report.Redriven+report.Done != letters || report.Finished != begun || len(report.Refused) > 0 {
				t.Errorf("%+v, begun %d", report, begun)
			}
			sent := int64(len(w.redriven()))
			if c := counts(letters + sent); c.Folded != letters || c.Duplicate != sent-letters || c.Quarantined != letters {
				t.Errorf("%+v; sent %d times", c, sent)
			}
			if s := w.states(); s[deadletters.Done] != letters || len(s) != 1 {
				t.Errorf("states %v", s)
			}
			third := w.redrive()
			if report := w.run(third); report.Done != letters || report.Redriven != 0 || int64(len(w.redriven())) != sent {
				t.Errorf("a third call: %+v", report)
			}
		})
	}
}

// Redriven frames say where they come from and who has sent them, come over a path of
// their own, and keep their order.
func TestRedrivenRecords(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	at := time.Now()
	for i := range int64(200) {
		msg := frameMessage(frame(i, at))
		msg.Metadata.Set(oona.HeaderTraceparent, "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
		w.letter(w.topics.Overflow, msg, i, "layers")
	}
	if report := w.run(w.redrive()); report.Redriven != 200 || report.Frames != 200 {
		t.Fatalf("%+v", report)
	}
	all := w.records(w.topics.SeedMetrics)
	for i, msg := range all {
		want := fmt.Sprintf("%s/1/77/%d", w.topics.SeedMetrics, i)
		if m := msg.Metadata; m.Get(oona.HeaderRedrivenFrom) != want || m.Get(oona.HeaderRedrivenBy) != "alice" || m.Get(oona.HeaderPath) != "redrive/c1" ||
			m.Get(oona.HeaderTraceparent) == "" || m.Get(oona.HeaderErrorTopic) != "" {
			t.Fatalf("record %d: %v", i, m)
		}
		place, err := deadletters.ParsePlace(want)
		if err != nil || place.String() != want {
			t.Fatalf("%v, %v", place, err)
		}
	}
	for i, f := range w.redriven() {
		if f.Sequence != int64(i) {
			t.Fatalf("frame %d has sequence %d", i, f.Sequence)
		}
	}
}

// What can never be folded is not sent.
func TestRefused(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	at := time.Now()
	w.letter(w.topics.Late, frameMessage(frame(0, at)), 0, "late")
	w.letter(w.topics.Late, frameMessage(frame(1, at)), 1, "lost-history")
	own := frameMessage(frame(2, at))
	own.Metadata.Set(oona.HeaderRecord, "configuration/9")
	w.letter(w.topics.SeedMetricsDead, own, 2, "undecodable")
	w.letter(w.topics.SeedMetricsDead, bus.NewMessage([]byte("noise"), bus.Target{}), 3, "undecodable")
	empty := bus.NewMessage(nil, bus.Target{})
	w.letter(w.topics.SeedMetricsDead, empty, 4, "undecodable")
	invalid := frame(5, at)
	invalid.States = invalid.States[:1]
	w.letter(w.topics.SeedMetricsDead, frameMessage(invalid), 5, "invalid")
	large := pipeline.SideMessage(frameMessage(frame(6, at)), bus.Position{Topic: w.topics.SeedMetrics, Offset: 6}, pipeline.Rejection{Reason: "layers"})
	if !pipeline.WithoutPayload(large) {
		t.Fatal("the payload is not left out")
	}
	w.publish(w.topics.Overflow, large)
	report := w.run(w.redrive())
	want := map[string]int{"late": 2, "own-record": 1, "undecodable": 1, "left-out": 1, "empty": 1, "invalid": 1}
	for reason, n := range want {
		if got := report.Refused[reason]; got == nil || got.Count != n {
			t.Errorf("%s: %+v, want %d", reason, got, n)
		}
	}
	if len(report.Refused) != len(want) || report.Redriven != 0 || report.Late() == nil || len(w.records(w.topics.SeedMetrics)) != 0 || len(w.records(w.topics.Redrives)) != 0 {
		t.Errorf("%+v", report)
	}
}

// Frames that would be quarantined again are not sent, unless their time is repaired, or
// an earlier call has begun to send them.
func TestWrongTimes(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.letter(w.topics.Quarantine, frameMessage(frame(0, time.Now().Add(time.Hour))), 0, "future")
	w.letter(w.topics.Quarantine, frameMessage(frame(1, time.Now().Add(-48*time.Hour))), 1, "stale")
	redrive := func(shift time.Duration) *deadletters.Redrive {
		r := w.redrive()
		r.Checks.MaxSkew, r.Checks.MaxDelay, r.Repair.Shift = time.Minute, 24*time.Hour, shift
		return r
	}
	if report := w.run(redrive(0)); report.Redriven != 0 || report.Refused["future"].Count != 1 || report.Refused["stale"].Count != 1 {
		t.Errorf("%+v", report)
	}
	killed := w.redrive() // without those checks
	killed.Selection.Reasons = []string{"future"}
	killed.Publisher = &mortal{Publisher: w.publisher, dies: func(topic string, _ bool) bool { return topic == w.topics.SeedMetrics }}
	if _, err := killed.Run(t.Context()); !errors.Is(err, errKilled) {
		t.Fatal(err)
	}
	if report := w.run(redrive(0)); report.Redriven != 1 || report.Finished != 1 || report.Refused["stale"].Count != 1 {
		t.Errorf("%+v", report)
	}
	if report := w.run(redrive(47 * time.Hour)); report.Redriven != 1 || report.Done != 1 {
		t.Errorf("%+v", report)
	}
}

// Records of other topics are listed, and not sent.
func TestOtherDeadLetters(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	const topic = "kasmina.telemetry.layer.health.dead"
	if _, err := w.bus.Apply(t.Context(), []oona.TopicSpec{{Name: topic, Partitions: 1}}); err != nil {
		t.Fatal(err)
	}
	w.letter(topic, bus.NewMessage([]byte("a rollup"), bus.Target{}), 1, "undecodable")
	r := w.redrive()
	r.Box.Topics = []string{topic}
	if report := w.run(r); report.Selected != 1 || report.Refused["not-frames"] == nil || report.Redriven != 0 {
		t.Errorf("%+v", report)
	}
}

// Repeats of a letter in a side topic are one letter.
func TestRepeatsAreSentOnce(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	msg := frameMessage(frame(0, time.Now()))
	w.letter(w.topics.Overflow, msg, 0, "layers")
	w.letter(w.topics.Overflow, msg, 0, "layers")
	dry := w.redrive()
	dry.DryRun = true
	for _, r := range []*deadletters.Redrive{dry, w.redrive()} {
		if report := w.run(r); report.Redriven != 1 || report.Repeats != 1 || report.DryRun != r.DryRun {
			t.Errorf("%+v", report)
		}
	}
	if n := len(w.redriven()); n != 1 {
		t.Errorf("sent %d times", n)
	}
}

func TestRepairs(t *testing.T) {
	t.Parallel()
	at := time.Now().Truncate(time.Microsecond)
	for name, tt := range map[string]struct {
		repair deadletters.Repair
		want   func(*oona.Frame)
	}{
		"epoch":            {deadletters.Repair{Epoch: 42}, func(f *oona.Frame) { f.Epoch = 42 }},
		"time":             {deadletters.Repair{Shift: -time.Hour}, func(f *oona.Frame) { f.ObservedAt -= 3_600_000_000 }},
		"filter":           {deadletters.Repair{Filter: `sed 's/enc\.0/enc.9/'`}, func(f *oona.Frame) { f.Layer = "enc.9" }},
		"all of them":      {deadletters.Repair{Epoch: 42, Shift: time.Second, Filter: `sed 's/enc\.0/enc.9/'`}, func(f *oona.Frame) { f.Epoch, f.Layer = 42, "enc.9"; f.ObservedAt += 1_000_000 }},
		"an idle filter":   {deadletters.Repair{Filter: "cat"}, func(*oona.Frame) {}},
		"a filter to skip": {deadletters.Repair{Filter: "grep nothing || true"}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			w.letter(w.topics.Quarantine, frameMessage(frame(0, at)), 0, "future")
			value := fmt.Sprintf(`{"run_id":"a","layer_id":"enc.0","producer_id":"p","producer_epoch":1790000000000000,"sequence":0,"observed_at":%d,"step":7,
				"seed_ids":[3,4],"states":["TRAINING","DORMANT"],"metrics":[{"name":"gradient_norm","values":[0.1,3.25]}]}`, at.UnixMicro())
			w.letter(w.topics.SeedRawDead, bus.NewMessage([]byte(value), bus.Target{Key: []byte("any")}), 1, "dangling")
			r := w.redrive()
			r.Repair = tt.repair
			report := w.run(r)
			sent := w.redriven()
			if tt.want == nil {
				if report.Skipped != 2 || len(sent) != 0 || w.states()[deadletters.Open] != 2 {
					t.Errorf("%+v, %d sent", report, len(sent))
				}
				return
			}
			want := frame(0, at)
			tt.want(want)
			if len(sent) != 2 {
				t.Fatalf("%+v: %d sent", report, len(sent))
			}
			for _, got := range sent {
				if string(avro.AppendFrame(nil, got)) != string(avro.AppendFrame(nil, want)) {
					t.Errorf("sent %+v, want %+v", got, want)
				}
			}
		})
	}
}

// A filter gets the bytes of what cannot be decoded, and may answer with frames.
func TestFilterMendsUndecodable(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.letter(w.topics.SeedRawDead, bus.NewMessage([]byte(`{"run_id":"a","layer_id":"enc.0",`), bus.Target{}), 1, "undecodable")
	r := w.redrive()
	r.Repair.Filter = `grep -q '"value":"eyJydW5faWQi' && echo '{"frames":[{"run_id":"a","layer_id":"enc.0","producer_id":"p","producer_epoch":1,"sequence":0,"observed_at":1790000001000000,"seed_ids":[1],"states":[2]}]}'`
	if report := w.run(r); report.Redriven != 1 {
		t.Errorf("%+v", report.Refused)
	}
}

// A bad answer ends the redrive, names the letter, and leaves it as it was.
func TestBadFilters(t *testing.T) {
	t.Parallel()
	for _, filter := range []string{"echo hi", "exit 3", `echo '{"frames":[]}'`, "cat; cat /dev/null; echo '{}'", "no-such-program", "cat /dev/zero", "cat /dev/zero >&2"} {
		t.Run(filter, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			w.letter(w.topics.Quarantine, frameMessage(frame(0, time.Now())), 0, "future")
			r := w.redrive()
			r.Repair.Filter = filter
			_, err := r.Run(t.Context())
			wrong, ok := errors.AsType[*deadletters.FilterError](err)
			if !ok || wrong.Letter != (deadletters.Place{Topic: w.topics.Quarantine}) {
				t.Errorf("%v", err)
			}
			if s := w.states(); s[deadletters.Open] != 1 {
				t.Errorf("states %v", s)
			}
		})
	}
}

// Of two redrives with different repairs at the same time, one sends.
func TestOtherRedriveWins(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.letter(w.topics.Quarantine, frameMessage(frame(0, time.Now())), 0, "future")
	second := w.redrive() // it knows nothing of the first
	second.Call, second.Repair.Shift = "c2", -time.Minute
	first := w.redrive()
	first.Repair.Shift = -time.Hour
	w.run(first)
	if _, err := second.Run(t.Context()); !errors.Is(err, deadletters.ErrOtherRedrive) {
		t.Errorf("%v", err)
	}
	if s := w.states(); s[deadletters.Done] != 1 || len(w.redriven()) != 1 {
		t.Errorf("states %v", s)
	}
}

// A letter that a redrive has begun to send is pending again after discard and undo, so
// that the next redrive sends the same frames.
func TestDiscardOfPending(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.letter(w.topics.Quarantine, frameMessage(frame(0, time.Now())), 0, "conflict")
	first := w.redrive()
	first.Repair.Epoch = 42
	first.Publisher = &mortal{Publisher: w.publisher, dies: func(topic string, published bool) bool { return topic == w.topics.SeedMetrics && published }}
	if _, err := first.Run(t.Context()); !errors.Is(err, errKilled) {
		t.Fatalf("the first call: %v", err)
	}
	for _, undo := range []bool{false, true} {
		d := deadletters.Discard{Box: w.redrive().Box, Publisher: w.publisher, Call: "d", By: "alice", Undo: undo}
		if report, err := d.Run(t.Context()); err != nil || report.Changed != 1 {
			t.Fatalf("%+v, %v", report, err)
		}
	}
	if s := w.states(); s[deadletters.Pending] != 1 {
		t.Errorf("states %v", s)
	}
	second := w.redrive()
	second.Repair.Epoch = 43
	if report := w.run(second); report.Finished != 1 {
		t.Errorf("%+v", report)
	}
	for _, f := range w.redriven() {
		if f.Epoch != 42 {
			t.Errorf("a frame has the epoch %d", f.Epoch)
		}
	}
}

func TestDiscard(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for i := range int64(3) {
		w.letter(w.topics.Overflow, frameMessage(frame(i, time.Now())), i, []string{"layers", "seeds"}[i/2])
	}
	discard := func(undo bool, s deadletters.Selection) deadletters.DiscardReport {
		t.Helper()
		d := deadletters.Discard{Box: w.redrive().Box, Publisher: w.publisher, Selection: s, Call: "d", By: "alice", Undo: undo}
		report, err := d.Run(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return report
	}
	layers := deadletters.Selection{Reasons: []string{"layers"}}
	if r := discard(false, layers); r.Selected != 2 || r.Changed != 2 {
		t.Errorf("%+v", r)
	}
	if r := discard(false, layers); r.Changed != 0 {
		t.Errorf("again: %+v", r)
	}
	if r := w.run(w.redrive()); r.Redriven != 1 || r.Discarded != 2 {
		t.Errorf("%+v", r)
	}
	if r := discard(true, deadletters.Selection{}); r.Changed != 2 || r.Done != 1 {
		t.Errorf("undo: %+v", r)
	}
	if s := w.states(); s[deadletters.Open] != 2 || s[deadletters.Done] != 1 {
		t.Errorf("states %v", s)
	}
}
