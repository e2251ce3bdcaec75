package ingest

import (
	"errors"
	"io"
	"net/http"
)

// readyPath is for load balancers that can only ask the port to which they send requests. It
// needs no credentials, and the load balancer does not count as a client.
const readyPath = "/readyz"

// Ready returns nil while the stage accepts frames, and otherwise the reason why it does not. It
// does not depend on the bus. Only requests show whether the bus works, and a stage that is not
// ready gets none, so it would not notice when the bus works again.
func (s *Stage) Ready() error {
	switch s.phase.Load() {
	case phaseStarting:
		return errors.New("not listening yet")
	case phaseStopping:
		return errors.New("stopping")
	}
	return nil
}

// serveReady answers a load balancer.
func (s *Stage) serveReady(w http.ResponseWriter) {
	status, text := http.StatusOK, "ready"
	if err := s.Ready(); err != nil {
		status, text = http.StatusServiceUnavailable, err.Error()
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.WriteHeader(status)
	_, _ = io.WriteString(w, text+"\n") // the load balancer may be gone
}
