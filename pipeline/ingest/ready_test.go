package ingest

import (
	"net/http"
	"net/http/httptest"
	"testing"
	"testing/synctest"
	"time"
)

// A load balancer asks the port for frames. It needs no token, and is neither a request with
// frames nor a client that shares ingest with others.
func TestReadyOnThePortForFrames(t *testing.T) {
	s := newStage(t, newBus(t), func(c *Config) { c.Access = newGate(t) })
	ask := func(method string) int {
		w := httptest.NewRecorder()
		s.Handler().ServeHTTP(w, httptest.NewRequest(method, readyPath, nil))
		return w.Code
	}
	if got := ask(http.MethodGet); got != http.StatusServiceUnavailable {
		t.Errorf("before it listens, the answer is %d", got)
	}
	s.phase.Store(phaseServing)
	for method, want := range map[string]int{http.MethodGet: http.StatusOK, http.MethodHead: http.StatusOK, http.MethodPost: http.StatusUnauthorized} {
		if got := ask(method); got != want {
			t.Errorf("%s is answered %d, want %d", method, got, want)
		}
	}
	if n := s.Counts(); n.Requests != 1 || n.Refused != 1 { // the POST
		t.Errorf("counts are %+v", n)
	}
	s.phase.Store(phaseStopping)
	if got := ask(http.MethodGet); got != http.StatusServiceUnavailable {
		t.Errorf("while it stops, the answer is %d", got)
	}
}

// A load balancer may look at any path. That does not make it a client that wants a part of
// the processors, which others would have to leave to it.
func TestLooksTakeNoProcessors(t *testing.T) { synctest.Test(t, testLooks) }

func testLooks(t *testing.T) {
	s := newStage(t, newBus(t), nil)
	trainer := clientKey{address: networkOf("10.0.0.1:1")}
	from := func(method string) bool {
		r := httptest.NewRequest(method, "/", nil)
		r.RemoteAddr = "10.0.0.2:1"
		w := httptest.NewRecorder()
		s.Handler().ServeHTTP(w, r)
		if w.Code != http.StatusNotFound {
			t.Errorf("%s is answered %d", method, w.Code)
		}
		return s.sharing.others(trainer, time.Now())
	}
	if from(http.MethodGet) || from(http.MethodHead) {
		t.Error("a look counts as a client that sends")
	}
	if !from(http.MethodPost) {
		t.Error("a client that sends does not count")
	}
}
