package ingest

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/bus"
	"github.com/morphogenetic/oona/intake"
	"github.com/morphogenetic/oona/internal/outage"
	"github.com/morphogenetic/oona/schemas/avro"
)

const eventPartitions = 7

// withEvents adds the topics of events to a bus.
func withEvents(t *testing.T, b *testBus) *testBus {
	t.Helper()
	if _, err := b.Apply(t.Context(), rawTopics.EventSpecs(eventPartitions)); err != nil {
		t.Fatal(err)
	}
	return b
}

func takesEvents(c *Config) { c.Events = rawTopics }

func postEvents(s *Stage, mediaType string, body []byte, headers ...string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(http.MethodPost, "/v1/events", bytes.NewReader(body))
	r.Header.Set("Content-Type", mediaType)
	for i := 0; i+1 < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	w := httptest.NewRecorder()
	s.Handler().ServeHTTP(w, r)
	return w
}

func goodEvent(sequence int64, from, to oona.State) *oona.SeedEvent {
	return &oona.SeedEvent{
		Run: "digits", Layer: "enc.1", Seed: 17, Sequence: sequence, At: 1_790_000_001_000_000, Step: 7,
		From: from, To: to, Reason: "a plateau", Evidence: map[string]float64{"gain": .25, "after": 1},
	}
}

// life is the events of a seed, one for each topic.
func life() []*oona.SeedEvent {
	return []*oona.SeedEvent{
		goodEvent(0, oona.Dormant, oona.Germinated), goodEvent(1, oona.Germinated, oona.Training), goodEvent(2, oona.Training, oona.Grafting),
		goodEvent(3, oona.Evaluating, oona.Culled), goodEvent(4, oona.FineTuning, oona.Fossilized),
	}
}

func lifeTopics() []string {
	return []string{rawTopics.Germinated, rawTopics.Transitioned, rawTopics.Grafted, rawTopics.Culled, rawTopics.Fossilized}
}

func events(all ...*oona.SeedEvent) (body []byte) {
	for _, e := range all {
		body = avro.AppendEvent(body, e)
	}
	return body
}

func eventSchema(t *testing.T, version int) avro.Schema {
	t.Helper()
	for _, s := range avro.Schemas() {
		if s.Name == avro.EventName && s.Version == version {
			return s
		}
	}
	t.Fatalf("there is no version %d", version)
	return avro.Schema{}
}

// firstVersion encodes an event as version 1 does, which lacks the last 14 fields. Their
// defaults take one byte each.
func firstVersion(t *testing.T, e *oona.SeedEvent) []byte {
	t.Helper()
	body := avro.AppendEvent(nil, e)
	binary.LittleEndian.PutUint64(body[2:], eventSchema(t, 1).Fingerprint)
	return body[:len(body)-14]
}

// container returns an object container file without compression.
func container(t *testing.T, version int, singles ...[]byte) []byte {
	t.Helper()
	text := func(dst []byte, s string) []byte { return append(binary.AppendVarint(dst, int64(len(s))), s...) }
	sync := "0123456789abcdef"
	file := append([]byte(avro.ContainerMagic), 2)
	file = text(text(file, "avro.schema"), eventSchema(t, version).Text)
	file = append(append(file, 0), sync...)
	var block []byte
	for _, s := range singles {
		block = append(block, s[10:]...)
	}
	file = binary.AppendVarint(file, int64(len(singles)))
	return append(text(file, string(block)), sync...)
}

// read returns the records of the topics of events, by topic.
func (b *testBus) events(t *testing.T) map[string][]*message.Message {
	t.Helper()
	found := make(map[string][]*message.Message)
	for _, topic := range rawTopics.Events() {
		for p := range int32(eventPartitions) {
			err := b.Read(t.Context(), topic, bus.Range{Partition: p, End: 1 << 40}, func(m *message.Message) error {
				found[topic] = append(found[topic], m)
				return nil
			})
			if err != nil {
				t.Fatal(err)
			}
		}
	}
	return found
}

