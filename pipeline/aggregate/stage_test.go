package aggregate_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"runtime"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/bus"
	"github.com/morphogenetic/oona/bus/memory"
	"github.com/morphogenetic/oona/pipeline/aggregate"
	"github.com/morphogenetic/oona/pipeline/partition"
	"github.com/morphogenetic/oona/schemas/avro"
	"github.com/morphogenetic/oona/windows"
)

var errBusDown = errors.New("the bus is down")

// outputs is a bus that keeps the messages that a stage publishes, and refuses some on demand. Ticks
// do not come back to the stage unless a test appends them.
type outputs struct {
	bus.Publisher
	bus       *memory.Bus
	failures  atomic.Int64 // number of messages that will still be refused
	failed    atomic.Int64 // number of messages that were refused
	onFailure func()       // called when a message is refused
}

func newOutputs(t testing.TB) *outputs {
	t.Helper()
	topics, err := oona.NewTopics(oona.DefaultPrefix)
	if err != nil {
		t.Fatal(err)
	}
	o := &outputs{bus: memory.New()}
	if _, err = o.bus.Apply(t.Context(), topics.Specs(5)); err == nil {
		o.Publisher, err = o.bus.Publisher(bus.PublisherOptions{})
	}
	if err != nil {
		t.Fatal(err)
	}
	o.bus.Refuse(func(string, int32) error {
		if o.failures.Add(-1) < 0 {
			return nil
		}
		o.failed.Add(1)
		if o.onFailure != nil {
			o.onFailure()
		}
		return errBusDown
	})
	return o
}

// of returns the messages of a topic.
func (o *outputs) of(t testing.TB, topic string) (all []*message.Message) {
	t.Helper()
	extents, err := o.bus.Extents(t.Context(), topic)
	for partition, held := range extents[topic] {
		err = errors.Join(err, o.bus.Read(t.Context(), topic, bus.Range{Partition: int32(partition), End: held.End}, func(msg *message.Message) error {
			all = append(all, msg)
			return nil
		}))
	}
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// member returns a member that is closed at the end of the test.
func (o *outputs) member(t *testing.T, opts bus.MemberOptions, owner bus.Owner) bus.Member {
	t.Helper()
	m, err := o.bus.Member(opts, owner)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := m.Close(); err != nil {
			t.Error(err)
		}
	})
	return m
}

// positionOf returns the position of a message in outputs.
func positionOf(t *testing.T, msg *message.Message) bus.Position {
	t.Helper()
	at, err := bus.PositionOf(msg)
	if err != nil {
		t.Fatal(err)
	}
	return at
}

// feed is a member with one assignment, to which a test appends records. Decision 0023
// says why it is not one of bus/memory.
type feed struct {
	stage      *aggregate.Stage
	assignment bus.Assignment
	messages   chan *message.Message
	next       int64
	taken      atomic.Pointer[bus.Consumer]
}

// consumer returns the Consumer of the assignment. It waits until there is one.
func (f *feed) consumer() bus.Consumer {
	for f.taken.Load() == nil {
		runtime.Gosched() // a sleep would advance the fake clock
	}
	return *f.taken.Load()
}

// commit asks the consumer for a commit.
func (f *feed) commit() (bus.Commit, bool) { return f.consumer().Commit() }

// begin returns the first offset of an assignment that has lost nothing.
func begin(a bus.Assignment) int64 {
	from, _ := a.Resume()
	return from
}

func (f *feed) Joined() error { return nil }

func (f *feed) Subscribe(ctx context.Context, _ string) (<-chan *message.Message, error) {
	_, consumer, err := f.stage.Assign(ctx, f.assignment)
	if err != nil {
		return nil, err
	}
	f.taken.Store(&consumer)
	return f.messages, nil
}

func (f *feed) Close() error { return nil }

// message returns the next record.
func (f *feed) message(payload []byte, appended time.Time, headers map[string]string) *message.Message {
	msg := message.NewMessage("", payload)
	for name, value := range headers {
		msg.Metadata[name] = value
	}
	msg.SetContext(bus.WithPosition(context.Background(), bus.Position{
		Topic: f.assignment.Topic, Partition: f.assignment.Partition, Offset: f.next, Appended: oona.MicrosOf(appended),
		Key: []byte("key"), Consumer: f.consumer(),
	}))
	return msg
}

// append delivers a record until it is acknowledged. It returns the number of deliveries.
func (f *feed) append(payload []byte, appended time.Time, headers map[string]string) int {
	for deliveries := 1; ; deliveries++ {
		msg := f.message(payload, appended, headers)
		deadline := time.After(time.Minute)
		select {
		case f.messages <- msg:
		case <-deadline:
			panic("the stage takes no record")
		}
		select {
		case <-msg.Acked():
			f.next++
			return deliveries
		case <-msg.Nacked():
			if deliveries == 100 {
				panic("a record was refused 100 times")
			}
		case <-deadline:
			panic("the stage does not settle a record")
		}
	}
}

// pass lets seconds pass. In each second, the leader reports the given end of the log.
func (f *feed) pass(seconds int, end int64) {
	for range seconds {
		time.Sleep(time.Second)
		f.consumer().End(end)
	}
}

type fixture struct {
	stage    *aggregate.Stage
	feed     *feed
	out      *outputs
	log      bytes.Buffer // read it only after the stage has stopped
	topics   oona.Topics
	registry *prometheus.Registry
	stop     func()
	begin    time.Time
	sequence int64

	catalogue func(string) oona.Metric // if nil, every metric belongs to the group health
	others    windows.Catalogues       // if nil, catalogue is used for every hash
}

