package ingest

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/morphogenetic/oona/bus"
	"github.com/morphogenetic/oona/claimcheck"
	"github.com/morphogenetic/oona/schemas/avro/conformance"
	"github.com/morphogenetic/oona/schemas/registry/registrytest"
	"github.com/morphogenetic/oona/windows"
)

// Each request of the conformance file has the answer that the file says.
func TestConformance(t *testing.T) {
	set := conformanceSet(t)
	for _, c := range set.Requests {
		t.Run(c.Name, func(t *testing.T) {
			t.Parallel()
			if c.Request.Send != nil && c.Request.Send.Then == "wait" {
				synctest.Test(t, func(t *testing.T) {
					conforming(t, c.Needs, func(s *Stage) (dial, func()) {
						pipes, end := serve(t, s)
						return func() (net.Conn, error) { return pipes.dial(), nil }, end
					}).check(t, set, c)
				})
				return
			}
			conforming(t, c.Needs, func(s *Stage) (dial, func()) {
				server := startStage(t, s)
				address := strings.TrimSuffix(strings.TrimPrefix(server.url, "http://"), framesPath)
				end := func() {
					server.cancel()
					if err := <-server.ended; err != nil {
						t.Error(err)
					}
				}
				return func() (net.Conn, error) { return net.Dial("tcp", address) }, end
			}).check(t, set, c)
		})
	}
}

// The payloads that are to be refused are refused for their field when they are sent.
func TestRefusedPayloads(t *testing.T) {
	set := conformanceSet(t)
	onBus := newBus(t)
	store := newStore(t)
	s := newStage(t, onBus, func(c *Config) { c.Tensors, c.Events = store, rawTopics })
	for _, c := range set.RefusedFrames {
		w := post(s, mediaAvro, slices.Concat(set.Frames[0].Avro, c.Avro))
		p := decodeProblem(t, w)
		if p.Type != "urn:oona:problem:"+c.Reason || p.Frame == nil || *p.Frame != 1 || p.Field != c.Field {
			t.Errorf("%s: problem is %s, want %s for %s", c.Name, w.Body, c.Reason, c.Field)
		}
	}
	for _, c := range set.RefusedEvents {
		w := postEvents(s, mediaAvro, slices.Concat(set.Events[0].Avro, c.Avro))
		p := decodeProblem(t, w)
		if p.Type != "urn:oona:problem:"+c.Reason || p.Event == nil || *p.Event != 1 || p.Field != c.Field {
			t.Errorf("%s: problem is %s, want %s for %s", c.Name, w.Body, c.Reason, c.Field)
		}
	}
	for _, c := range set.RefusedEnds {
		w := postEvents(s, mediaAvro, slices.Concat(set.Ends[0].Avro, c.Avro))
		p := decodeProblem(t, w)
		if p.Type != "urn:oona:problem:"+c.Reason || p.Event == nil || *p.Event != 1 || p.Field != c.Field {
			t.Errorf("%s: problem is %s, want %s for %s", c.Name, w.Body, c.Reason, c.Field)
		}
	}
	if calls, _ := onBus.published(t); calls != 0 {
		t.Errorf("%d calls of Publish", calls)
	}
}

// The file has every reason for which a request is refused, with each of its statuses. If
// this fails because a reason is new, add a request with the answer to requests.json, and
// what a client must do to behaviour.json.
func TestConformanceHasEveryReason(t *testing.T) {
	set := conformanceSet(t)
	got := map[string]bool{}
	for _, c := range set.Requests {
		if p := c.Answer.Problem; p != nil {
			got[fmt.Sprint(c.Answer.Status, " ", p.Type)] = true
		}
	}
	behaviours := map[int]bool{}
	for _, b := range set.Behaviours {
		for _, rule := range b.Server {
			behaviours[rule.Answer.Status] = true
		}
	}
	for why, as := range answers {
		if name := fmt.Sprint(as.status, " ", label(why)); !got[name] {
			t.Errorf("no request is answered %s", name)
		}
		if !behaviours[as.status] {
			t.Errorf("no behaviour is about the status %d", as.status)
		}
	}
}

func conformanceSet(t *testing.T) *conformance.Set {
	t.Helper()
	set, err := conformance.Read()
	if err != nil {
		t.Fatal(err)
	}
	return set
}

type dial func() (net.Conn, error)

// conformer is a server for a request of the conformance file.
type conformer struct {
	bus  *testBus
	dial dial
	end  func()
}

