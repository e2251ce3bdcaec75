package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math"
	"path/filepath"
	"reflect"
	"runtime/debug"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/bus"
	"github.com/morphogenetic/oona/bus/kafka"
	"github.com/morphogenetic/oona/bus/kafka/embedded"
	"github.com/morphogenetic/oona/internal/audit"
	"github.com/morphogenetic/oona/schemas/avro"
)

// TestAudit checks that lives are printed in order, that faults are flagged, and that the exit status
// says whether there are any.
func TestAudit(t *testing.T) {
	w := newWatched(t)
	audited := func(args ...string) (int, string, string) {
		return run(t, append([]string{"audit", "--brokers", w.brokers}, args...)...)
	}
	if _, err := kafka.New(kafka.Config{Brokers: []string{w.brokers}, ClientID: "test"}, nil).Apply(t.Context(), w.topics.EventSpecs(1)); err != nil {
		t.Fatal(err)
	}
	write := func(seed oona.SeedID, sequence int64, from, to oona.State, reason string) {
		t.Helper()
		e := oona.SeedEvent{Run: "digits", Layer: "enc.0", Seed: seed, Sequence: sequence, At: 1_790_000_000_000_000 + oona.Micros(sequence)*1_000_000, Step: 10 * sequence, From: from, To: to, Reason: reason, Evidence: map[string]float64{"gain": 0.028, "patience": float64(sequence)}}
		msg := bus.NewMessage(avro.AppendEvent(nil, &e), bus.Target{Key: oona.SeedKey(e.Run, e.Layer, e.Seed), Partition: bus.Hash([]byte(e.Run)), Hashed: true})
		if err := w.publisher.Publish(t.Context(), w.topics.Event(&e), msg); err != nil {
			t.Fatal(err)
		}
	}
	write(1, 1, oona.Germinated, oona.Training, "gradients reach it")
	write(1, 0, oona.Dormant, oona.Germinated, "a plateau")
	write(1, 0, oona.Dormant, oona.Germinated, "a plateau")
	if status, out, messages := audited(); status != 0 || messages != "" || !strings.Contains(out, "flagged: none") {
		t.Errorf("a life without faults: status %d, %s%s", status, out, messages)
	}
	write(2, 0, oona.Dormant, oona.Germinated, "a plateau")
	write(2, 2, oona.Training, oona.Culled, "\x1b[2Jno\ngain")
	write(2, 3, oona.Culled, oona.Training, "")
	for _, end := range []oona.RunEnd{
		{Run: "digits", Step: 30, At: 1_790_000_004_000_000, Outcome: oona.RunStopped, Reason: "no\nmoney", Producer: "trainer"},
		{Run: "digits", Step: 20, At: 1_790_000_003_000_000}, {Run: "letters", At: 1_790_000_000_000_000},
	} {
		w.publish(w.topics.RunEnded, avro.AppendRunEnd(nil, &end), withKey, string(end.Run))
	}
	status, out, messages := audited()
	if status != exitFailed || messages == "" {
		t.Errorf("a life with faults: status %d, %s", status, messages)
	}
	golden(t, "audit-lives.txt", out)
	_, out, _ = audited("--json")
	golden(t, "audit-lives.jsonl", out)
	if _, out, _ := audited("--flagged"); strings.Contains(out, "seed 1\n") || strings.Contains(out, "STOPPED") || !strings.Contains(out, "seed 2\n") {
		t.Errorf("with --flagged: %s", out)
	}
	if status, out, _ := audited("--run=letters"); status != 0 || strings.Count(out, "COMPLETED") != 1 || strings.Contains(out, "digits") {
		t.Errorf("with a run that has only ended: status %d, %s", status, out)
	}
	if status, out, _ := audited("--run=digits", "--layer=enc.0", "--seed=1", "--from=2026-09-21T14:13:21Z"); status != 0 || strings.Count(out, " -> ") != 1 || strings.Count(out, "STOPPED") != 1 {
		t.Errorf("with a seed and a time: status %d, %s", status, out)
	}

	if status, _, _ := audited("--json"); status != exitFailed {
		t.Errorf("with --json: status %d", status)
	}
	for _, args := range [][]string{{"--from=offset:3"}, {"--until=beginning"}, {"--seed=-1"}, {"--from=1h", "--until=2h"}} {
		if status, _, _ := audited(args...); status != exitUsage {
			t.Errorf("%q: status %d", args, status)
		}
	}
	for _, args := range [][]string{{"--run=Digits"}, {"--layer=enc.1"}, {"--seed=3"}, {"--run=Digits", "--json"}} {
		if status, _, messages := audited(args...); status != exitNothing || messages == "" {
			t.Errorf("%q, which selects no events: status %d, %s", args, status, messages)
		}
	}
}

