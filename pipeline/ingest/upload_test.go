package ingest

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/iotest"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/morphogenetic/oona/claimcheck"
	"github.com/morphogenetic/oona/intake"
)

func putBody(s *Stage, body io.Reader, headers ...string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(http.MethodPut, "/v1/tensors", body)
	for i := 0; i+1 < len(headers); i += 2 {
		r.Header.Add(headers[i], headers[i+1])
	}
	w := httptest.NewRecorder()
	s.Handler().ServeHTTP(w, r)
	return w
}

func put(s *Stage, content []byte, headers ...string) *httptest.ResponseRecorder {
	return putBody(s, bytes.NewReader(content), headers...)
}

// The answer is a claim in the form that frames have it.
func TestPutTensor(t *testing.T) {
	store, onBus := newStore(t), newBus(t)
	s := newStageWithStore(t, onBus, store)
	want := claimJSON(store.Claim(larger))
	w := putBody(s, iotest.HalfReader(bytes.NewReader(larger))) // of unknown length
	if w.Code != http.StatusCreated || w.Body.String() != want+"\n" || w.Header().Get("Content-Type") != mediaJSON {
		t.Errorf("answer is %d %s", w.Code, w.Body)
	}
	if w := put(s, larger, "Content-Digest", digestHeader(larger), "Repr-Digest", "sha-512=:AAAA:, "+digestHeader(larger)+`;of=tensor; p="a;b"`); w.Code != http.StatusOK || w.Body.String() != want+"\n" {
		t.Errorf("the second answer is %d %s", w.Code, w.Body)
	}
	if !store.has(t, larger) {
		t.Error("the tensor is not in the store")
	}
	frame := strings.Replace(goodJSON, `"step":7`, `"step":7,"tensors":[{"name":"w","seed_id":1,"dtype":"uint8","shape":[100000],"data":`+want+`}]`, 1)
	if w := post(s, mediaJSON, []byte(frame)); w.Code != http.StatusOK {
		t.Errorf("a frame with the claim is answered %d %s", w.Code, w.Body)
	}
	if w := put(s, nil); w.Code != http.StatusCreated {
		t.Errorf("an empty tensor is answered %d %s", w.Code, w.Body)
	}
	if got := testutil.ToFloat64(s.counts.tensorsTotal.WithLabelValues(tensorKept)); got != 2 {
		t.Errorf("%g tensors kept, want 2", got)
	}
}

func TestPutTensorRefused(t *testing.T) {
	large := make([]byte, tensorLimit+1)
	store := newStore(t) // it takes none of them
	for name, c := range map[string]struct {
		body    io.Reader
		headers []string
		code    int
		reason  intake.Reason
		detail  string
	}{
		"another digest":     {bytes.NewReader(larger), []string{"Content-Digest", digestHeader(aboveIt)}, 400, reasonMismatch, "its SHA-256 is"},
		"another of two":     {bytes.NewReader(larger), []string{"Content-Digest", digestHeader(larger), "Repr-Digest", digestHeader(aboveIt)}, 400, reasonMismatch, "its SHA-256 is"},
		"half a digest":      {bytes.NewReader(larger), []string{"Repr-Digest", "sha-256=:AAAA:"}, 400, reasonHeader, `Repr-Digest is "sha-256=:AAAA:"`},
		"hexadecimal digest": {bytes.NewReader(larger), []string{"Content-Digest", "sha-256=" + strings.Repeat("0f", 32)}, 400, reasonHeader, "sha-256=:BASE64:"},
		"too large":          {bytes.NewReader(large), nil, 413, intake.ReasonTooLarge, "1048577 bytes"},
		"too large, untold":  {iotest.HalfReader(bytes.NewReader(large)), nil, 413, intake.ReasonTooLarge, "more than the limit, 1MiB"},
		"coding":             {bytes.NewReader(larger), []string{"Content-Encoding", "gzip"}, 415, reasonMediaType, `Content-Encoding is "gzip"`},
		"two codings":        {bytes.NewReader(larger), []string{"Content-Encoding", "identity", "Content-Encoding", "gzip"}, 415, reasonMediaType, `"identity, gzip"`},
		"a part":             {bytes.NewReader(larger), []string{"Content-Range", "bytes 0-99999/200000"}, 400, reasonHeader, "Content-Range is"},
		"ends early":         {io.MultiReader(bytes.NewReader(larger), iotest.ErrReader(io.ErrUnexpectedEOF)), nil, 400, reasonRead, "the body ended early"},
	} {
		t.Run(name, func(t *testing.T) {
			s := newStageWithStore(t, newBus(t), store)
			w := putBody(s, c.body, c.headers...)
			p := decodeProblem(t, w)
			if w.Code != c.code || p.Type != "urn:oona:problem:"+string(c.reason) || strings.Contains(p.Title+p.Detail, "frame") || !strings.Contains(p.Detail, c.detail) {
				t.Errorf("answer is %d %s", w.Code, w.Body)
			}
			if c.code == http.StatusRequestEntityTooLarge && !strings.Contains(p.Detail, "--max-tensor-bytes") {
				t.Errorf("the answer does not name the setting: %s", w.Body)
			}
			if kept := testutil.ToFloat64(s.counts.tensorsTotal.WithLabelValues(tensorKept)); kept != 0 || store.has(t, larger) {
				t.Error("it is in the store")
			}
			if got, want := s.Counts(), (Counts{Requests: 1, Refused: 1}); got != want {
				t.Errorf("counts are %+v, want %+v", got, want)
			}
		})
	}
	s := newStageWithStore(t, newBus(t), nil)
	if w := put(s, larger); w.Code != http.StatusNotImplemented || !strings.Contains(w.Body.String(), "--tensor-store") {
		t.Errorf("without a store the answer is %d %s", w.Code, w.Body)
	}
	w := httptest.NewRecorder()
	s.Handler().ServeHTTP(w, httptest.NewRequest(http.MethodPost, "/v1/tensors", nil))
	if w.Code != http.StatusMethodNotAllowed || w.Header().Get("Allow") != http.MethodPut {
		t.Errorf("POST is answered %d %s", w.Code, w.Body)
	}
}