func (f *fixture) catalogues() windows.Catalogues {
	if f.others != nil {
		return f.others
	}
	return windows.Always(f.catalogue)
}

// start runs a stage over a log that begins at offset 0.
func start(t *testing.T, configure func(*aggregate.Config)) *fixture {
	t.Helper()
	return startWith(t, wholeAssignment(), configure)
}

// wholeAssignment is an assignment of a log that begins at offset 0, without a commit.
func wholeAssignment() bus.Assignment {
	return bus.Assignment{Topic: "kasmina.telemetry.seed.metrics", Partition: 3, Partitions: 4, LogEnd: 1, Settled: true, Committed: bus.Commit{Offset: oona.NoOffset}}
}

// newStage makes a stage without assignments.
func newStage(t *testing.T, f *fixture, configure func(*aggregate.Config)) *aggregate.Stage {
	t.Helper()
	topics, err := oona.NewTopics(oona.DefaultPrefix)
	if err != nil {
		t.Fatal(err)
	}
	cfg := aggregate.Config{Worker: "w0", Topics: topics, Windows: windows.DefaultConfig(), Limits: oona.DefaultFrameLimits}
	if configure != nil {
		configure(&cfg)
	}
	f.topics, f.registry = topics, prometheus.NewRegistry()
	if f.catalogue == nil {
		f.catalogue = func(name string) oona.Metric { return oona.Metric{Name: name, Group: oona.Health} }
	}
	stage, err := aggregate.New(cfg, f.catalogues(), f.out, f.registry, slog.New(slog.NewTextHandler(&f.log, nil)))
	if err != nil {
		t.Fatal(err)
	}
	if err := stage.Ready(); err == nil {
		t.Error("ready before it has joined a group")
	}
	return stage
}

// startWith runs a stage with an assignment.
func startWith(t *testing.T, assignment bus.Assignment, configure func(*aggregate.Config)) *fixture {
	t.Helper()
	f := &fixture{out: newOutputs(t), begin: time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)}
	f.stage = newStage(t, f, configure)
	f.feed = &feed{stage: f.stage, assignment: assignment, messages: make(chan *message.Message), next: begin(assignment)}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- f.stage.Run(ctx, f.feed) }()
	f.stop = func() {
		cancel()
		close(f.feed.messages)
		if err := <-ended; err != nil {
			t.Errorf("Run: %v", err)
		}
	}
	return f
}

// frame returns a valid frame that was observed at a time after the beginning.
func (f *fixture) frame(after time.Duration) *oona.Frame {
	f.sequence++
	return &oona.Frame{
		Run: "r", Layer: "enc.0", Producer: "p", Epoch: oona.MicrosOf(f.begin), Sequence: f.sequence,
		ObservedAt: oona.MicrosOf(f.begin.Add(after)), Step: f.sequence,
		Seeds: []oona.SeedID{0, 1, 2}, States: []oona.State{oona.Dormant, oona.Training, oona.Grafting},
		Metrics: []oona.Column{{Name: "loss", Values: []float32{1, 2, 3}}},
	}
}

// send appends a frame. Its append time is the time at which it was observed.
func (f *fixture) send(frame *oona.Frame) int {
	return f.feed.append(avro.AppendFrame(nil, frame), frame.ObservedAt.Time(), nil)
}

func (f *fixture) rollups(t *testing.T, topic string) []oona.Rollup {
	t.Helper()
	var rollups []oona.Rollup
	for _, msg := range f.out.of(t, topic) {
		var r oona.Rollup
		if rest, err := avro.DecodeRollup(msg.Payload, &r); err != nil || len(rest) > 0 {
			t.Fatalf("rollup on %s: %v, %d bytes left", topic, err, len(rest))
		}
		rollups = append(rollups, r)
	}
	return rollups
}

func TestFramesBecomeRollups(t *testing.T) {
	f := start(t, nil)
	for s := range 20 { // two windows of 10 s; the first closes at 16 s
		f.send(f.frame(time.Duration(s) * time.Second))
	}
	f.stop()
	health, performance := f.rollups(t, f.topics.LayerHealth), f.rollups(t, f.topics.LayerPerformance)
	if len(health) != 1 || len(performance) != 1 {
		t.Fatalf("got %d health and %d performance rollups, want one of each", len(health), len(performance))
	}
	h := health[0]
	if h.Run != "r" || h.Layer != "enc.0" || h.Frames != 10 || h.Readings != 30 || h.Seeds.Seen != 3 || h.Seeds.Active != 2 {
		t.Errorf("health rollup is %+v", h)
	}
	if h.Trigger.Offset != 16 { // the watermark is 15 s = 16 s - out-of-orderness, and the window closes at its end + lateness = 15 s
		t.Errorf("the window was closed by offset %d, want 16", h.Trigger.Offset)
	}
	if h.Hash != h.ContentHash() {
		t.Error("the decoded rollup's content differs from its hash")
	}
	msg := f.out.of(t, f.topics.LayerHealth)[0]
	if at := positionOf(t, msg); at.Partition != 3 || string(at.Key) != string(oona.Key("r", "enc.0")) {
		t.Errorf("the rollup is in partition %d with key %q", at.Partition, at.Key)
	}
}

