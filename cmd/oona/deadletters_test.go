package main

import (
	"encoding/json"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/bus"
	"github.com/morphogenetic/oona/bus/kafka"
	"github.com/morphogenetic/oona/deadletters"
	"github.com/morphogenetic/oona/pipeline"
	"github.com/morphogenetic/oona/schemas/avro"
	"github.com/morphogenetic/oona/schemas/registry/registrytest"
)

// sides is an installation with records in its side topics.
type sides struct {
	t      *testing.T
	at     []string
	topics oona.Topics
	bus    bus.Bus
	out    bus.Publisher
}

func newSides(t *testing.T) *sides {
	t.Helper()
	at, cfg := startBroker(t)
	s := &sides{t: t, at: at}
	var err error
	if s.topics, err = oona.NewTopics(oona.DefaultPrefix); err != nil {
		t.Fatal(err)
	}
	b := kafka.New(cfg, nil)
	s.bus = b
	if _, err := b.Apply(t.Context(), append(s.topics.Specs(1), s.topics.SettingsSpec(), s.topics.RedrivesSpec())); err != nil {
		t.Fatal(err)
	}
	if s.out, err = b.Publisher(bus.PublisherOptions{}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.out.Close() })
	return s
}

// put writes a frame to a side topic.
func (s *sides) put(topic, reason string, run oona.RunID, sequence int64) {
	s.t.Helper()
	s.putAt(topic, reason, run, sequence, 1_790_000_001_500_000)
}

func (s *sides) putAt(topic, reason string, run oona.RunID, sequence int64, appended oona.Micros) {
	s.t.Helper()
	f := watchedFrame(run, "enc.0", sequence)
	f.ObservedAt = oona.MicrosOf(time.Now())
	at := bus.Position{Topic: s.topics.SeedMetrics, Offset: 100 + sequence, Incarnation: 7, Key: oona.Key(f.Run, f.Layer), Appended: appended}
	side := pipeline.SideMessage(bus.NewMessage(avro.AppendFrame(nil, f), bus.Target{}), at, pipeline.Rejection{Stage: "aggregate", Reason: reason, Detail: "because"})
	if err := s.out.Publish(s.t.Context(), topic, side); err != nil {
		s.t.Fatal(err)
	}
}

// run runs a command of dead-letters.
func (s *sides) run(status int, args ...string) (out, messages string) {
	s.t.Helper()
	got, out, messages := run(s.t, append(append([]string{"dead-letters"}, args...), s.at...)...)
	if got != status {
		s.t.Fatalf("%v: status %d, want %d: %s%s", args, got, status, out, messages)
	}
	return out, messages
}

// list returns the places that list prints.
func (s *sides) list(args ...string) (places []string) {
	s.t.Helper()
	out, _ := s.run(0, append([]string{"list", "--json"}, args...)...)
	for line := range strings.Lines(out) {
		var l listedLetter
		if err := json.Unmarshal([]byte(line), &l); err != nil {
			s.t.Fatalf("%v: %s", err, line)
		}
		places = append(places, strings.TrimPrefix(l.Place, sideBase(s.topics)))
	}
	return places
}

func (s *sides) redrive(status int, args ...string) (r deadletters.Report) {
	s.t.Helper()
	out, _ := s.run(status, append([]string{"redrive", "--json", "--rate=0"}, args...)...)
	if err := json.Unmarshal([]byte(out), &r); err != nil {
		s.t.Fatalf("%v: %s", err, out)
	}
	return r
}