func TestPutTensorStoreFails(t *testing.T) {
	disk := newStore(t)
	for _, c := range []struct {
		err    error
		reason intake.Reason
	}{
		{claimcheck.ErrUnavailable, reasonStore}, {claimcheck.ErrFull, reasonStoreFull}, {claimcheck.ErrRefused, reasonRefused}, {claimcheck.ErrSpool, reasonRefused},
		{errors.New("input/output error"), reasonStore}, {context.DeadlineExceeded, reasonStore},
	} {
		store := disk.again()
		store.fault = func(context.Context) error { return c.err }
		w := put(newStageWithStore(t, newBus(t), store), larger)
		if w.Code != http.StatusServiceUnavailable || w.Header().Get("Retry-After") == "" || !strings.Contains(w.Body.String(), `problem:`+string(c.reason)+`"`) || store.fired.Load() != 1 {
			t.Errorf("%v: answer is %d %s", c.err, w.Code, w.Body)
		}
		if text := w.Body.String(); strings.Contains(text, "frame") || !strings.Contains(text, "the tensor was not stored") {
			t.Errorf("%v: the answer is not about a tensor: %s", c.err, text)
		}
	}
}

// send writes a raw request and returns the first line of the answer.
func send(t *testing.T, server *running, request string, hangUp bool) string {
	t.Helper()
	conn, err := net.Dial("tcp", strings.TrimSuffix(strings.TrimPrefix(server.url, "http://"), "/v1/frames"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := io.WriteString(conn, request); err != nil {
		t.Fatal(err)
	}
	if hangUp {
		if err := conn.(*net.TCPConn).CloseWrite(); err != nil {
			t.Fatal(err)
		}
	}
	answer, err := io.ReadAll(io.LimitReader(conn, 12))
	if err != nil {
		t.Fatal(err)
	}
	return string(answer)
}

// A tensor may take longer than the read timeout for frames, but not longer than the
// tensor timeout.
func TestSlowTensors(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newStore(t)
		s := newStage(t, newBus(t), func(c *Config) { c.Tensors, c.ReadTimeout, c.TensorTimeout = store, time.Second, 3*time.Second })
		listener, end := serve(t, s)
		conn := listener.dial()
		began := time.Now()
		if _, err := io.WriteString(conn, putHeader+"Content-Length: 10\r\n\r\nhalf"); err != nil {
			t.Fatal(err)
		}
		answer, err := bufio.NewReader(conn).ReadString('\n')
		if took := time.Since(began); err != nil || !strings.HasPrefix(answer, "HTTP/1.1 408 ") || took != s.cfg.TensorTimeout {
			t.Errorf("answer after %s is %q, %v", took, answer, err)
		}
		conn.Close()
		end()
		if store.has(t, []byte("half")) {
			t.Error("half a tensor was kept")
		}
	})
}

