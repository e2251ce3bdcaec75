package ingest

import (
	"net/http"
	"net/http/httptest"
	"testing"
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