// TestAuditWithoutTopics checks that the other topics are audited if a topic of events is missing, and
// that the exit status says that the audit is incomplete. There is another exit status if nothing can
// be audited.
func TestAuditWithoutTopics(t *testing.T) {
	w := newWatched(t)
	onBus := kafka.New(kafka.Config{Brokers: []string{w.brokers}, ClientID: "test"}, nil)
	audited := func(selected oona.RunID) (int, string, error) {
		command := defaultAudit()
		command.Bus = kafka.Config{Brokers: []string{w.brokers}, ClientID: "test", Settle: time.Millisecond}
		command.OfRun = selected
		var out bytes.Buffer
		err := command.Run(t.Context(), streams{out: &out}, slog.New(slog.DiscardHandler))
		return exitStatus(t.Context(), err), out.String(), err
	}
	if status, out, err := audited(""); status != exitNotAudited || !errors.Is(err, bus.ErrNoTopic) || out != "" {
		t.Errorf("without topics: status %d, %v, %s", status, err, out)
	}
	specs := w.topics.EventSpecs(1)
	missing := slices.IndexFunc(specs, func(s oona.TopicSpec) bool { return s.Name == w.topics.Germinated })
	if _, err := onBus.Apply(t.Context(), slices.Delete(slices.Clone(specs), missing, missing+1)); err != nil {
		t.Fatal(err)
	}
	e := oona.SeedEvent{Run: "digits", Layer: "enc.0", At: 1_790_000_000_000_000, From: oona.Dormant, To: oona.Dormant}
	w.publish(w.topics.Transitioned, avro.AppendEvent(nil, &e), withKey, string(oona.SeedKey(e.Run, e.Layer, e.Seed)))
	if status, out, err := audited(""); status != exitIncomplete || !strings.Contains(err.Error(), w.topics.Germinated) || !strings.Contains(out, w.topics.Germinated) || !strings.Contains(out, "flagged: none") {
		t.Errorf("without a topic: status %d, %v, %s", status, err, out)
	}
	if status, out, err := audited("another"); status != exitIncomplete {
		t.Errorf("without a topic that may have the run: status %d, %v, %s", status, err, out)
	}
	e.Sequence = 2
	w.publish(w.topics.Transitioned, avro.AppendEvent(nil, &e), withKey, string(oona.SeedKey(e.Run, e.Layer, e.Seed)))
	if status, out, err := audited(""); status != exitIncomplete || !strings.Contains(out, "gap 1") {
		t.Errorf("without a topic, and with a gap: status %d, %v, %s", status, err, out)
	}
	if _, err := onBus.Apply(t.Context(), specs); err != nil {
		t.Fatal(err)
	}
	if status, _, err := audited(""); status != exitFailed || !errors.Is(err, errFlagged) {
		t.Errorf("with all topics: status %d, %v", status, err)
	}
}

