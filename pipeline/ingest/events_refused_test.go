package ingest

import (
	"bytes"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/bus"
	"github.com/morphogenetic/oona/intake"
	"github.com/morphogenetic/oona/schemas/avro"
)

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