// TestEvents: events become the same records however they are sent.
func TestEvents(t *testing.T) {
	var old [][]byte
	var inJSON []map[string]any
	for _, e := range life() {
		old = append(old, firstVersion(t, e))
		inJSON = append(inJSON, map[string]any{
			"run_id": e.Run, "layer_id": e.Layer, "seed_id": e.Seed, "sequence": e.Sequence, "at": e.At, "step": e.Step,
			"from_state": e.From.String(), "to_state": e.To.String(), "reason": e.Reason, "evidence": e.Evidence, "mark": "NORMAL",
		})
	}
	asJSON, err := json.Marshal(inJSON)
	if err != nil {
		t.Fatal(err)
	}
	for name, sent := range map[string]struct {
		mediaType string
		body      []byte
	}{
		"version 2":           {mediaAvro, events(life()...)},
		"version 1":           {mediaAvro, bytes.Join(old, nil)},
		"a container":         {mediaAvro, container(t, 1, old...)},
		"a newer container":   {mediaAvro, container(t, 2, avro.AppendEvent(nil, life()[0]), avro.AppendEvent(nil, life()[1]), avro.AppendEvent(nil, life()[2]), avro.AppendEvent(nil, life()[3]), avro.AppendEvent(nil, life()[4]))},
		"JSON":                {mediaJSON, asJSON},
		"mixed single object": {mediaAvro, append(bytes.Join(old[:2], nil), events(life()[2:]...)...)},
	} {
		t.Run(name, func(t *testing.T) {
			onBus := withEvents(t, newBus(t))
			s := newStage(t, onBus, takesEvents)
			const trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
			w := postEvents(s, sent.mediaType, sent.body, "traceparent", trace)
			if w.Code != http.StatusOK || w.Body.String() != "{\"accepted\":5}\n" {
				t.Fatalf("answer is %d %s", w.Code, w.Body)
			}
			found := onBus.events(t)
			for i, e := range life() {
				records := found[lifeTopics()[i]]
				if len(records) != 1 {
					t.Fatalf("%s has %d records", lifeTopics()[i], len(records))
				}
				m := records[0]
				at, err := bus.PositionOf(m)
				if err != nil || !bytes.Equal(at.Key, oona.SeedKey("digits", "enc.1", 17)) || at.Partition != bus.PartitionOf([]byte("digits"), eventPartitions) {
					t.Errorf("event %d has key %q in partition %d (%v)", i, at.Key, at.Partition, err)
				}
				if !bytes.Equal(m.Payload, avro.AppendEvent(nil, e)) {
					t.Errorf("event %d is %x", i, m.Payload)
				}
				for header, want := range map[string]string{
					"ce_specversion": "1.0", "ce_id": "digits/enc.1/17/0/" + string(rune('0'+i)), "ce_source": "urn:oona:run:digits", "ce_subject": "enc.1/17",
					"ce_type": lifeTopics()[i], "ce_time": "2026-09-21T14:13:21Z", "content-type": "application/avro", "oona-path": "ingest-1", "traceparent": trace,
				} {
					if m.Metadata[header] != want {
						t.Errorf("event %d: header %s is %q, want %q", i, header, m.Metadata[header], want)
					}
				}
			}
			if c := s.Counts(); c.Events != 5 || c.Frames != 0 || testutil.ToFloat64(s.counts.eventsTotal) != 5 {
				t.Errorf("counts are %+v", c)
			}
		})
	}
}