// TestAuditWithoutPermission: a user who may describe but not read one topic gets an audit of the
// others. The exit status says that this is not all, and the output what to do.
func TestAuditWithoutPermission(t *testing.T) {
	var forbidden atomic.Pointer[string]
	broker, err := embedded.Start(t.Context(), embedded.Options{Control: func(_ *kfake.Cluster, request kmsg.Request) (kmsg.Response, error, bool) {
		fetch, is := request.(*kmsg.FetchRequest)
		if !is || forbidden.Load() == nil {
			return nil, nil, false
		}
		answer := fetch.ResponseKind().(*kmsg.FetchResponse)
		for _, topic := range fetch.Topics {
			if topic.Topic != *forbidden.Load() {
				return nil, nil, false
			}
			of := kmsg.NewFetchResponseTopic()
			of.Topic, of.TopicID = topic.Topic, topic.TopicID
			for _, partition := range topic.Partitions {
				denied := kmsg.NewFetchResponseTopicPartition()
				denied.Partition, denied.ErrorCode, denied.RecordBatches = partition.Partition, kerr.TopicAuthorizationFailed.Code, []byte{}
				of.Partitions = append(of.Partitions, denied)
			}
			answer.Topics = append(answer.Topics, of)
		}
		return answer, nil, true
	}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = broker.Close() })
	topics, err := oona.NewTopics(oona.DefaultPrefix)
	if err != nil {
		t.Fatal(err)
	}
	onBus := kafka.New(kafka.Config{Brokers: broker.Addrs, ClientID: "test"}, nil)
	if _, err := onBus.Apply(t.Context(), topics.EventSpecs(1)); err != nil {
		t.Fatal(err)
	}
	publisher, err := onBus.Publisher(bus.PublisherOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = publisher.Close() })
	for sequence, to := range []oona.State{oona.Germinated, oona.Training} {
		e := oona.SeedEvent{Run: "digits", Layer: "enc.0", Sequence: int64(sequence), At: 1_790_000_000_000_000, From: to - 1, To: to}
		if err := publisher.Publish(t.Context(), topics.Event(&e), bus.NewMessage(avro.AppendEvent(nil, &e), bus.Target{Key: oona.SeedKey(e.Run, e.Layer, e.Seed)})); err != nil {
			t.Fatal(err)
		}
	}
	audited := func() (int, string, string) { return run(t, "audit", "--brokers", broker.Addrs[0]) }
	if status, out, messages := audited(); status != 0 {
		t.Fatalf("with the permission: status %d, %s%s", status, out, messages)
	}
	forbidden.Store(&topics.Germinated)
	status, out, messages := audited()
	if status != exitIncomplete || !strings.Contains(out, "GERMINATED -> TRAINING") || !strings.Contains(messages, topics.Germinated) || strings.Contains(messages, topics.Culled) {
		t.Errorf("without the permission: status %d, %s%s", status, out, messages)
	}
	if !strings.Contains(out, topics.Germinated+" was not read (denied)") || !strings.Contains(out, "grant READ") {
		t.Errorf("the output does not say what to do: %s", out)
	}
}

// limited records the limit of the process's memory when something is written.
type limited struct{ at []int64 }

func (l *limited) Write(b []byte) (int, error) {
	l.at = append(l.at, debug.SetMemoryLimit(-1))
	return len(b), nil
}

// TestAuditLimitsMemory checks that during an audit the process has the documented memory limit, or its
// own if that is lower.
func TestAuditLimitsMemory(t *testing.T) {
	w := newWatched(t)
	if _, err := kafka.New(kafka.Config{Brokers: []string{w.brokers}, ClientID: "test"}, nil).Apply(t.Context(), w.topics.EventSpecs(1)); err != nil {
		t.Fatal(err)
	}
	command := defaultAudit()
	command.Bus = kafka.Config{Brokers: []string{w.brokers}, ClientID: "test"}
	outside := debug.SetMemoryLimit(-1)
	t.Cleanup(func() { debug.SetMemoryLimit(outside) })
	for _, c := range []struct{ before, during int64 }{{math.MaxInt64, 640 << 20}, {500 << 20, 500 << 20}} {
		debug.SetMemoryLimit(c.before)
		var out limited
		if err := command.Run(t.Context(), streams{out: &out}, slog.New(slog.DiscardHandler)); err != nil {
			t.Fatal(err)
		}
		if after := debug.SetMemoryLimit(-1); len(out.at) != 1 || out.at[0] != c.during || after != c.before {
			t.Errorf("with a limit of %d: %d during the audit, want %d, and %d afterwards", c.before, out.at, c.during, after)
		}
	}
}