// conforming starts a stage that is and has what is needed.
func conforming(t *testing.T, needs []string, start func(*Stage) (dial, func())) *conformer {
	t.Helper()
	s := newSpooling(t)
	changes := []func(*Config){takesEvents}
	if !slices.Contains(needs, "no-event-topics") {
		withEvents(t, s.bus)
	}
	fills := func(*Stage) {}
	var limits *windows.Limits
	for _, need := range needs {
		switch need {
		case "limits":
			limits, _ = limitsOf(nil)
		case "narrow-windows":
			limits, _ = limitsOf(func(c *windows.Config) { c.MaxMetrics, c.MaxSeeds = 1, 4 })
		case "100-metrics":
			changes = append(changes, func(c *Config) { c.MaxMetrics = 100 })
		case "tokens":
			changes = append(changes, func(c *Config) { c.Access = newGate(t) })
		case "spool":
			changes = append(changes, func(c *Config) { c.Spool.Directory = s.dir })
		case "spool-full":
			changes = append(changes, func(c *Config) { c.Spool.Directory, c.Spool.Headroom = s.dir, 1<<60 })
		case "bus-down":
			s.leave(fmt.Errorf("publish: %w", bus.ErrUnreachable))
		case "bus-silent":
			s.hang.Store(true)
			changes = append(changes, hasty)
		case "partitions-changed":
			s.leave(bus.ErrPartitions)
		case "busy":
			fills = func(s *Stage) {
				for range cap(s.slots) {
					s.slots <- struct{}{}
				}
			}
		case "share-taken":
			fills = func(s *Stage) {
				by := s.sharing.join(clientKey{address: netip.MustParseAddr("127.0.0.1")}, time.Now())
				for by.try(forFrames) == entered {
				}
			}
		case "registry", "registry-down":
			fake := registrytest.Start(t, "")
			if id := fake.Register("raw-value", frameSchema(t)); id.Number != 1 {
				t.Fatalf("the schema has the id %d", id.Number)
			}
			if need == "registry-down" {
				fake.Answer(http.StatusInternalServerError, "")
			}
			changes = append(changes, withRegistry(t, fake.Config))
		case "tensor-store", "store-down", "store-full", "store-refused":
			store := newStore(t)
			err := map[string]error{"store-down": claimcheck.ErrUnavailable, "store-full": claimcheck.ErrFull, "store-refused": claimcheck.ErrRefused}[need]
			if err != nil {
				store.fault = func(context.Context) error { return err }
			}
			changes = append(changes, func(c *Config) { c.Tensors = store })
		case "no-tensor-store", "no-event-topics": // there are none
		default:
			t.Fatalf("this test cannot provide %q", need)
		}
	}
	s.configure(func(c *Config) {
		c.Spool.Directory = ""
		for _, change := range changes {
			change(c)
		}
	})
	s.SetLimits(limits)
	fills(s.Stage)
	dial, end := start(s.Stage)
	return &conformer{s.bus, dial, func() {
		for range len(s.slots) {
			<-s.slots
		}
		end()
		if open := s.cfg.Spool.Open; open != nil {
			if err := open.Close(); err != nil {
				t.Error(err)
			}
		}
	}}
}

// check sends the requests and compares the last answer with what it must be.
func (s *conformer) check(t *testing.T, set *conformance.Set, c conformance.Exchange) {
	defer s.end()
	for _, r := range c.Before {
		if a := s.send(t, set, r); a.status/100 != 2 {
			t.Fatalf("a request before it is answered %d %s", a.status, a.body)
		}
	}
	got := s.send(t, set, c.Request)
	if got.status != c.Answer.Status {
		t.Fatalf("answer is %d %s, want %d", got.status, got.body, c.Answer.Status)
	}
	for name, want := range c.Answer.Headers {
		if value := got.header.Get(name); value != want && (want != "*" || value == "") {
			t.Errorf("header %s is %q, want %q", name, value, want)
		}
	}
	if c.Answer.Problem != nil {
		checkProblem(t, got, c.Answer.Problem)
	} else {
		checkMembers(t, got, c.Answer.JSON)
	}
	_, records := s.bus.published(t)
	want := 0
	if accepted, ok := c.Answer.JSON["accepted"].(float64); ok && c.Answer.Status == http.StatusOK {
		want = int(accepted)
	}
	if c.Request.Path == eventsPath && want > 0 {
		records = slices.Concat(slices.Collect(maps.Values(s.bus.events(t)))...)
	}
	if len(records) != want {
		t.Errorf("%d records are on the bus, want %d", len(records), want)
	}
	for i, name := range c.Answer.Records {
		at := slices.IndexFunc(set.Frames, func(f conformance.GoldenFrame) bool { return f.Name == name })
		if at < 0 || i >= len(records) || !bytes.Equal(records[i].Payload, set.Frames[at].Avro) {
			t.Errorf("record %d is not the frame %q", i, name)
		}
	}
}