func TestBadRecordsGoAsideAndTheNextIsCounted(t *testing.T) {
	year := func(y int) oona.Micros { return oona.MicrosOf(time.Date(y, 1, 1, 0, 0, 0, 0, time.UTC)) }
	encode := func(change func(*oona.Frame)) func(*fixture) []byte {
		return func(f *fixture) []byte {
			frame := f.frame(time.Minute)
			change(frame)
			return avro.AppendFrame(nil, frame)
		}
	}
	// arrays returns a frame that ends before its seed_ids, followed by the given varints.
	arrays := func(vs ...int64) func(*fixture) []byte {
		return func(f *fixture) []byte {
			frame := f.frame(time.Minute)
			frame.Seeds, frame.States, frame.Metrics = nil, nil, nil
			b := avro.AppendFrame(nil, frame)
			b = b[:len(b)-4]
			for _, v := range vs {
				b = binary.AppendVarint(b, v)
			}
			return b
		}
	}
	cases := []struct {
		name    string
		payload func(*fixture) []byte
		topic   func(oona.Topics) string
		reason  string
		says    string
	}{
		{"undecodable", func(*fixture) []byte { return []byte("not avro") }, dead, "undecodable", ""},
		{"empty", func(*fixture) []byte { return nil }, dead, "undecodable", ""},
		{"wrong fingerprint", func(f *fixture) []byte {
			b := avro.AppendFrame(nil, f.frame(time.Minute))
			b[4] ^= 1
			return b
		}, dead, "undecodable", "fingerprint"},
		{"cut off", func(f *fixture) []byte {
			b := avro.AppendFrame(nil, f.frame(time.Minute))
			return b[:len(b)-3]
		}, dead, "undecodable", ""},
		{"JSON", func(*fixture) []byte { return []byte(`{"run_id":"r","layer_id":"l"}`) }, dead, "undecodable", "begins with 7b 22"},
		{"HTML", func(*fixture) []byte { return []byte("<html>") }, dead, "undecodable", "framing"},
		{"a container", func(*fixture) []byte { return []byte("Obj\x01\x04") }, dead, "undecodable", "begins with 4f 62"},
		{"registry framing", func(f *fixture) []byte {
			return append([]byte{0, 0, 0, 0, 7}, avro.AppendFrame(nil, f.frame(time.Minute))[10:]...)
		}, dead, "undecodable", "begins with 00 00"},
		{"gzip", func(*fixture) []byte { return []byte{0x1f, 0x8b, 8, 0} }, dead, "undecodable", "begins with 1f 8b"},
		{"a tick without its header", func(*fixture) []byte { return avro.AppendTick(nil, oona.Tick{Worker: "w"}) }, dead, "undecodable", "is a kasmina.telemetry.Tick"},
		{"a configuration without its header", func(*fixture) []byte { return avro.AppendConfiguration(nil, oona.WindowConfiguration{}) }, dead, "undecodable", "is a kasmina.telemetry.WindowConfiguration"},
		{"a rollup", func(*fixture) []byte { return avro.AppendRollup(nil, &oona.Rollup{}) }, dead, "undecodable", "is a kasmina.telemetry.Layer"},
		{"2^40 seeds", arrays(1 << 40), dead, "undecodable", "1099511627776 entries are announced"},
		{"least count", arrays(math.MinInt64, 1, 0), dead, "undecodable", "9223372036854775808 entries"},
		{"block's size lies", arrays(-2, 3, 1, 2, 0), dead, "undecodable", "a block's stated size is not its size"},
		{"block of 2^40 bytes", arrays(-2, 1<<40), dead, "undecodable", "1099511627776 bytes are announced"},
		{"33-bit seed", arrays(1, 1<<31, 0), dead, "undecodable", "32 bits"},
		{"2^40 metrics", arrays(0, 0, 1<<40), dead, "undecodable", "1099511627776 entries"},
		{"id that is not UTF-8", encode(func(x *oona.Frame) { x.Run = "r\xff" }), dead, "invalid", "run_id"},
		{"negative seed", encode(func(x *oona.Frame) { x.Seeds[0] = -1 }), dead, "invalid", "seed_ids[0]"},
		{"negative epoch", encode(func(x *oona.Frame) { x.Epoch = -1 }), dead, "invalid", "producer_epoch"},
		{"negative sequence", encode(func(x *oona.Frame) { x.Sequence = -1 }), dead, "invalid", "sequence"},
		{"metric twice", encode(func(x *oona.Frame) { x.Metrics = append(x.Metrics, x.Metrics[0]) }), dead, "invalid", "metrics[1].name"},
		{"tensor of no seed", encode(func(x *oona.Frame) {
			x.Tensors = []oona.Tensor{{Name: "w", Seed: 9, DType: "uint8", Shape: []int64{1}, Data: []byte{1}}}
		}), dead, "invalid", "tensors[0].seed_id"},
		{"time zero", encode(func(x *oona.Frame) { x.ObservedAt = 0 }), dead, "invalid", "observed_at"},
		{"too many metrics", encode(func(x *oona.Frame) {
			for i := range 70 {
				x.Metrics = append(x.Metrics, oona.Column{Name: "m" + strconv.Itoa(i), Values: x.Metrics[0].Values})
			}
		}), overflow, "size", "more than 64"},
		{"trailing bytes", func(f *fixture) []byte { return append(avro.AppendFrame(nil, f.frame(time.Minute)), 0) }, dead, "undecodable", "1 bytes follow"},
		{"lengths differ", encode(func(x *oona.Frame) { x.Metrics[0].Values = x.Metrics[0].Values[:2] }), dead, "invalid", "metrics[0].values"},
		{"duplicate seed", encode(func(x *oona.Frame) { x.Seeds[2] = 1 }), dead, "invalid", "seed_ids[2]"},
		{"unknown ordinal", encode(func(x *oona.Frame) { x.States[1] = 11 }), dead, "invalid", "states[1]"},
		{"id with a newline", encode(func(x *oona.Frame) { x.Layer = "a\nb" }), dead, "invalid", "layer_id"},
		{"id with a quote", encode(func(x *oona.Frame) { x.Run = `a"b` }), dead, "invalid", "run_id"},
		{"year 1", encode(func(x *oona.Frame) { x.ObservedAt = year(1) }), dead, "invalid", "observed_at"},
		{"year 9999", encode(func(x *oona.Frame) { x.ObservedAt = year(9999) }), dead, "invalid", "observed_at"},
		{"two minutes ahead", encode(func(x *oona.Frame) { x.ObservedAt += 2 * 60e6 }), quarantine, "future", ""},
		{"two days behind", encode(func(x *oona.Frame) { x.ObservedAt -= 2 * 86400e6 }), quarantine, "stale", ""},
		{"too many seeds", encode(func(x *oona.Frame) {
			n := 70_000
			x.Seeds, x.States, x.Metrics = make([]oona.SeedID, n), make([]oona.State, n), nil
			for i := range x.Seeds {
				x.Seeds[i] = oona.SeedID(i)
			}
		}), overflow, "size", ""},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			f := start(t, nil)
			at := f.begin.Add(time.Minute)
			bad := c.payload(f)
			f.feed.append(bad, at, map[string]string{"traceparent": "x", oona.HeaderPath: "i1", "": "no name", "$assignment": "from outside"})
			f.send(f.frame(time.Minute))
			f.stop()
			side := f.out.of(t, c.topic(f.topics))
			if len(side) != 1 {
				t.Fatalf("%d records on %s, want 1", len(side), c.topic(f.topics))
			}
			m, to := side[0].Metadata, positionOf(t, side[0])
			if string(side[0].Payload) != string(bad) || string(to.Key) != "key" || m["traceparent"] != "x" || m[""] != "no name" || m["$assignment"] != "from outside" || m[oona.HeaderPath] != "i1" {
				t.Error("the record was changed on its way to the side topic")
			}
			if to.Appended != oona.MicrosOf(at) {
				t.Errorf("the record's time is %d on the side topic, was %d", to.Appended, at.UnixMicro())
			}
			if m[oona.HeaderErrorException] != c.reason || !strings.Contains(m[oona.HeaderErrorMessage], c.says) {
				t.Errorf("reason %q, message %q; want %q, ...%s...", m[oona.HeaderErrorException], m[oona.HeaderErrorMessage], c.reason, c.says)
			}
			if m[oona.HeaderErrorTopic] != f.topics.SeedMetrics || m[oona.HeaderErrorPartition] != "3" || m[oona.HeaderErrorOffset] != "0" {
				t.Errorf("origin is %s/%s@%s", m[oona.HeaderErrorTopic], m[oona.HeaderErrorPartition], m[oona.HeaderErrorOffset])
			}
			if n := f.stage.Counts(); n.Folded != 1 {
				t.Errorf("the good record after it was not folded: %+v", n)
			}
		})
	}
}