// An incomplete tensor is not stored.
func TestIncompleteTensors(t *testing.T) {
	store := newStore(t)
	server := startStage(t, newStageWithStore(t, newBus(t), store))
	if got := send(t, server, "PUT /v1/tensors HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nhalf", true); got != "HTTP/1.1 400" {
		t.Errorf("answer to a body that ends early is %q", got)
	}
	if store.has(t, []byte("half")) {
		t.Error("half a tensor was kept")
	}
	server.cancel()
	if err := <-server.ended; err != nil {
		t.Error(err)
	}
}

// The read timeout for frames does not end the upload of a tensor, and a stage that stops
// waits for it.
func TestTensorOutlivesTheReadTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newStore(t)
		release := make(chan struct{})
		store.fault = func(ctx context.Context) error {
			select {
			case <-release:
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		s := newStage(t, newBus(t), func(c *Config) { c.Tensors, c.ReadTimeout = store, time.Second })
		listener, cancel, ended := serveUntil(t, s)
		conn := listener.dial()
		if _, err := fmt.Fprintf(conn, "%sContent-Length: %d\r\n\r\n%s", putHeader, len(larger), larger); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		cancel()
		time.Sleep(2 * s.cfg.ReadTimeout) // the fault: a request with frames would be over
		select {
		case err := <-ended:
			t.Fatalf("Run ended while a tensor was being stored: %v", err)
		default:
		}
		if store.fired.Load() != 1 {
			t.Error("the fault did not come")
		}
		close(release)
		if answer, err := bufio.NewReader(conn).ReadString('\n'); err != nil || !strings.HasPrefix(answer, "HTTP/1.1 201 ") || !store.has(t, larger) {
			t.Errorf("answer is %q, %v", answer, err)
		}
		conn.Close()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}

// A client may close its side after it has sent everything.
func TestHalfClosedAfterTheTensor(t *testing.T) {
	store := newStore(t)
	gone := make(chan struct{})
	store.fault = func(ctx context.Context) error {
		select { // the time it takes the server to notice
		case <-ctx.Done():
			return ctx.Err()
		case <-gone:
			return nil
		}
	}
	s := newStageWithStore(t, newBus(t), store)
	handler := s.Handler()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		go func() {
			<-r.Context().Done() // the fault: the server takes the client for gone
			close(gone)
		}()
		handler.ServeHTTP(w, r)
	}))
	defer server.Close()
	request := fmt.Sprintf("PUT /v1/tensors HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s", len(larger), larger)
	if got := send(t, &running{url: server.URL}, request, true); got != "HTTP/1.1 201" || !store.has(t, larger) {
		t.Errorf("answer is %q", got)
	}
}

// The store may take longer for a tensor than the write timeout for frames.
func TestTensorOutlivesTheWriteTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newStore(t)
		store.fault = func(context.Context) error { time.Sleep(90 * time.Second); return nil }
		s := newStageWithStore(t, newBus(t), store)
		listener, end := serve(t, s)
		conn := listener.dial()
		if _, err := io.WriteString(conn, putHeader+"Content-Length: 1\r\n\r\nx"); err != nil {
			t.Fatal(err)
		}
		answer, err := io.ReadAll(io.LimitReader(conn, 12))
		if err != nil || string(answer) != "HTTP/1.1 201" {
			t.Errorf("answer is %q, error %v", answer, err)
		}
		conn.Close()
		end()
	})
}

// A stage that stops does not wait for the store beyond its grace.
func TestDrainCutsOffTheStore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newStore(t)
		store.fault = func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }
		s := newStageWithStore(t, newBus(t), store)
		listener, cancel, ended := serveUntil(t, s)
		conn := listener.dial()
		if _, err := io.WriteString(conn, putHeader+"Content-Length: 1\r\n\r\nx"); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if store.fired.Load() != 1 {
			t.Fatal("the fault did not come")
		}
		began := time.Now()
		cancel()
		if err := <-ended; !errors.Is(err, context.DeadlineExceeded) || time.Since(began) != s.cfg.PublishTimeout+Grace {
			t.Errorf("after %s Run has ended with %v", time.Since(began), err)
		}
		conn.Close()
	})
}
