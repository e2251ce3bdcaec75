package export_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/bus"
	"github.com/morphogenetic/oona/pipeline"
	"github.com/morphogenetic/oona/pipeline/export"
	"github.com/morphogenetic/oona/schemas/avro"
)

// statusAnswer is what a client reads of GET /v1/status, or of a problem.
type statusAnswer struct {
	Run   string
	State string
	Ended *struct {
		At              time.Time
		Outcome, Reason string
		Step            int64
	}
	Layers []struct {
		Layer   string
		Windows []struct {
			Start, End                   time.Time
			Frames, Readings, Duplicates int64
			Delay                        float64 `json:"delay_seconds"`
		}
	}
	Aside []struct {
		Topic, Reason, Do string
		Records           int
		First, Last       time.Time
		Examples          []struct {
			Layer, Producer, Detail, Origin string
			Sequence                        *int64
			ObservedAt                      *time.Time `json:"observed_at"`
			Offset                          int64
		}
	}
	LastWindow *time.Time `json:"last_window"`
	Notes      []string
	Complete   bool
	UnknownRun int `json:"unknown_run"`
	Problems   []string
	Type       string
	Status     int
	Runs       []string
}

// asked is a stage with side topics, of which a client asks.
type asked struct {
	*fixture
	page http.Handler
	now  oona.Micros
	next int64
}

func ask(t *testing.T) *asked {
	t.Helper()
	f := start(t, nil)
	sides := slices.DeleteFunc(topics.Specs(1), func(s oona.TopicSpec) bool { return !slices.Contains(topics.Sides(), s.Name) })
	if _, err := f.tape.bus.Apply(t.Context(), sides); err != nil {
		t.Fatal(err)
	}
	return &asked{fixture: f, page: f.stage.Status(f.tape.bus), now: oona.MicrosOf(time.Now())}
}

func (a *asked) get(query string, headers ...string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(http.MethodGet, "/v1/status"+query, nil)
	for i := 0; i+1 < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	w := httptest.NewRecorder()
	a.page.ServeHTTP(w, r)
	return w
}

// want returns the answer to a request, which must have a status.
func (a *asked) want(code int, query string) (said statusAnswer) {
	a.t.Helper()
	w := a.get(query)
	if err := json.Unmarshal(w.Body.Bytes(), &said); err != nil || w.Code != code {
		a.t.Fatalf("%s is answered %d %s, want %d; %v", query, w.Code, w.Body, code, err)
	}
	kind := "application/json"
	if code != http.StatusOK {
		kind = "application/problem+json"
	}
	if got := w.Header().Get("Content-Type"); got != kind || code != http.StatusOK && said.Status != code {
		a.t.Errorf("%s is answered as %s, with %s", query, got, w.Body)
	}
	return said
}

// aside returns the record of a frame in a side topic.
func (a *asked) aside(run oona.RunID, reason string, ago time.Duration) *message.Message {
	a.next++
	appended := a.now - oona.Micros(ago.Microseconds())
	f := &oona.Frame{Run: run, Layer: "enc.1", Producer: "trainer", Sequence: a.next, ObservedAt: appended - 5e6, Seeds: []oona.SeedID{1}, States: []oona.State{0}}
	msg := message.NewMessage("", avro.AppendFrame(nil, f))
	at := bus.Position{Topic: topics.SeedMetrics, Partition: 0, Offset: a.next, Appended: appended, Key: oona.Key(run, f.Layer)}
	return pipeline.SideMessage(msg, at, pipeline.Rejection{Stage: "aggregate", Reason: reason, Detail: fmt.Sprint("detail ", a.next)})
}

func (a *asked) put(topic string, messages ...*message.Message) {
	a.t.Helper()
	if err := a.tape.publisher.Publish(context.Background(), topic, messages...); err != nil {
		a.t.Fatal(err)
	}
}