// TestAuditShowsTheSame checks that the text of a life has each value that its JSON has, also of fields
// that few events have.
func TestAuditShowsTheSame(t *testing.T) {
	e := audit.Event{
		SeedEvent: oona.SeedEvent{
			Run: "run", Layer: "layer", Seed: 101, Sequence: 102, At: 1_790_000_000_123_456, Step: 103, From: oona.Training, To: oona.Grafting,
			Reason: "because", Evidence: map[string]float64{"gain": 0.25, "loss": 1e-9}, Command: "asked", Actor: "somebody", Node: "somewhere",
			Session: 104, Epoch: 105, JournalIndex: 106, Blueprint: "module", Mark: oona.EventRewound, TriggerPosition: 107, TriggerIndex: 108, Incarnation: 109,
			Timeline: "line", Producer: "trainer", ProducerEpoch: 110,
		},
		Record: bus.Position{Topic: "topic", Partition: 111, Offset: 112}, Repeats: 113, Faults: []audit.Fault{{Kind: audit.Gap, Detail: "missing"}},
	}
	for of, fields := reflect.ValueOf(e.SeedEvent), 0; fields < of.NumField(); fields++ {
		if of.Field(fields).IsZero() {
			t.Errorf("%s of the event is not set", of.Type().Field(fields).Name)
		}
	}
	l := &audit.Life{Run: e.Run, Layer: e.Layer, Seed: e.Seed, Events: []audit.Event{e}}
	var text, encoded bytes.Buffer
	if err := errors.Join(printLife(&text, l), encodeLife(&encoded, l)); err != nil {
		t.Fatal(err)
	}
	var whole map[string]any
	if err := json.Unmarshal(encoded.Bytes(), &whole); err != nil {
		t.Fatal(err)
	}
	values := make(map[string]bool)
	valuesIn(whole, values)
	if len(values) < 28 {
		t.Errorf("the JSON has %d values: %s", len(values), &encoded)
	}
	for value := range values {
		if !strings.Contains(text.String(), value) {
			t.Errorf("the text lacks %s, which the JSON has:\n%s", value, &text)
		}
	}
}

// valuesIn collects the texts of the values in decoded JSON.
func valuesIn(v any, to map[string]bool) {
	switch v := v.(type) {
	case map[string]any:
		for _, of := range v {
			valuesIn(of, to)
		}
	case []any:
		for _, of := range v {
			valuesIn(of, to)
		}
	default:
		to[fmt.Sprint(v)] = true
	}
}

// TestWatchEvents checks that oona watch can follow the addresses of events.
func TestWatchEvents(t *testing.T) {
	w := newWatched(t)
	if _, err := kafka.New(kafka.Config{Brokers: []string{w.brokers}, ClientID: "test"}, nil).Apply(t.Context(), w.topics.EventSpecs(1)); err != nil {
		t.Fatal(err)
	}
	for seed := range oona.SeedID(3) {
		e := oona.SeedEvent{Run: "digits", Layer: "enc.0", Seed: seed, At: 1_790_000_000_000_000, From: oona.Training, To: oona.Culled}
		w.publish(w.topics.Culled, avro.AppendEvent(nil, &e), withKey, string(oona.SeedKey(e.Run, e.Layer, e.Seed)))
	}
	lines := w.watch("kasmina/events/seed/culled", "3")
	var shown struct {
		Address string
		Event   struct {
			Seed oona.SeedID `json:"seed_id"`
			To   string      `json:"to_state"`
		}
	}
	if err := json.Unmarshal([]byte(lines[2]), &shown); err != nil || shown.Address != "kasmina/events/seed/culled" || shown.Event.Seed != 2 || shown.Event.To != "CULLED" {
		t.Errorf("%s (%v)", lines[2], err)
	}
	if lines := w.watch("kasmina/events/seed/culled", "1", "--run=digits", "--layer=enc.0"); len(lines) != 1 {
		t.Errorf("%q", lines)
	}
	e := oona.SeedEvent{Run: "digits", Layer: "enc.0", Seed: 3, Sequence: 5, Step: 70, At: 1_790_000_000_000_000, From: oona.Training, To: oona.Culled, Mark: oona.EventRewound,
		Reason: "no\ngain", Evidence: map[string]float64{"patience": 3, "gain": 0.0012345678}}
	w.publish(w.topics.Culled, avro.AppendEvent(nil, &e), withKey, string(oona.SeedKey(e.Run, e.Layer, e.Seed)))
	lines = w.watch("kasmina/events/seed/culled", "4", "--table")
	const want = "event 5 of seed 3  digits enc.0  step 70  TRAINING -> CULLED  REWOUND  no gain  gain=0.001235  patience=3"
	if !strings.HasSuffix(lines[3], want) {
		t.Errorf("the line of an event is %q, and must end with %q", lines[3], want)
	}
	if !strings.HasSuffix(lines[0], "TRAINING -> CULLED") {
		t.Errorf("the line of an event without mark, reason and evidence is %q", lines[0])
	}
}