// TestEventsRefused: a body with an event that is not valid is refused as a whole, and the
// answer names the event and the field.
func TestEventsRefused(t *testing.T) {
	change := func(with func(*oona.SeedEvent)) []byte {
		second := goodEvent(1, oona.Germinated, oona.Training)
		with(second)
		return events(goodEvent(0, oona.Dormant, oona.Germinated), second)
	}
	for name, c := range map[string]struct {
		mediaType string
		body      []byte
		status    int
		reason    intake.Reason
		event     int // -1: none
		field     string
	}{
		"a layer":                {mediaAvro, change(func(e *oona.SeedEvent) { e.Layer = "a b" }), 400, intake.ReasonInvalid, 1, "layer_id"},
		"a seed":                 {mediaAvro, change(func(e *oona.SeedEvent) { e.Seed = -1 }), 400, intake.ReasonInvalid, 1, "seed_id"},
		"a sequence":             {mediaAvro, change(func(e *oona.SeedEvent) { e.Sequence = -1 }), 400, intake.ReasonInvalid, 1, "sequence"},
		"a time in seconds":      {mediaAvro, change(func(e *oona.SeedEvent) { e.At = 1_790_000_000 }), 400, intake.ReasonInvalid, 1, "at"},
		"a reason":               {mediaAvro, change(func(e *oona.SeedEvent) { e.Reason = string(make([]byte, 1025)) }), 400, intake.ReasonInvalid, 1, "reason"},
		"a blueprint":            {mediaAvro, change(func(e *oona.SeedEvent) { e.Blueprint = "a/b" }), 400, intake.ReasonInvalid, 1, "blueprint_id"},
		"evidence":               {mediaAvro, change(func(e *oona.SeedEvent) { e.Evidence = map[string]float64{"": 1} }), 400, intake.ReasonInvalid, 1, "evidence"},
		"a trigger":              {mediaAvro, change(func(e *oona.SeedEvent) { e.TriggerPosition = 1 }), 400, intake.ReasonInvalid, 1, "trigger_position"},
		"an incarnation":         {mediaAvro, change(func(e *oona.SeedEvent) { e.Incarnation = 1 }), 400, intake.ReasonInvalid, 1, "incarnation"},
		"an unknown state":       {mediaJSON, []byte(`{"run_id":"r","layer_id":"l","seed_id":1,"sequence":0,"at":1790000000000000,"from_state":"DORMANT","to_state":"DEAD"}`), 400, intake.ReasonInvalid, 0, "to_state"},
		"an unknown mark":        {mediaJSON, []byte(`{"run_id":"r","layer_id":"l","seed_id":1,"sequence":0,"at":1790000000000000,"from_state":0,"to_state":1,"mark":"LOST"}`), 400, intake.ReasonInvalid, 0, "mark"},
		"a missing field":        {mediaJSON, []byte(`[{"run_id":"r","layer_id":"l","seed_id":1,"at":1790000000000000,"from_state":0,"to_state":1}]`), 400, intake.ReasonInvalid, 0, "sequence"},
		"an unknown field":       {mediaJSON, []byte(`[{"seed":1}]`), 400, intake.ReasonInvalid, 0, "seed"},
		"text as evidence":       {mediaJSON, []byte(`[{"evidence":{"gain":"much"}}]`), 400, intake.ReasonInvalid, 0, "evidence.gain"},
		"frames":                 {mediaAvro, frames(nil), 400, intake.ReasonUndecodable, 0, "fingerprint"},
		"a cut event":            {mediaAvro, events(goodEvent(0, 0, 1))[:20], 400, intake.ReasonUndecodable, 0, ""},
		"an event that is large": {mediaAvro, change(func(e *oona.SeedEvent) { e.Reason = string(make([]byte, 70_000)) }), 400, intake.ReasonUndecodable, 1, ""},
		"no events":              {mediaJSON, []byte(`[]`), 400, intake.ReasonUndecodable, -1, ""},
		"a file of nothing":      {mediaAvro, container(t, 1), 400, intake.ReasonUndecodable, -1, ""},
		"nothing":                {mediaAvro, nil, 400, intake.ReasonUndecodable, -1, ""},
		"another type":           {"text/plain", events(goodEvent(0, 0, 1)), 415, reasonMediaType, -1, ""},
		"the registry's form":    {mediaAvro, append([]byte{0, 0, 0, 0, 1}, events(goodEvent(0, 0, 1))...), 415, reasonMediaType, -1, ""},
	} {
		onBus := withEvents(t, newBus(t))
		s := newStage(t, onBus, takesEvents)
		w := postEvents(s, c.mediaType, c.body)
		got := problem{}
		if err := json.Unmarshal(w.Body.Bytes(), &got); err != nil || w.Code != c.status || got.Type != "urn:oona:problem:"+string(c.reason) {
			t.Errorf("%s: answer is %d %s", name, w.Code, w.Body)
			continue
		}
		event := -1
		if got.Event != nil {
			event = *got.Event
		}
		if event != c.event || c.field != "" && got.Field != c.field || got.Frame != nil {
			t.Errorf("%s: the answer names event %d, field %q: %s", name, event, got.Field, got.Detail)
		}
		if len(onBus.events(t)) > 0 {
			t.Errorf("%s: something was published", name)
		}
		goldenLine(t, "events.txt", name, w.Body.String())
		speaksOfEvents(t, name, got)
	}
}

// speaksOfEvents checks that a refusal of events does not speak of frames.
func speaksOfEvents(t *testing.T, name string, of problem) {
	t.Helper()
	if strings.Contains(of.Detail, "frame") || of.Frame != nil {
		t.Errorf("%s: the answer to a sender of events speaks of frames: %s", name, of.Detail)
	}
}