func TestDeadLetters(t *testing.T) {
	t.Parallel()
	s := newSides(t)
	s.put(s.topics.Late, "late", "one", 0)
	s.put(s.topics.Quarantine, "future", "one", 1)
	s.put(s.topics.Quarantine, "stale", "two", 2)
	s.put(s.topics.Overflow, "layers", "two", 3)

	for _, tt := range []struct {
		args []string
		want string
	}{
		{nil, "late/0/0 quarantine/0/0 quarantine/0/1 overflow/0/0"},
		{[]string{"--topic", "quarantine"}, "quarantine/0/0 quarantine/0/1"},
		{[]string{"--topic", s.topics.Overflow, "--topic=late"}, "late/0/0 overflow/0/0"},
		{[]string{"--reason", "stale,late"}, "late/0/0 quarantine/0/1"},
		{[]string{"--run", "two"}, "quarantine/0/1 overflow/0/0"},
		{[]string{"--layer", "enc.1"}, ""},
		{[]string{"--origin", "metrics/1"}, ""},
		{[]string{"--origin", "metrics/0", "--limit=1"}, "late/0/0"},
		{[]string{"--origin", "raw"}, ""},
		{[]string{"--from", "2026-09-21T14:13:21Z"}, "late/0/0 quarantine/0/0 quarantine/0/1 overflow/0/0"},
		{[]string{"--until", "2026-09-21T14:13:21Z"}, ""},
	} {
		if got := strings.Join(s.list(tt.args...), " "); got != tt.want {
			t.Errorf("list %v: %q, want %q", tt.args, got, tt.want)
		}
	}

	out, _ := s.run(0, "show", "quarantine/0/1", "kasmina.telemetry.seed.metrics/0/7/101", "--json")
	if n := strings.Count(out, `"frames":[{"run_id":`); n != 2 {
		t.Errorf("show: %s", out)
	}
	if r := s.redrive(0, "quarantine/0/0", "--dry-run"); r.Redriven != 1 || !r.DryRun {
		t.Errorf("%+v", r)
	}
	if _, messages := s.run(1, "redrive", "quarantine/0/0"); !strings.Contains(messages, errNotConfirmed.Error()) {
		t.Errorf("without --yes: %s", messages)
	}
	if r := s.redrive(0, "quarantine/0/0", "--yes", "--by=alice"); r.Redriven != 1 || r.By != "alice" {
		t.Errorf("%+v", r)
	}
	s.run(0, "discard", "--reason=stale", "--yes")
	if got := strings.Join(s.list(), " "); got != "late/0/0 overflow/0/0" {
		t.Errorf("afterwards: %s", got)
	}
	if got := s.list("--all"); len(got) != 4 {
		t.Errorf("afterwards, all: %s", got)
	}
	if r := s.redrive(1, "--yes"); r.Redriven != 1 || r.Done != 1 || r.Discarded != 1 || r.Late().Count != 1 {
		t.Errorf("%+v", r)
	}
	s.run(0, "discard", "--undo", "--yes")
	if got := strings.Join(s.list(), " "); got != "late/0/0 quarantine/0/1" {
		t.Errorf("undone: %s", got)
	}
}

func TestDeadLettersThatDoNotExist(t *testing.T) {
	t.Parallel()
	s := newSides(t)
	for _, command := range []string{"show", "redrive", "discard"} {
		if _, messages := s.run(1, command, "late/0/9"); !strings.Contains(messages, errNoLetter.Error()) {
			t.Errorf("%s: %s", command, messages)
		}
	}
	for _, args := range [][]string{
		{"list", "--topic", "lat"}, {"show", "late/0"}, {"list", "--topic=kasmina.telemetry.layer.health.dead"},
	} {
		s.run(1, args...)
	}
	for _, args := range [][]string{
		{"redrive", "--set-producer-epoch=soon"}, {"redrive", "--rate=-1"}, {"redrive", "--rate=NaN"}, {"redrive", "--max-metrics=0"}, {"show"},
		{"list", "--from", "offset:3"}, {"discard", "--until=offset:3"},
	} {
		s.run(2, args...)
	}
	if _, messages := s.run(2, "list", "--from=tomorrow"); strings.Contains(messages, "offset") {
		t.Errorf("it names a form that is not allowed: %s", messages)
	}
}

// A result that is not of a dry run does not say so because there was nothing to do.
func TestNothingToDo(t *testing.T) {
	t.Parallel()
	s := newSides(t)
	for _, args := range [][]string{{"discard", "--yes"}, {"discard", "--undo", "--yes"}, {"redrive", "--yes"}, {"redrive"}, {"discard"}} {
		for _, dry := range []bool{false, true} {
			all := slices.Concat(args, []string{"--json"})
			if dry {
				all = append(all, "--dry-run")
			}
			var r struct {
				DryRun *bool `json:"dry_run"`
			}
			out, _ := s.run(0, all...)
			if err := json.Unmarshal([]byte(out), &r); err != nil || r.DryRun == nil || *r.DryRun != dry {
				t.Errorf("%v: %v, %s", all, err, out)
			}
		}
	}
}

// Without the topic of redrives, nobody knows what was done.
func TestNoTopicOfRedrives(t *testing.T) {
	t.Parallel()
	s := newSides(t)
	s.at = append(s.at, "--prefix=other")
	other, err := oona.NewTopics("other")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.bus.Apply(t.Context(), append(other.Specs(1), other.SettingsSpec())); err != nil {
		t.Fatal(err)
	}
	for status, args := range map[int][]string{0: {"list"}, 1: {"redrive", "--yes"}} {
		if _, messages := s.run(status, args...); !strings.Contains(messages, other.Redrives) {
			t.Errorf("%v: no warning: %s", args, messages)
		}
	}
}

// A record of the topic of redrives that cannot be read is shown, and concerns only its
// letter.
func TestListOfUnreadableOutcomes(t *testing.T) {
	t.Parallel()
	s := newSides(t)
	s.put(s.topics.Quarantine, "future", "one", 1)
	s.put(s.topics.Quarantine, "future", "one", 2)
	bad := bus.NewMessage([]byte("?"), bus.Target{Key: []byte(s.topics.SeedMetrics + "/0/7/101"), Directed: true})
	if err := s.out.Publish(t.Context(), s.topics.Redrives, bad); err != nil {
		t.Fatal(err)
	}
	if out, messages := s.run(0, "list"); strings.Count(out, "[unreadable]") != 1 || !strings.Contains(out, "UNREADABLE") || !strings.Contains(messages, "tombstone") {
		t.Errorf("%s%s", out, messages)
	}
	s.run(0, "show", "quarantine/0/0")
	if r := s.redrive(1, "--yes"); r.Redriven != 1 || r.Refused["unreadable"].Count != 1 {
		t.Errorf("%+v", r)
	}
}