// Frames with metrics beyond the limit of a layer go to the overflow topic. The
// others are folded.
func TestMetricsBeyondTheCap(t *testing.T) {
	f := start(t, func(c *aggregate.Config) { c.Windows.MaxMetrics = 2 })
	send := func(name string) {
		frame := f.frame(0)
		frame.Metrics[0].Name = name
		f.send(frame)
	}
	for _, name := range []string{"loss", "unknown.1", "unknown.2", "loss", "unknown.3"} {
		send(name)
	}
	f.send(f.frame(20 * time.Second))
	f.stop()
	aside := f.out.of(t, f.topics.Overflow)
	if len(aside) != 2 {
		t.Fatalf("%d records on the overflow topic, want 2", len(aside))
	}
	for i, offset := range []string{"2", "4"} {
		if m := aside[i].Metadata; m[oona.HeaderErrorException] != "metrics" || m[oona.HeaderErrorOffset] != offset {
			t.Errorf("offset %s is in the overflow topic because of %q, want offset %s because of metrics", m[oona.HeaderErrorOffset], m[oona.HeaderErrorException], offset)
		}
	}
	if h := f.rollups(t, f.topics.LayerHealth); len(h) != 1 || h[0].Frames != 3 || len(h[0].Metrics) != 2 {
		t.Errorf("rollups are %+v", h)
	}
}

func dead(t oona.Topics) string       { return t.SeedMetricsDead }
func quarantine(t oona.Topics) string { return t.Quarantine }
func overflow(t oona.Topics) string   { return t.Overflow }

func TestNaNAndInfinitiesAreCountedApart(t *testing.T) {
	f := start(t, nil)
	frame := f.frame(0)
	frame.Metrics[0].Values = []float32{float32(math.NaN()), float32(math.Inf(-1)), 7}
	f.send(frame)
	f.send(f.frame(20 * time.Second))
	f.stop()
	health := f.rollups(t, f.topics.LayerHealth)
	if len(health) != 1 || len(health[0].Metrics) != 1 {
		t.Fatalf("rollups: %+v", health)
	}
	m := health[0].Metrics[0]
	if m.Count != 1 || m.NotMeasured != 1 || m.Infinite != 1 || m.Min != 7 || m.Max != 7 || m.Sum != 7 {
		t.Errorf("summary is %+v", m)
	}
}