// TestEventsRefusedByLimits: the refusals that frames and events share speak of events to
// senders of events.
func TestEventsRefusedByLimits(t *testing.T) {
	large := goodEvent(1, oona.Germinated, oona.Training)
	large.Reason = strings.Repeat("a", 1000)
	many := bytes.Repeat(events(large), 20)
	for name, c := range map[string]struct {
		body    []byte
		headers []string
		status  int
	}{
		"a body that is too large":           {many, nil, http.StatusRequestEntityTooLarge},
		"a body that is too large in chunks": {many, []string{"Transfer-Encoding", "chunked"}, http.StatusRequestEntityTooLarge},
		"a body that inflates":               {gzipped(bytes.Repeat(events(large), 200)), []string{"Content-Encoding", "gzip"}, http.StatusRequestEntityTooLarge},
		"gzip of nothing":                    {gzipped(nil), []string{"Content-Encoding", "gzip"}, http.StatusBadRequest},
		"gzip without saying so":             {gzipped(events(large)), nil, http.StatusUnsupportedMediaType},
		"a page":                             {[]byte("<html>"), nil, http.StatusUnsupportedMediaType},
		"a clock that is off":                {events(large), []string{"Oona-Sent-At", "1"}, http.StatusBadRequest},
		"a coding that nobody knows":         {events(large), []string{"Content-Encoding", "br"}, http.StatusUnsupportedMediaType},
	} {
		s := newStage(t, withEvents(t, newBus(t)), func(cfg *Config) {
			takesEvents(cfg)
			cfg.MaxBodyBytes, cfg.MaxDecompressedBytes = 15_000, 100_000
		})
		r := httptest.NewRequest(http.MethodPost, eventsPath, bytes.NewReader(c.body))
		r.Header.Set("Content-Type", mediaAvro)
		for i := 0; i+1 < len(c.headers); i += 2 {
			r.Header.Set(c.headers[i], c.headers[i+1])
		}
		if r.Header.Get("Transfer-Encoding") != "" {
			r.ContentLength = -1
		}
		w := httptest.NewRecorder()
		s.Handler().ServeHTTP(w, r)
		got := decodeProblem(t, w)
		if got.Status != c.status {
			t.Errorf("%s: answer is %d %s", name, w.Code, w.Body)
		}
		speaksOfEvents(t, name, got)
	}
	s := newStage(t, withEvents(t, newBus(t)), takesEvents)
	w := httptest.NewRecorder()
	s.Handler().ServeHTTP(w, httptest.NewRequest(http.MethodGet, eventsPath, nil))
	if got := decodeProblem(t, w); got.Status != http.StatusMethodNotAllowed {
		t.Errorf("GET is answered %s", w.Body)
	} else {
		speaksOfEvents(t, "GET", got)
	}
}

// TestEventsTooLargeForTheBus: an event that the bus never takes is named by its place in the
// request, although each topic has only some of its events.
func TestEventsTooLargeForTheBus(t *testing.T) {
	onBus := withEvents(t, newBus(t))
	s := newStage(t, onBus, takesEvents)
	onBus.before = func(topic string, messages []*message.Message) error {
		for _, m := range messages {
			var e oona.SeedEvent
			if _, err := avro.DecodeEvent(m.Payload, &e); err != nil || e.Sequence == 6 {
				return errors.Join(err, bus.ErrTooLarge)
			}
		}
		return nil
	}
	all := append(life(), goodEvent(5, oona.Evaluating, oona.Culled), goodEvent(6, oona.Evaluating, oona.Culled))
	w := postEvents(s, mediaAvro, events(all...))
	got := decodeProblem(t, w)
	if got.Status != http.StatusRequestEntityTooLarge || got.Event == nil || *got.Event != 6 {
		t.Errorf("answer is %d %s", w.Code, w.Body)
	}
	speaksOfEvents(t, "too large for the bus", got)
}

// TestEventsTooMany: a request has as many events as it may have frames.
func TestEventsTooMany(t *testing.T) {
	s := newStage(t, withEvents(t, newBus(t)), func(c *Config) { takesEvents(c); c.MaxFrames = 2 })
	if w := postEvents(s, mediaAvro, events(life()...)); w.Code != http.StatusRequestEntityTooLarge {
		t.Errorf("five events are answered %d %s", w.Code, w.Body)
	}
	if w := postEvents(s, mediaAvro, events(life()[:2]...)); w.Code != http.StatusOK {
		t.Errorf("two events are answered %d %s", w.Code, w.Body)
	}
}