// What a refused record has in its names does not reach the terminal as it is.
func TestListEscapesNames(t *testing.T) {
	t.Parallel()
	s := newSides(t)
	value := `{"run_id":"a\u001b[2J\nb","layer_id":"c"}`
	at := bus.Position{Topic: s.topics.SeedMetrics, Appended: 1_790_000_001_500_000}
	side := pipeline.SideMessage(bus.NewMessage([]byte(value), bus.Target{}), at, pipeline.Rejection{Stage: "ingest", Reason: "invalid", Detail: "x\u009by"})
	if err := s.out.Publish(t.Context(), s.topics.Quarantine, side); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{{"list"}, {"show", "quarantine/0/0"}} {
		if out, _ := s.run(0, args...); strings.ContainsAny(out, "\x1b\u009b") || !strings.Contains(out, `a\x1b[2J\nb`) {
			t.Errorf("%v: %q", args, out)
		}
	}
}

// A rate holds however many records are sent at once.
func TestRedriveKeepsToTheRate(t *testing.T) {
	t.Parallel()
	s := newSides(t)
	for i := range int64(30) {
		s.put(s.topics.Overflow, "layers", "one", i)
	}
	began := time.Now()
	if r := s.redrive(0, "--yes", "--rate=40"); r.Redriven != 30 {
		t.Errorf("%+v", r)
	}
	if took := time.Since(began); took < 500*time.Millisecond { // the first 10 do not wait
		t.Errorf("it took %s", took)
	}
}

// Records with the framing of a schema registry are redriven if the registry is given.
func TestRedriveOfRegisteredFrames(t *testing.T) {
	t.Parallel()
	s := newSides(t)
	if _, err := s.bus.Apply(t.Context(), s.topics.RawSpecs(1)); err != nil {
		t.Fatal(err)
	}
	fake := registrytest.Start(t, "")
	schemas := avro.Schemas()
	i := slices.IndexFunc(schemas, func(s avro.Schema) bool { return s.Name == "kasmina.telemetry.SeedMetrics" })
	id := fake.Register("raw-value", schemas[i].Text)
	f := watchedFrame("one", "enc.0", 0)
	f.ObservedAt = oona.MicrosOf(time.Now())
	body, err := avro.Body(avro.AppendFrame(nil, f))
	if err != nil {
		t.Fatal(err)
	}
	at := bus.Position{Topic: s.topics.SeedRaw, Appended: 1_790_000_001_500_000}
	side := pipeline.SideMessage(bus.NewMessage(append(avro.AppendSchemaID(nil, id.Number), body...), bus.Target{}), at, pipeline.Rejection{Stage: "ingest", Reason: "schema", Detail: "because"})
	if err := s.out.Publish(t.Context(), s.topics.SeedRawDead, side); err != nil {
		t.Fatal(err)
	}
	if r := s.redrive(1, "--topic=raw.dead", "--yes"); r.Redriven != 0 || r.Refused["undecodable"] == nil {
		t.Errorf("without a registry: %+v", r)
	}
	url := "--registry-url=" + fake.URL
	fake.Answer(http.StatusServiceUnavailable, "")
	s.run(1, "redrive", "--yes", url)
	fake.AnswerBy(nil)
	if r := s.redrive(0, "--topic=raw.dead", "--yes", url); r.Redriven != 1 {
		t.Errorf("with it: %+v", r)
	}
}

// The command that is printed for late frames can be run as it is, and folds them.
func TestLateFramesAreComputedAgain(t *testing.T) {
	t.Parallel()
	s := newSides(t)
	for i := range int64(2) { // the second one is late, though here nothing decides that
		f := watchedFrame("one", "enc.0", i)
		f.ObservedAt = oona.MicrosOf(time.Now())
		msg := bus.NewMessage(avro.AppendFrame(nil, f), bus.Target{Key: oona.Key(f.Run, f.Layer)})
		if err := s.out.Publish(t.Context(), s.topics.SeedMetrics, msg); err != nil {
			t.Fatal(err)
		}
	}
	s.putAt(s.topics.Late, "late", "one", 1, oona.MicrosOf(time.Now()))
	_, messages := s.run(1, "redrive", "--yes")
	_, command, _ := strings.Cut(messages, "\n  oona ")
	command, _, _ = strings.Cut(command, "\n")
	status, out, messages := run(t, slices.Concat(strings.Fields(command), s.at, []string{"--yes"})...)
	extents, err := s.bus.Extents(t.Context(), "kasmina-recomputed.telemetry.layer.health")
	if status != 0 || err != nil || extents["kasmina-recomputed.telemetry.layer.health"][0].End == 0 {
		t.Errorf("%s: status %d, %v, %v\n%s%s", command, status, extents, err, out, messages)
	}
}