// TestWatchRunEnds checks that oona watch can follow the address of the ends of runs.
func TestWatchRunEnds(t *testing.T) {
	w := newWatched(t)
	if _, err := kafka.New(kafka.Config{Brokers: []string{w.brokers}, ClientID: "test"}, nil).Apply(t.Context(), w.topics.EventSpecs(1)); err != nil {
		t.Fatal(err)
	}
	for _, run := range []oona.RunID{"digits", "letters"} {
		e := oona.RunEnd{Run: run, Step: 70, At: 1_790_000_000_000_000, Outcome: oona.RunStopped, Reason: "no\nmoney", Producer: "trainer"}
		w.publish(w.topics.RunEnded, avro.AppendRunEnd(nil, &e), withKey, string(run))
	}
	lines := w.watch("kasmina/events/run/ended", "1", "--run=letters")
	var shown struct {
		Address, Kind string
		End           map[string]any `json:"run_end"`
	}
	want := map[string]any{"run_id": "letters", "at": "2026-09-21T14:13:20Z", "step": 70.0, "outcome": "STOPPED", "reason": "no\nmoney", "producer_id": "trainer"}
	if err := json.Unmarshal([]byte(lines[0]), &shown); err != nil || shown.Address != "kasmina/events/run/ended" || shown.Kind != "run_end" || !maps.Equal(shown.End, want) {
		t.Errorf("%s (%v)", lines[0], err)
	}
	lines = w.watch("kasmina.events.run.ended", "2", "--table")
	if at := time.Unix(1_790_000_000, 0).Format("15:04:05.000"); !strings.HasSuffix(lines[0], "end of run digits  STOPPED  step 70  at "+at+"  no money") {
		t.Errorf("the line is %q", lines[0])
	}
}

// TestReplayEventTopics checks that events can be replayed by their addresses.
func TestReplayEventTopics(t *testing.T) {
	w := newWatched(t)
	if _, err := kafka.New(kafka.Config{Brokers: []string{w.brokers}, ClientID: "test"}, nil).Apply(t.Context(), w.topics.EventSpecs(1)); err != nil {
		t.Fatal(err)
	}
	for seed := range oona.SeedID(3) {
		e := oona.SeedEvent{Run: "digits", Layer: "enc.0", Seed: seed, At: 1_790_000_000_000_000, From: oona.Training, To: oona.Culled}
		w.publish(w.topics.Culled, avro.AppendEvent(nil, &e), withKey, string(oona.SeedKey(e.Run, e.Layer, e.Seed)))
	}
	end := oona.RunEnd{Run: "digits", At: 1_790_000_000_000_000, Outcome: oona.RunFailed}
	w.publish(w.topics.RunEnded, avro.AppendRunEnd(nil, &end), withKey, "digits")
	for _, form := range []string{"--parquet", "--avro"} {
		dir := filepath.Join(t.TempDir(), "out")
		if status, out, messages := run(t, "replay", "--brokers", w.brokers, form, dir, "--seed=1", "--seed=2", "kasmina/events/seed/culled", "kasmina/events/run/ended"); status != 0 {
			t.Fatalf("%s: status %d, %s%s", form, status, out, messages)
		}
		if status, out, messages := run(t, "replay", "verify", "--brokers", w.brokers, dir); status != 0 {
			t.Errorf("%s: status %d, %s%s", form, status, out, messages)
		}
	}
	dir := filepath.Join(t.TempDir(), "archive")
	if status, out, messages := run(t, "replay", "--brokers", w.brokers, "--archive", dir, "kasmina/events/run/ended"); status != 0 {
		t.Fatalf("archive: status %d, %s%s", status, out, messages)
	}
	if status, out, messages := run(t, "replay", "--lines", dir, "--run=digits"); status != 0 || strings.Count(out, `"outcome":"FAILED"`) != 1 {
		t.Errorf("lines of the archive: status %d, %s%s", status, out, messages)
	}
	status, out, messages := run(t, "replay", "--brokers", w.brokers, "--lines", "kasmina/events/seed/culled", "kasmina.events.seed.grafted", "kasmina.events.run.ended")
	if status != 0 || strings.Count(out, `"to_state":"CULLED"`) != 3 || strings.Count(out, `"outcome":"FAILED"`) != 1 {
		t.Errorf("lines: status %d, %s%s", status, out, messages)
	}
	if status, _, _ := run(t, "replay", "--brokers", w.brokers, "--to-topic", "kasmina.events.seed.culled", "kasmina.events.seed.grafted"); status != exitFailed {
		t.Errorf("to one of Oona's topics: status %d", status)
	}
}
