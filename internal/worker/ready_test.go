package worker

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/alecthomas/kong"

	"github.com/morphogenetic/oona"
)

func TestCheckReady(t *testing.T) {
	listen := func(t *testing.T, status int, answer string) string {
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path != "/readyz" {
				status = http.StatusNotFound
			}
			w.WriteHeader(status)
			_, _ = io.WriteString(w, answer+"\n")
		}))
		t.Cleanup(server.Close)
		return server.Listener.Addr().String()
	}
	ready, behind := listen(t, http.StatusOK, "ready"), listen(t, http.StatusServiceUnavailable, "not ready: catching up")
	_, port, err := net.SplitHostPort(ready)
	if err != nil {
		t.Fatal(err)
	}

	var out bytes.Buffer
	for _, address := range []string{ready, ":" + port, "0.0.0.0:" + port, "localhost:" + port} {
		out.Reset()
		if err := askReady(t.Context(), &Config{AdminAddress: address}, &out); err != nil || out.String() != "ready\n" {
			t.Errorf("%s: %q, error %v", address, out.String(), err)
		}
	}
	out.Reset()
	if err := askReady(t.Context(), &Config{AdminAddress: behind}, &out); !errors.Is(err, errNotReady) || out.String() != "not ready: catching up\n" {
		t.Errorf("a worker that catches up: %q, error %v", out.String(), err)
	}
	var refused *net.OpError
	if err := askReady(t.Context(), &Config{AdminAddress: "127.0.0.1:1"}, io.Discard); !errors.As(err, &refused) {
		t.Errorf("without a worker: %v", err)
	}
	var field *oona.FieldError
	if err := askReady(t.Context(), &Config{AdminAddress: "127.0.0.1:0"}, io.Discard); !errors.As(err, &field) || field.Field != "--admin-address" {
		t.Errorf("without a port: %v", err)
	}
}

// The flag does not start the worker, and its exit status is the answer.
func TestCheckReadyIsAnExitStatus(t *testing.T) {
	run := func(context.Context, *Worker) error { t.Error("the worker has started"); return nil }
	server := httptest.NewServer(http.NotFoundHandler())
	address := server.Listener.Addr().String()
	for _, want := range []int{exitFailed, exitFailed} { // not ready; then not there
		var stderr bytes.Buffer
		got := execute(t.Context(), "probe", "Probes.", newTestConfig(), run, []string{"--check-ready", "--admin-address", address}, io.Discard, &stderr, kong.Vars{"caps": "1"})
		if got != want || !strings.HasPrefix(stderr.String(), "probe: ") {
			t.Errorf("status %d, stderr %q", got, stderr.String())
		}
		server.Close()
	}
	answers := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	defer answers.Close()
	if got := execute(t.Context(), "probe", "Probes.", newTestConfig(), run, []string{"--check-ready", "--admin-address", answers.Listener.Addr().String()}, io.Discard, io.Discard, kong.Vars{"caps": "1"}); got != exitOK {
		t.Errorf("a ready worker: status %d", got)
	}
}