func TestDuplicateConflictAndLate(t *testing.T) {
	f := start(t, nil)
	first := f.frame(0)
	f.send(first)
	f.send(first)
	conflict := *first
	conflict.Step++
	f.send(&conflict)
	f.send(f.frame(30 * time.Second))
	late := f.frame(2 * time.Second)
	f.feed.append(avro.AppendFrame(nil, late), f.begin.Add(31*time.Second), nil)
	f.stop()
	n := f.stage.Counts()
	if n.Folded != 2 || n.Duplicate != 1 || n.Quarantined != 1 || n.Late != 1 {
		t.Errorf("counts are %+v", n)
	}
	if got := f.out.of(t, f.topics.Late); len(got) != 1 || got[0].Metadata[oona.HeaderErrorException] != "late" {
		t.Errorf("late topic holds %v", got)
	}
	if got := f.out.of(t, f.topics.Quarantine); len(got) != 1 || got[0].Metadata[oona.HeaderErrorException] != "conflict" {
		t.Errorf("quarantine holds %v", got)
	}
	if h := f.rollups(t, f.topics.LayerHealth); len(h) != 1 || h[0].Frames != 1 || h[0].Duplicates != 1 {
		t.Errorf("rollups are %+v", h)
	}
	f.wantCounted(t, "oona_aggregate_records_total", `[reason="" verdict="duplicate"] 1`, `[reason="" verdict="folded"] 2`,
		`[reason="conflict" verdict="quarantined"] 1`, `[reason="late" verdict="late"] 1`)
}

// After a failed publish, the bus delivers the record again. The second delivery only
// publishes the output again. The record is not folded a second time.
func TestRedeliveryPublishesAndDoesNotFoldAgain(t *testing.T) {
	f := start(t, nil)
	f.send(f.frame(0))
	f.out.failures.Store(3)
	if deliveries := f.send(f.frame(20 * time.Second)); deliveries != 4 {
		t.Errorf("the record took %d deliveries, want 4", deliveries)
	}
	f.stop()
	if failed := f.out.failed.Load(); failed != 3 {
		t.Fatalf("%d publishes failed, want 3: the fault did not fire", failed)
	}
	if n := f.stage.Counts(); n.Folded != 2 || n.Duplicate != 0 {
		t.Errorf("counts are %+v", n)
	}
	health := f.rollups(t, f.topics.LayerHealth)
	if len(health) != 1 || health[0].Frames != 1 || health[0].Duplicates != 0 {
		t.Errorf("rollups are %+v", health)
	}
	if performance := f.rollups(t, f.topics.LayerPerformance); len(performance) != 1 {
		t.Errorf("%d performance rollups, want 1", len(performance))
	}
}

func TestRecordsAfterRevokeAreLeftToTheNextOwner(t *testing.T) {
	f := start(t, nil)
	f.send(f.frame(0))
	f.feed.consumer().Revoke()
	f.send(f.frame(time.Second))
	f.stop()
	if n := f.stage.Counts(); n.Folded != 1 {
		t.Errorf("counts are %+v, want only the first record folded", n)
	}
}

// A stage that is not in its group is not ready. In its group it is ready without any
// partition.
func TestReadyAsAStandby(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		out := newOutputs(t)
		var stages [6]*aggregate.Stage // of a topic with five partitions
		var members [len(stages)]bus.Member
		var endings []chan error
		ctx, cancel := context.WithCancel(t.Context())
		defer func() {
			cancel()
			for _, ended := range endings {
				if err := <-ended; err != nil {
					t.Error(err)
				}
			}
		}()
		for i := range stages {
			stages[i] = newStage(t, &fixture{out: out}, nil)
			members[i] = out.member(t, bus.MemberOptions{Group: "g"}, stages[i])
			ended := make(chan error, 1)
			go func() { ended <- stages[i].Run(ctx, members[i]) }()
			endings = append(endings, ended)
		}
		time.Sleep(time.Minute)
		for i, stage := range stages {
			if err := stage.Ready(); err != nil {
				t.Errorf("Ready of stage %d is %v in the group", i, err)
			}
		}
		if err := members[5].Close(); err != nil {
			t.Fatal(err)
		}
		if err := stages[5].Ready(); !errors.Is(err, bus.ErrNotJoined) {
			t.Errorf("Ready is %v out of the group", err)
		}
		if err := <-endings[5]; !errors.Is(err, bus.ErrNotJoined) {
			t.Errorf("Run returned %v after its member left the group", err)
		}
		endings = endings[:5]
	})
}

// If the member closes the subscription, the stage ends with the reason.
func TestEndOfTheSubscription(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fixture{out: newOutputs(t)}
		stage := newStage(t, f, nil)
		opts := bus.MemberOptions{Group: "g", Instance: "one"}
		member := f.out.member(t, opts, stage)
		ended := make(chan error, 1)
		go func() { ended <- stage.Run(t.Context(), member) }()
		time.Sleep(time.Second)
		if _, err := f.out.member(t, opts, newStage(t, &fixture{out: f.out}, nil)).Subscribe(t.Context(), f.topics.SeedMetrics); err != nil {
			t.Fatal(err)
		}
		if err := <-ended; !errors.Is(err, bus.ErrInstance) {
			t.Errorf("Run: %v", err)
		}
	})
}