// A status has the last windows of each layer, and what was put aside within the last hour:
// of this run, each record once, with the newest examples.
func TestStatus(t *testing.T) {
	a := ask(t)
	for i := range 7 {
		a.send(ended(time.Duration(70-10*i)*time.Second, oona.Performance, "r", "enc.1"))
		a.send(ended(time.Duration(70-10*i)*time.Second, oona.Health, "r", "enc.1"))
	}
	a.send(rollup(oona.Performance, "r", "enc.0"))
	a.send(rollup(oona.Performance, "another", "enc.0"))
	a.put(topics.Quarantine, a.aside("r", "stale", 70*time.Minute), a.aside("r", "stale", 50*time.Minute), a.aside("r", "stale", 40*time.Minute))
	repeated := a.aside("r", "stale", 30*time.Minute)
	a.put(topics.Quarantine, repeated, repeated.Copy(), a.aside("another", "stale", 0), a.aside("r", "future", time.Minute), a.aside("r", "stale", 20*time.Minute))
	a.put(topics.Late, a.aside("r", "late", time.Second))

	said := a.want(http.StatusOK, "?run=r")
	if said.Run != "r" || said.State != "live" || !said.Complete || len(said.Problems) != 0 || len(said.Layers) != 2 || said.Layers[0].Layer != "enc.0" {
		t.Fatalf("the status is %+v", said)
	}
	windows := said.Layers[1].Windows
	if len(windows) != 5 || windows[4].Frames != 5 || windows[4].Readings != 50 || windows[4].Duplicates != 1 || windows[4].End.Sub(windows[4].Start) < 10*time.Second {
		t.Errorf("the windows are %+v", windows)
	}
	for i, w := range windows {
		if i > 0 && w.End.Before(windows[i-1].End) || w.Delay < 9 || w.Delay > 3600 {
			t.Errorf("window %d ends at %s and came %g s later", i, w.End, w.Delay)
		}
	}
	if len(said.Aside) != 3 {
		t.Fatalf("%+v was put aside", said.Aside)
	}
	stale := said.Aside[0] // most records
	if stale.Reason != "stale" || stale.Topic != topics.Quarantine || stale.Records != 4 || stale.Do == "" || stale.Last.Sub(stale.First) != 30*time.Minute || len(stale.Examples) != 3 {
		t.Fatalf("of stale frames it says %+v", stale)
	}
	first := stale.Examples[0]
	if first.Layer != "enc.1" || first.Producer != "trainer" || *first.Sequence != a.next-1 || first.Detail != fmt.Sprint("detail ", a.next-1) || first.Offset != 7 ||
		first.Origin != fmt.Sprintf("%s/0/%d", topics.SeedMetrics, a.next-1) || first.ObservedAt.UnixMicro() != int64(a.now-20*60e6-5e6) {
		t.Errorf("the newest example is %+v", first)
	}
}

// Without records that were put aside, the answer has an empty list, as clients iterate over it.
func TestStatusOfARunWithNothingAside(t *testing.T) {
	a := ask(t)
	a.send(rollup(oona.Performance, "r", "enc.0"))
	if said := a.want(http.StatusOK, "?run=r"); len(said.Layers) != 1 || said.Aside == nil || len(said.Aside) != 0 {
		t.Errorf("the status is %+v", said)
	}
}

// A run of which only old windows come is not called live, as no layer of it is shown: before,
// it was live without a layer.
func TestStatusOfOldWindows(t *testing.T) {
	a := ask(t)
	old := ended(time.Hour, oona.Performance, "r", "enc.1")
	a.send(old)
	said := a.want(http.StatusOK, "?run=r")
	if said.State != "behind" || len(said.Layers) != 0 || len(said.Notes) != 1 || said.LastWindow == nil || said.LastWindow.UnixMicro() != int64(old.End) {
		t.Errorf("the status is %+v", said)
	}
	for _, want := range []string{"behind", said.Notes[0], stampOf(old.End)} {
		if text := a.get("?run=r", "Accept", "text/plain").Body.String(); !strings.Contains(text, want) {
			t.Errorf("the text lacks %q:\n%s", want, text)
		}
	}
	a.send(rollup(oona.Performance, "r", "enc.1"))
	if said := a.want(http.StatusOK, "?run=r"); said.State != "live" || len(said.Layers) != 1 || len(said.Notes) != 0 {
		t.Errorf("with a window of now, the status is %+v", said)
	}
}

func stampOf(at oona.Micros) string { return at.Time().UTC().Format("2006-01-02T15:04:05.000Z") }

// If more was put aside than is in the windows, a note says so, whatever the state is.
func TestStatusOfARunThatIsLate(t *testing.T) {
	a := ask(t)
	a.send(ended(time.Minute, oona.Performance, "r", "enc.1")) // five frames
	for n := range 6 {
		a.put(topics.Late, a.aside("r", "late", time.Second))
		said := a.want(http.StatusOK, "?run=r")
		if want := max(0, n-4); said.State != "live" || len(said.Notes) != want {
			t.Errorf("with %d late frames, the status is %+v", n+1, said)
		}
	}
}