// TestAccessToEvents: an identity sends events of its runs and producers.
func TestAccessToEvents(t *testing.T) {
	for name, c := range map[string]struct {
		who    string
		change func(*oona.SeedEvent)
		status int
		field  string
	}{
		"nobody":               {"", func(*oona.SeedEvent) {}, 401, ""},
		"without the role":     {"uploader", func(*oona.SeedEvent) {}, 403, ""},
		"its run":              {"trainer", func(*oona.SeedEvent) {}, 200, ""},
		"its producer":         {"trainer", func(e *oona.SeedEvent) { e.Producer = "trainer-1" }, 200, ""},
		"another run":          {"trainer", func(e *oona.SeedEvent) { e.Run = "other" }, 403, "run_id"},
		"another producer":     {"trainer", func(e *oona.SeedEvent) { e.Producer = "intruder" }, 403, "producer_id"},
		"one who may send all": {"all", func(e *oona.SeedEvent) { e.Run = "other" }, 200, ""},
	} {
		s := newStage(t, withEvents(t, newBus(t)), func(c *Config) { takesEvents(c); c.Access = newGate(t) })
		e := goodEvent(0, oona.Dormant, oona.Germinated)
		c.change(e)
		var headers []string
		if c.who != "" {
			headers = []string{"Authorization", "Bearer " + c.who}
		}
		w := postEvents(s, mediaAvro, events(e), headers...)
		got := problem{}
		if err := json.Unmarshal(w.Body.Bytes(), &got); err != nil || w.Code != c.status || got.Field != c.field {
			t.Errorf("%s: answer is %d %s", name, w.Code, w.Body)
		}
	}
}

// TestEventsWithoutTopics: frames need no topics of events, and events are refused with what
// to do, also if there is a spool.
func TestEventsWithoutTopics(t *testing.T) {
	spooled := newSpooling(t)
	spooled.begin(takesEvents)
	defer spooled.end()
	for name, s := range map[string]*Stage{"": newStage(t, newBus(t), takesEvents), "with a spool": spooled.Stage} {
		w := postEvents(s, mediaAvro, events(life()...))
		got := problem{}
		if err := json.Unmarshal(w.Body.Bytes(), &got); err != nil || w.Code != http.StatusServiceUnavailable || got.Type != "urn:oona:problem:no-topic" || w.Header().Get("Retry-After") == "" {
			t.Errorf("%s: answer is %d %s", name, w.Code, w.Body)
		}
		if w := post(s, mediaAvro, frames(nil)); w.Code != http.StatusOK {
			t.Errorf("%s: frames are answered %d %s", name, w.Code, w.Body)
		}
	}
	if !spooled.cfg.Spool.Open.Empty() {
		t.Error("something is in the spool")
	}
}

// TestEventTopicIsLoggedOnce: that a topic of events cannot be used is logged once, with its
// name, and again when the reason changes, after some minutes, and when it works. Before, it was
// logged every ten seconds as long as the topic was missing, and a second topic was not.
func TestEventTopicIsLoggedOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		onBus := withEvents(t, newBus(t))
		fault := bus.ErrNoTopic
		onBus.before = func(string, []*message.Message) error { return fault }
		var log bytes.Buffer
		s := newStage(t, onBus, takesEvents)
		s.logger = slog.New(slog.NewTextHandler(&log, nil))
		attempts := func(want int, topics ...string) {
			t.Helper()
			log.Reset()
			for range 3 {
				for _, topic := range topics {
					if err := s.publishTo(t.Context(), topic, []*message.Message{bus.NewMessage([]byte("an event"), bus.Target{Key: []byte("k")})}); !errors.Is(err, fault) || ofEventTopic(err) != (fault != nil) {
						t.Fatalf("%s: %v", topic, err)
					}
				}
				time.Sleep(20 * time.Second)
			}
			if n := strings.Count(log.String(), "topic="); n != want {
				t.Errorf("%d lines, want %d: %s", n, want, &log)
			}
		}
		attempts(1, rawTopics.Culled)
		attempts(1, rawTopics.Culled, rawTopics.Grafted) // of grafted
		time.Sleep(outage.Again)
		attempts(2, rawTopics.Culled, rawTopics.Grafted)
		fault = bus.ErrDenied
		attempts(1, rawTopics.Culled)
		fault = nil
		attempts(1, rawTopics.Culled)
		attempts(0, rawTopics.Culled)
		fault = bus.ErrNoTopic
		attempts(1, rawTopics.Culled)
	})
}

