package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/morphogenetic/oona/pipeline/export"
)

// answering is an exporter that knows the run "mine".
func answering(t *testing.T, busy *atomic.Int32) *httptest.Server {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		refuse := func(status int, more string) {
			w.Header().Set("Content-Type", "application/problem+json")
			w.WriteHeader(status)
			fmt.Fprintf(w, `{"type":"urn:oona:problem:x","title":"No","status":%d,"detail":"what to do"%s}`, status, more)
		}
		switch {
		case r.URL.Path != export.StatusPath || r.Method != http.MethodGet:
			w.WriteHeader(http.StatusNotFound)
		case r.Header.Get("Authorization") != "Bearer secret":
			w.WriteHeader(http.StatusUnauthorized)
		case busy.Add(-1) >= 0:
			refuse(http.StatusTooManyRequests, "")
		case r.URL.Query().Get("run") == "forbidden":
			w.WriteHeader(http.StatusForbidden)
			fmt.Fprint(w, "the identity x does not have the role\x1b[2J")
		case r.URL.Query().Get("run") == "page":
			w.Header().Set("Content-Type", "text/html")
			fmt.Fprintln(w, "<html>")
		case r.URL.Query().Get("run") != "mine":
			refuse(http.StatusNotFound, `,"runs":["mine","a\u001bb"]`)
		case r.Header.Get("Accept") == "text/plain":
			w.Header().Set("Content-Type", "text/plain; charset=utf-8")
			fmt.Fprintln(w, "run mine: live")
		default:
			w.Header().Set("Content-Type", "application/json")
			fmt.Fprintln(w, `{"run":"mine","state":"live"}`)
		}
	}))
	t.Cleanup(server.Close)
	return server
}

// TestStatus: the exporter's answer is printed as text or as JSON, and a refusal with what
// it says.
func TestStatus(t *testing.T) {
	t.Parallel()
	var busy atomic.Int32
	server := answering(t, &busy)
	token, other := filepath.Join(t.TempDir(), "token"), filepath.Join(t.TempDir(), "other")
	for file, text := range map[string]string{token: "secret\n", other: "old\n"} {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	ask := func(args ...string) (int, string, string) {
		return run(t, append([]string{"status", "--exporter", server.URL + "/", "--timeout=5m"}, args...)...)
	}
	known := []string{"--token-file", token}
	if status, out, _ := ask(append(known, "mine")...); status != 0 || out != "run mine: live\n" {
		t.Errorf("status %d, %q", status, out)
	}
	busy.Store(1) // it is asked again
	status, out, messages := ask(append(known, "mine", "--json")...)
	var said struct{ Run string }
	if err := json.Unmarshal([]byte(out), &said); status != 0 || err != nil || said.Run != "mine" || busy.Load() >= 0 {
		t.Errorf("status %d, %q (%v) %s", status, out, err, messages)
	}
	for name, c := range map[string]struct {
		args []string
		says string
	}{
		"an unknown run":  {append(known, "other"), errUnknownRun.Error()},
		"no token":        {[]string{"mine"}, giveToken},
		"another token":   {[]string{"mine", "--token-file", other}, otherToken},
		"not permitted":   {append(known, "forbidden"), mayNot},
		"another program": {append(known, "page"), errNoStatus.Error()},
	} {
		status, out, messages := ask(c.args...)
		if status != exitFailed || out != "" || !strings.Contains(messages, c.says) || strings.Contains(messages, "\x1b") {
			t.Errorf("%s: status %d, %q, %q", name, status, out, messages)
		}
	}
	if status, _, messages := run(t, "status", "mine", "--exporter", "http://127.0.0.1:1", "--timeout=1s"); status != exitFailed || !strings.Contains(messages, "127.0.0.1:1") {
		t.Errorf("without an exporter: status %d, %q", status, messages)
	}
	for _, args := range [][]string{{"mine"}, {"--exporter=http://h"}, {"a b", "--exporter=http://h"}, {"mine", "--exporter=h:1"}, {"mine", "--exporter=http://h", "--timeout=0s"}} {
		if status, _, _ := run(t, append([]string{"status"}, args...)...); status != exitUsage {
			t.Errorf("%q: status %d", args, status)
		}
	}
}