// A run all of whose frames were put aside is known, too.
func TestStatusOfARunWithoutWindows(t *testing.T) {
	a := ask(t)
	a.put(topics.Quarantine, a.aside("r", "future", 0))
	if said := a.want(http.StatusOK, "?run=r"); said.State != "none" || len(said.Aside) != 1 || len(said.Notes) != 1 || said.Layers == nil || said.LastWindow != nil {
		t.Errorf("the status is %+v", said)
	}
}

// Dead letters of the raw topic have no key of ours. Their run is that of their frame.
func TestStatusOfRawDeadLetters(t *testing.T) {
	a := ask(t)
	if _, err := a.tape.bus.Apply(t.Context(), topics.RawSpecs(1)); err != nil {
		t.Fatal(err)
	}
	letter := func(value string) *message.Message {
		a.next++
		at := bus.Position{Topic: topics.SeedRaw, Offset: a.next, Appended: a.now, Key: []byte("k")}
		return pipeline.SideMessage(message.NewMessage("", []byte(value)), at, pipeline.Rejection{Stage: "ingest", Reason: "invalid", Detail: "d"})
	}
	a.put(topics.SeedRawDead, letter(`[{"run_id":"r","layer_id":"l","producer_id":"p","sequence":3,"observed_at":1700000000000000}]`), letter("junk"), letter(`{"run_id":7}`),
		letter(string(a.aside("r", "", 0).Payload)))
	said := a.want(http.StatusOK, "?run=r")
	if len(said.Aside) != 1 || said.Aside[0].Records != 2 || said.UnknownRun != 2 {
		t.Fatalf("the status is %+v", said)
	}
	if e := said.Aside[0].Examples[1]; e.Layer != "l" || *e.Sequence != 3 || e.ObservedAt.Unix() != 1700000000 {
		t.Errorf("the example is %+v", e)
	}
}

func TestStatusIsRefused(t *testing.T) {
	a := ask(t)
	a.send(rollup(oona.Performance, "b", "l"))
	a.put(topics.Late, a.aside("a", "late", 0))
	for _, query := range []string{"", "?run=", "?run=a%20b", "?run=b&run=c", "?run=" + strings.Repeat("x", 129), "?run=b&x=%zz"} {
		if said := a.want(http.StatusBadRequest, query); said.Type != "urn:oona:problem:run" || !slices.Equal(said.Runs, []string{"b"}) {
			t.Errorf("%q is answered %+v", query, said)
		}
	}
	if said := a.want(http.StatusNotFound, "?run=c"); said.Type != "urn:oona:problem:unknown-run" || !slices.Equal(said.Runs, []string{"a", "b"}) || !said.Complete {
		t.Errorf("an unknown run is answered %+v", said)
	}
	a.expect(6, "oona_exporter_status_requests_total", "code=400")
	a.expect(1, "oona_exporter_status_requests_total", "code=404")
}

// faultySides are side topics of which some cannot be read.
type faultySides struct {
	export.Sides
	fails func(ctx context.Context, topic string) error
}

func (s *faultySides) Extents(ctx context.Context, names ...string) (map[string][]bus.Extent, error) {
	if err := s.fails(ctx, names[0]); err != nil {
		return nil, err
	}
	return s.Sides.Extents(ctx, names...)
}

// What cannot be read is said, and a run is not called unknown then.
func TestStatusWithoutASideTopic(t *testing.T) {
	a := ask(t)
	a.page = a.stage.Status(&faultySides{a.tape.bus, func(_ context.Context, topic string) error {
		if topic == topics.Late {
			return errors.New("not permitted")
		}
		return nil
	}})
	a.put(topics.Quarantine, a.aside("r", "stale", 0))
	said := a.want(http.StatusOK, "?run=r")
	if len(said.Problems) != 1 || !strings.Contains(said.Problems[0], topics.Late) || said.Complete || len(said.Aside) != 1 {
		t.Errorf("the status is %+v", said)
	}
	if said := a.want(http.StatusServiceUnavailable, "?run=unknown"); said.Type != "urn:oona:problem:unavailable" {
		t.Errorf("an unknown run is answered %+v", said)
	}
}

// The topic of dead letters of the raw topic need not exist. As it takes long to find that
// out, it is not looked for each time.
func TestStatusWithoutARawTopic(t *testing.T) {
	a := ask(t)
	var looked atomic.Int64
	a.page = a.stage.Status(&faultySides{a.tape.bus, func(_ context.Context, topic string) error {
		if topic == topics.SeedRawDead {
			looked.Add(1)
		}
		return nil
	}})
	a.put(topics.Quarantine, a.aside("r", "stale", 0))
	for range 3 {
		if said := a.want(http.StatusOK, "?run=r"); len(said.Problems) != 0 || !said.Complete {
			t.Errorf("the status is %+v", said)
		}
	}
	if n := looked.Load(); n != 1 {
		t.Errorf("it was looked for %d times", n)
	}
}