func TestReadyOnceCaughtUp(t *testing.T) {
	f := start(t, nil)
	f.send(f.frame(0))
	_, lagging, err := f.stage.Assign(t.Context(), bus.Assignment{Topic: f.topics.SeedMetrics, Partition: 4, LogEnd: 2, Committed: bus.Commit{Offset: oona.NoOffset}})
	if err != nil {
		t.Fatal(err)
	}
	if err := f.stage.Ready(); !errors.Is(err, partition.ErrCatchingUp) {
		t.Errorf("Ready is %v, want partition 4 behind", err)
	}
	lagging.Revoke()
	if err := f.stage.Ready(); err != nil {
		t.Errorf("Ready is %v after the lagging assignment ended", err)
	}
	f.stop()
}

// A worker is not ready after the leader of a partition has not answered for half a
// minute, or records have waited in the log for as long without being delivered. The
// lag is shown all the time.
func TestReadyWhileTheLogIsHeard(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := start(t, nil)
		f.send(f.frame(0))
		ready := func(why error) {
			t.Helper()
			if err := f.stage.Ready(); !errors.Is(err, why) {
				t.Errorf("Ready is %v, want %v", err, why)
			}
		}
		hears := func(seconds int, end int64) { // the leader reports the end once per second
			for range seconds {
				time.Sleep(time.Second)
				f.feed.consumer().End(end)
			}
		}
		hears(3600, 1) // a quiet topic
		ready(nil)
		f.wantGauges(t, map[string]float64{"lag_records": 0, "lag_seconds": 0, "end_offset_age_seconds": 0})

		hears(30, 4) // the fetcher stands still
		ready(nil)
		hears(2, 4)
		ready(partition.ErrStalled)
		f.wantGauges(t, map[string]float64{"lag_records": 3, "commit_age_seconds": 3632})
		for range 3 {
			f.feed.append(avro.AppendFrame(nil, f.frame(0)), time.Now(), nil)
		}
		ready(nil)
		hears(1, 4)
		f.wantGauges(t, map[string]float64{"lag_records": 0, "lag_seconds": 0})

		time.Sleep(30 * time.Second) // the leader does not answer
		ready(nil)
		time.Sleep(time.Second)
		ready(partition.ErrNoEnd)
		f.wantGauges(t, map[string]float64{"lag_records": 0, "end_offset_age_seconds": 31})
		hears(1, 4)
		ready(nil)
		f.stop()
	})
}

// If no record of a partition was read yet, its records have waited since the beginning of the
// assignment, and not since 1970.
func TestLagBeforeTheFirstRecord(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := start(t, nil)
		synctest.Wait()
		time.Sleep(5 * time.Second)
		f.wantGauges(t, map[string]float64{"lag_records": 1, "lag_seconds": 5})
		f.stop()
	})
}

// The stage writes ticks into a quiet partition while a window is open. When they are
// read back, they close the window.
func TestTicksCloseAnIdleStream(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := start(t, func(c *aggregate.Config) { c.Windows.IdleHorizon = 4 * time.Second })
		f.begin = time.Now()
		f.send(f.frame(0))
		ticks := 0
		for range 30 {
			f.feed.pass(1, f.feed.next)
			synctest.Wait()
			written := f.out.of(t, f.topics.SeedMetrics)
			for _, tick := range written[ticks:] {
				if at := positionOf(t, tick); at.Partition != 3 || at.Key != nil {
					t.Fatalf("tick with metadata %v", tick.Metadata)
				}
				if _, err := avro.DecodeTick(tick.Payload); err != nil {
					t.Fatal(err)
				}
				f.feed.append(tick.Payload, time.Now(), map[string]string{oona.HeaderRecord: tick.Metadata[oona.HeaderRecord]})
			}
			ticks = len(written)
		}
		f.stop()
		if n := f.stage.Counts(); n.OpenWindows != 0 || n.Rollups != 2 || n.Own != int64(ticks) {
			t.Errorf("counts are %+v after %d ticks", n, ticks)
		}
		if ticks < 3 || ticks > 8 {
			t.Errorf("%d ticks were written for a horizon of 4 s, want about 5: none once the window is closed", ticks)
		}
	})
}

// A producer has a frontier on each path. A second path holds back the watermark until it has come as
// far as the first.
func TestPathHoldsTheWatermark(t *testing.T) {
	for path, rollups := range map[string]int{"a": 1, "b": 0} {
		f := start(t, nil)
		send := func(after time.Duration, path string) {
			frame := f.frame(after)
			f.feed.append(avro.AppendFrame(nil, frame), frame.ObservedAt.Time(), map[string]string{oona.HeaderPath: path})
		}
		send(0, "a")
		send(time.Second, path)
		send(20*time.Second, "a")
		f.stop()
		if got := len(f.rollups(t, f.topics.LayerHealth)); got != rollups {
			t.Errorf("with the second frame by path %s, %d rollups, want %d", path, got, rollups)
		}
	}
}

// Every record advances the log clock. So dead letters close the windows of an idle producer.
func TestTimePassesWithDeadLetters(t *testing.T) {
	f := start(t, func(c *aggregate.Config) { c.Windows.IdleHorizon = 4 * time.Second })
	f.send(f.frame(0))
	for s := range 10 {
		f.feed.append([]byte("not a frame"), f.begin.Add(time.Duration(s+1)*time.Second), nil)
	}
	f.stop()
	if got := f.rollups(t, f.topics.LayerHealth); len(got) != 1 {
		t.Errorf("%d rollups, want the idle producer's", len(got))
	}
}