func checkProblem(t *testing.T, a answered, want *conformance.Problem) {
	t.Helper()
	var got problem
	if err := json.Unmarshal(a.body, &got); err != nil {
		t.Fatalf("%v: %s", err, a.body)
	}
	if a.header.Get("Content-Type") != "application/problem+json" || got.Status != a.status || got.Title == "" || got.Detail == "" {
		t.Errorf("problem is %s", a.body)
	}
	if got.Type != "urn:oona:problem:"+want.Type || !sameIndex(got.Frame, want.Frame) || !sameIndex(got.Event, want.Event) || got.Field != want.Field {
		t.Errorf("problem is %s\nwant %+v", a.body, want)
	}
}

func sameIndex(a, b *int) bool { return (a == nil) == (b == nil) && (a == nil || *a == *b) }

func checkMembers(t *testing.T, a answered, want map[string]any) {
	t.Helper()
	var got map[string]any
	if err := json.Unmarshal(a.body, &got); err != nil || a.header.Get("Content-Type") != mediaJSON {
		t.Fatalf("the body is %s: %s, %v", a.header.Get("Content-Type"), a.body, err)
	}
	if !has(got, want) {
		t.Errorf("the body is %s\nwant at least %v", a.body, want)
	}
}

// has reports whether a value in JSON has all members of another one.
func has(got, want any) bool {
	switch want := want.(type) {
	case map[string]any:
		members, ok := got.(map[string]any)
		for name, value := range want {
			ok = ok && has(members[name], value)
		}
		return ok
	case []any:
		elements, ok := got.([]any)
		ok = ok && len(elements) == len(want)
		for i := range want {
			ok = ok && has(elements[i], want[i])
		}
		return ok
	}
	return got == want
}

// answered is an answer that was read.
type answered struct {
	status int
	header http.Header
	body   []byte
}

// send sends a request and returns the answer. It writes the request itself, as a client
// of package http does not send half a body.
func (s *conformer) send(t *testing.T, set *conformance.Set, r conformance.Request) answered {
	t.Helper()
	body, err := set.Join(r.Body)
	if err != nil {
		t.Fatal(err)
	}
	body = withNow(t, body)
	conn, err := s.dial()
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	head := new(bytes.Buffer)
	fmt.Fprintf(head, "%s %s HTTP/1.1\r\nHost: oona\r\n", r.Method, r.Path)
	chunked := false
	for name, value := range r.Headers {
		fmt.Fprintf(head, "%s: %s\r\n", name, withNow(t, []byte(value)))
		chunked = chunked || name == "Transfer-Encoding"
	}
	switch {
	case chunked:
		body = fmt.Appendf(nil, "%x\r\n%s\r\n0\r\n\r\n", len(body), body)
	default:
		fmt.Fprintf(head, "Content-Length: %d\r\n", len(body))
	}
	if r.Send != nil {
		body = body[:r.Send.Bytes]
	}
	sent := make(chan struct{})
	go func() {
		defer close(sent)
		_, _ = conn.Write(append(append(head.Bytes(), "\r\n"...), body...)) // the answer tells
		if half, ok := conn.(*net.TCPConn); ok && r.Send != nil && r.Send.Then == "close" {
			_ = half.CloseWrite()
		}
	}()
	response, err := http.ReadResponse(bufio.NewReader(conn), &http.Request{Method: r.Method})
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	answer, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	conn.Close()
	<-sent
	return answered{response.StatusCode, response.Header, answer}
}

var nows = regexp.MustCompile(`"?<now([+-][0-9]+)?>"?`)

// withNow replaces what stands for the time of sending.
func withNow(t *testing.T, text []byte) []byte {
	return nows.ReplaceAllFunc(text, func(match []byte) []byte {
		micros := time.Now().UnixMicro()
		if offset := nows.FindSubmatch(match)[1]; len(offset) > 0 {
			n, err := strconv.ParseInt(string(offset), 10, 64)
			if err != nil {
				t.Fatal(err)
			}
			micros += n
		}
		return strconv.AppendInt(nil, micros, 10)
	})
}