// A flood in one topic is read in part, the newest records, and hides no other topic.
func TestStatusUnderAFlood(t *testing.T) {
	a := ask(t)
	var flood []*message.Message
	for range 6000 {
		flood = append(flood, a.aside("flood", "late", time.Second))
	}
	a.put(topics.Late, flood...)
	a.put(topics.Late, a.aside("r", "late", 0))
	a.put(topics.Quarantine, a.aside("r", "stale", 0))
	if said := a.want(http.StatusOK, "?run=r"); said.Complete || len(said.Aside) != 2 {
		t.Errorf("the status is %+v", said)
	}
	if said := a.want(http.StatusNotFound, "?run=perhaps"); said.Complete { // older records may be of this run
		t.Errorf("an unknown run is answered %+v", said)
	}
	if said := a.want(http.StatusOK, "?run=flood"); said.Aside[0].Records < 4000 || said.Aside[0].Records > 4096 {
		t.Errorf("%d records were read", said.Aside[0].Records)
	}
	for topic, enlarge := range map[string]func(*message.Message){
		topics.Overflow:   func(m *message.Message) { m.Payload = append(m.Payload, make([]byte, 1<<20)...) },
		topics.Quarantine: func(m *message.Message) { m.Metadata.Set("of-the-trainer", strings.Repeat("x", 1<<20)) },
	} {
		var large []*message.Message
		for i := range 40 {
			msg := a.aside("r", fmt.Sprint("large-", i), 0)
			enlarge(msg)
			large = append(large, msg)
		}
		a.put(topic, large...)
		said := a.want(http.StatusOK, "?run=r")
		read := 0
		for _, g := range said.Aside {
			if g.Topic == topic {
				read++
			}
		}
		if read < 12 || read > 24 || said.Complete || !strings.Contains(fmt.Sprint(said.Aside), "large-39") {
			t.Errorf("%d of 40 large records of %s were read", read, topic)
		}
	}
}

// Few requests read the side topics at a time. A client that is gone frees its place.
func TestStatusRequestsAreLimited(t *testing.T) {
	a := ask(t)
	entered := make(chan struct{}, 100)
	a.page = a.stage.Status(&faultySides{a.tape.bus, func(ctx context.Context, _ string) error {
		entered <- struct{}{}
		<-ctx.Done()
		return ctx.Err()
	}})
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	for range 2 {
		go func() {
			a.page.ServeHTTP(httptest.NewRecorder(), httptest.NewRequestWithContext(ctx, http.MethodGet, "/v1/status?run=r", nil))
			ended <- struct{}{}
		}()
		for range topics.Sides() {
			<-entered
		}
	}
	if w := a.get("?run=r"); w.Code != http.StatusTooManyRequests || w.Header().Get("Retry-After") == "" {
		t.Errorf("the third request is answered %d", w.Code)
	}
	cancel()
	<-ended
	<-ended
	a.page = a.stage.Status(a.tape.bus)
	a.want(http.StatusNotFound, "?run=r")
}

// Clients that prefer text get it.
func TestStatusAsText(t *testing.T) {
	a := ask(t)
	a.send(rollup(oona.Performance, "r", "enc.1"))
	bad := a.aside("r", "conflict", 0)
	bad.Metadata[oona.HeaderErrorMessage] = "one\nput aside, \x1b[31mtwo"
	a.put(topics.Quarantine, bad)
	for accept, text := range map[string]bool{"": false, "*/*": false, "application/json": false, "text/plain": true, "text/plain, application/json;q=0.5": true, "text/*": true, "image/png": false} {
		w := a.get("?run=r", "Accept", accept)
		got := w.Header().Get("Content-Type")
		if want := map[bool]string{true: "text/plain; charset=utf-8", false: "application/json"}[text]; got != want || w.Code != http.StatusOK {
			t.Errorf("Accept: %s is answered as %s", accept, got)
		}
		if text && (!strings.Contains(w.Body.String(), "enc.1") || !strings.Contains(w.Body.String(), "conflict") || strings.ContainsRune(w.Body.String(), 0x1b) || strings.Contains(w.Body.String(), "one\n")) {
			t.Errorf("the text is\n%s", w.Body)
		}
	}
}