// A partition gets no tick before it is read to its end, nor while its leader does
// not report the end.
func TestNoTickBeforeCatchUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := startWith(t, bus.Assignment{Topic: "t", Partition: 3, Partitions: 4, LogEnd: 2, Committed: bus.Commit{Offset: oona.NoOffset}}, nil)
		f.begin = time.Now()
		f.send(f.frame(0))
		f.feed.pass(10, 2)
		synctest.Wait()
		if got := len(f.out.of(t, f.topics.SeedMetrics)); got != 0 {
			t.Errorf("%d ticks at offset 1 of 2", got)
		}
		f.send(f.frame(10 * time.Second))
		f.feed.consumer().End(3) // another record has been appended
		f.feed.pass(5, 3)
		synctest.Wait()
		if got := len(f.out.of(t, f.topics.SeedMetrics)); got != 0 {
			t.Errorf("%d ticks at offset 2 of 3", got)
		}
		f.send(f.frame(11 * time.Second))
		f.feed.pass(3, 3)
		synctest.Wait()
		before := len(f.out.of(t, f.topics.SeedMetrics))
		if before == 0 {
			t.Error("no tick once caught up")
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		if got := len(f.out.of(t, f.topics.SeedMetrics)) - before; got > 6 {
			t.Errorf("%d ticks in a minute in which the leader said nothing", got)
		}
		f.stop()
	})
}

// An idle partition gets a tick now and then, so that retention does not delete records that a
// restart needs. A partition that never had a record gets no ticks.
func TestIdlePartitionsGetATickNowAndThen(t *testing.T) {
	for _, tt := range []struct{ retention, horizon, want time.Duration }{
		{0, time.Minute, 15 * time.Minute},
		{7 * 24 * time.Hour, time.Minute, 15 * time.Minute},
		{100 * time.Minute, time.Minute, 30 * time.Second},
		{6 * time.Hour, time.Hour, 6 * time.Second}, // of 3,600 tick intervals
	} {
		retention, want := tt.retention, tt.want
		synctest.Test(t, func(t *testing.T) {
			f := start(t, func(c *aggregate.Config) {
				c.Retention = func(context.Context) (time.Duration, error) { return retention, nil }
				c.Windows.IdleHorizon = tt.horizon
			})
			f.begin = time.Now()
			wait := func(d time.Duration) int {
				f.feed.pass(int(d/time.Second), f.feed.next)
				synctest.Wait()
				return len(f.out.of(t, f.topics.SeedMetrics))
			}
			if ticks := wait(20 * time.Minute); ticks != 0 {
				t.Errorf("%d ticks in a partition without records", ticks)
			}
			f.feed.append([]byte("not a frame"), time.Now(), nil) // a record that opens no window
			if ticks := wait(want - 2*time.Second); ticks != 0 {
				t.Errorf("%d ticks before %s have passed", ticks, want)
			}
			if ticks := wait(4 * time.Second); ticks == 0 {
				t.Errorf("no tick after %s, of a retention of %s", want, retention)
			}
			f.stop()
		})
	}
}

// A partition stays idle across assignments. Otherwise it would never get a tick if
// its worker is restarted often.
func TestIdlePartitionsGetATickAfterARestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		first := start(t, nil)
		first.feed.append([]byte("not a frame"), time.Now(), nil)
		synctest.Wait()
		commit, due := first.feed.commit()
		if !due {
			t.Fatal("nothing to commit")
		}
		first.feed.pass(10*60, first.feed.next)
		first.stop()

		second := startWith(t, takenOver(first.feed.assignment, commit), nil)
		second.feed.append([]byte("not a frame"), time.Now().Add(-10*time.Minute), nil)
		second.feed.pass(4*60, second.feed.next)
		synctest.Wait()
		if n := second.stage.Counts(); n.Replayed != 1 || len(second.out.of(t, second.topics.SeedMetrics)) != 0 {
			t.Errorf("after 14 minutes there are ticks, or %+v", n)
		}
		second.feed.pass(2*60, second.feed.next)
		synctest.Wait()
		if len(second.out.of(t, second.topics.SeedMetrics)) == 0 {
			t.Error("no tick 16 minutes after the last record, with a restart of the worker in between")
		}
		second.stop()
	})
}

// A partition whose ticks cannot be written does not delay the ticks of others.
func TestTicksOfOnePartitionDoNotWaitForAnother(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fixture{out: newOutputs(t), begin: time.Now()}
		f.stage = newStage(t, f, nil)
		if err := f.out.bus.Freeze(f.topics.SeedMetrics, 3); err != nil {
			t.Fatal(err)
		}
		f.feed = &feed{stage: f.stage, assignment: bus.Assignment{Topic: "t", Partition: 3, Partitions: 5, Committed: bus.Commit{Offset: oona.NoOffset}}, messages: make(chan *message.Message)}
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- f.stage.Run(ctx, f.feed) }()
		f.send(f.frame(0))
		other := f.feed.assignment
		other.Partition = 4
		third := &feed{stage: f.stage, assignment: other, messages: f.feed.messages}
		if _, err := third.Subscribe(ctx, ""); err != nil {
			t.Fatal(err)
		}
		third.append(avro.AppendFrame(nil, f.frame(0)), f.begin, nil)
		third.pass(10, third.next)
		synctest.Wait()
		hung := f.out.bus.Waiting(f.topics.SeedMetrics, 3)
		if err := f.out.bus.Thaw(f.topics.SeedMetrics, 3); err != nil {
			t.Fatal(err)
		}
		if ticks := len(f.out.of(t, f.topics.SeedMetrics)) - hung; hung != 1 || ticks < 4 {
			t.Errorf("%d ticks of partition 4 in 10 s, while %d of partition 3 hangs", ticks, hung)
		}
		cancel()
		close(f.feed.messages)
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}