// TestEventsSpooled: events go through the spool while the bus is away, in order with the
// frames of their run, to the topics and the partition that they would have gone to.
func TestEventsSpooled(t *testing.T) {
	s := newSpooling(t)
	withEvents(t, s.bus)
	s.begin(takesEvents)
	s.leave(errors.New("the bus is away"))
	want := map[string]int{}
	for sequence := range int64(8) {
		for i, e := range life() {
			e.Sequence = sequence
			want[lifeTopics()[i]]++
		}
		all := life()
		for _, e := range all {
			e.Sequence = sequence
		}
		if w := postEvents(s.Stage, mediaAvro, events(all...)); w.Code != http.StatusAccepted {
			t.Fatalf("answer is %d %s", w.Code, w.Body)
		}
		s.want(http.StatusAccepted, "digits", int(sequence), int(sequence)+1)
	}
	s.end()
	s.away.Store(nil)
	s.begin(takesEvents) // another process
	s.drained()
	found := s.bus.events(t)
	for topic, n := range want {
		if len(found[topic]) != n {
			t.Fatalf("%s has %d events, want %d", topic, len(found[topic]), n)
		}
		for i, m := range found[topic] {
			var e oona.SeedEvent
			if _, err := avro.DecodeEvent(m.Payload, &e); err != nil || e.Sequence != int64(i) {
				t.Errorf("%s: event %d has sequence %d (%v)", topic, i, e.Sequence, err)
			}
			at, err := bus.PositionOf(m)
			if err != nil || at.Partition != bus.PartitionOf([]byte("digits"), eventPartitions) || m.Metadata[oona.HeaderEventType] != topic {
				t.Errorf("%s: event %d is in partition %d (%v)", topic, i, at.Partition, err)
			}
		}
	}
	s.end()
}

// TestEventsDoNotHoldUpTheSpool: events whose topics cannot be used let the frames behind them
// pass, also when the process ends, and come in order when their topics can be used.
func TestEventsDoNotHoldUpTheSpool(t *testing.T) {
	for name, denied := range map[string]error{"missing": bus.ErrNoTopic, "denied": bus.ErrDenied} {
		s := newSpooling(t)
		withEvents(t, s.bus)
		var unusable atomic.Bool
		away := s.bus.before
		s.bus.before = func(topic string, messages []*message.Message) error {
			if topic != rawTopics.SeedMetrics && unusable.Load() {
				return denied
			}
			return away(topic, messages)
		}
		unusable.Store(true)
		s.begin(takesEvents)
		if w := postEvents(s.Stage, mediaAvro, events(life()...)); w.Code != http.StatusServiceUnavailable || !s.cfg.Spool.Open.Empty() {
			t.Fatalf("%s: answer is %d %s", name, w.Code, w.Body)
		}
		unusable.Store(false)
		s.leave(errors.New("the bus is away"))
		for sequence := range int64(2) {
			if w := postEvents(s.Stage, mediaAvro, events(goodEvent(sequence, oona.Training, oona.Culled))); w.Code != http.StatusAccepted {
				t.Fatalf("%s: answer is %d %s", name, w.Code, w.Body)
			}
		}
		s.want(http.StatusAccepted, "digits", 0, 3)
		unusable.Store(true)
		s.away.Store(nil)
		for deadline := time.Now().Add(5 * time.Minute); len(s.sequences("digits")) < 3; time.Sleep(time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("%s: the events hold up the frames", name)
			}
		}
		s.want(http.StatusOK, "another", 0, 1)
		s.end()
		unusable.Store(false)
		s.begin(takesEvents)
		s.drained()
		s.inOrder("digits", 3)
		found := s.bus.events(t)[rawTopics.Culled]
		if len(found) != 2 {
			t.Fatalf("%s: %d events are on the bus", name, len(found))
		}
		for i, m := range found {
			var e oona.SeedEvent
			if _, err := avro.DecodeEvent(m.Payload, &e); err != nil || e.Sequence != int64(i) {
				t.Errorf("%s: event %d has sequence %d (%v)", name, i, e.Sequence, err)
			}
		}
		s.end()
	}
}