// A partition whose rollups wait for the bus is not quiet: more records may follow in
// the log.
func TestNoTickWhileRollupsWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := start(t, nil)
		refused := 0
		f.out.bus.Refuse(func(topic string, _ int32) error {
			if topic == f.topics.LayerHealth && refused < 20 {
				refused++
				return errBusDown
			}
			return nil
		})
		f.begin = time.Now()
		f.send(f.frame(0))
		f.send(f.frame(20 * time.Second)) // closes the first window, and opens one
		synctest.Wait()
		if ticks := len(f.out.of(t, f.topics.SeedMetrics)); ticks != 0 || refused != 20 {
			t.Errorf("%d ticks while rollups were refused %d times", ticks, refused)
		}
		f.feed.pass(5, f.feed.next)
		synctest.Wait()
		if len(f.out.of(t, f.topics.SeedMetrics)) == 0 {
			t.Error("no tick once the rollups were taken")
		}
		f.stop()
	})
}

// A message that is too large for its topic does not hold up the others.
func TestTooLargeForTheBus(t *testing.T) {
	f := start(t, nil)
	small, wide := f.frame(0), f.frame(0)
	wide.Layer = "wide"
	for i := range 60 {
		wide.Metrics = append(wide.Metrics, oona.Column{Name: "m" + strconv.Itoa(i), Values: []float32{1, 2, 3}})
	}
	specs := f.topics.Specs(5)
	for i := range specs {
		specs[i].MaxMessageBytes = 2000
	}
	if _, err := f.out.bus.Apply(t.Context(), specs); err != nil {
		t.Fatal(err)
	}
	f.send(small)
	f.send(wide)
	f.feed.append(make([]byte, 3000), f.begin, nil) // a dead letter
	f.send(f.frame(20 * time.Second))
	f.stop()
	if h, p := f.rollups(t, f.topics.LayerHealth), f.rollups(t, f.topics.LayerPerformance); len(h) != 1 || h[0].Layer != "enc.0" || len(p) != 2 {
		t.Errorf("%d health rollups and %d of performance, want 1 and 2: the wide layer's health is too large", len(h), len(p))
	}
	dead := f.out.of(t, f.topics.SeedMetricsDead)
	if len(dead) != 1 || len(dead[0].Payload) != 0 || dead[0].Metadata[oona.HeaderErrorOffset] != "2" || !strings.Contains(dead[0].Metadata[oona.HeaderErrorMessage], "3000") {
		t.Errorf("dead letters: %v", dead)
	}
	f.wantCounted(t, "oona_aggregate_unpublishable_records_total", `[topic="kasmina.telemetry.layer.health"] 1`)
}

// If the bus refuses messages for a long time, the worker is not ready, and the pauses get longer.
func TestUnreadyWhileTheBusRefuses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := start(t, nil)
		f.send(f.frame(0))
		f.out.failures.Store(1_000_000)
		settled := make(chan int)
		go func() { settled <- f.send(f.frame(20 * time.Second)) }()
		time.Sleep(29 * time.Second)
		if err := f.stage.Ready(); err != nil {
			t.Errorf("ready is %v after less than half a minute", err)
		}
		time.Sleep(6 * time.Second)
		if err := f.stage.Ready(); !errors.Is(err, partition.ErrUnpublished) {
			t.Errorf("ready is %v while the bus refuses", err)
		}
		f.wantCounted(t, "oona_aggregate_publish_failures_total", fmt.Sprintf("[] %d", f.out.failed.Load()))
		f.out.failures.Store(0)
		// The pauses are 0.1 s, 0.2 s, ... 3.2 s, and then always 5 s.
		if deliveries := <-settled; deliveries < 10 || deliveries > 14 {
			t.Errorf("%d deliveries in 35 s, want pauses that grow to 5 s", deliveries)
		}
		f.feed.consumer().End(f.feed.next)
		if err := f.stage.Ready(); err != nil {
			t.Errorf("ready is %v once the bus has taken all", err)
		}
		f.stop()
	})
}

// A panic ends the stage, because the state of the engine may be wrong.
func TestPanicEndsTheStage(t *testing.T) {
	f := &fixture{out: newOutputs(t), begin: time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)}
	f.catalogue = func(string) oona.Metric { panic("a bug") }
	f.stage = newStage(t, f, nil)
	f.feed = &feed{stage: f.stage, messages: make(chan *message.Message),
		assignment: bus.Assignment{Topic: "t", Partitions: 1, Committed: bus.Commit{Offset: oona.NoOffset}}}
	ended := make(chan error, 1)
	go func() { ended <- f.stage.Run(t.Context(), f.feed) }()
	msg := f.feed.message(avro.AppendFrame(nil, f.frame(0)), f.begin, nil)
	f.feed.messages <- msg
	select {
	case <-msg.Nacked():
	case <-msg.Acked():
		t.Error("a record that made the stage panic was acknowledged")
	}
	close(f.feed.messages)
	if err := <-ended; !errors.Is(err, partition.ErrPanic) {
		t.Errorf("Run: %v", err)
	}
}
