package main

import (
	"encoding/pem"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/schemas/avro"
	"github.com/morphogenetic/oona/windows"
)

// playedInstallation plays ingest and an exporter.
type playedInstallation struct {
	refuse int     // status of the first answer of ingest, 0 for none
	mean   float64 // what the exporter shows, 0 for nothing
	token  string

	mu     sync.Mutex
	frames []oona.Frame
}

func (i *playedInstallation) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.token != "" && r.Header.Get("Authorization") != "Bearer "+i.token {
		w.WriteHeader(http.StatusUnauthorized)
		return
	}
	switch r.URL.Path {
	case "/v1/frames":
		if i.refuse != 0 {
			w.WriteHeader(i.refuse)
			i.refuse = 0
			return
		}
		body, _ := io.ReadAll(r.Body)
		i.frames = framesOf(body)
		w.WriteHeader(http.StatusAccepted)
	case "/metrics":
		fmt.Fprintf(w, "# TYPE %s gauge\n%s{run=\"other\",layer=\"x\",metric=\"y\"} 1\n", smokeSeries, smokeSeries)
		if i.mean != 0 {
			fmt.Fprintf(w, "%s{prefix=\"p\",run=%q,layer=%q,metric=%q} %g\n", smokeSeries, i.frames[0].Run, smokeLayer, smokeMetric, i.mean)
		}
	default:
		w.WriteHeader(http.StatusNotFound)
	}
}

func TestSmoke(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name   string
		server *playedInstallation
		status int
		says   string
	}{
		{"works", &playedInstallation{mean: smokeMean}, 0, ""},
		{"ingest is not there yet", &playedInstallation{mean: smokeMean, refuse: http.StatusServiceUnavailable}, 0, ""},
		{"ingest refuses", &playedInstallation{mean: smokeMean, refuse: http.StatusBadRequest}, 1, "400"},
		{"no rollup comes", &playedInstallation{}, 1, errNoRollup.Error()},
		{"another mean", &playedInstallation{mean: 3}, 1, "mean of 3"},
		{"no token", &playedInstallation{mean: smokeMean, token: "secret"}, 1, giveToken},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			server := httptest.NewServer(c.server)
			defer server.Close()
			waits := wontWait
			if c.says == errNoRollup.Error() {
				waits = inVain
			}
			status, out, messages := waits(t, c.says, "--ingest", server.URL+"/", "--exporter", server.URL)
			if status != c.status || !strings.Contains(messages, c.says) || (status == 0) != strings.Contains(out, "rollup") {
				t.Errorf("status %d, %q, %q", status, out, messages)
			}
		})
	}
}

// wontWait runs a smoke that ends long before its timeout.
func wontWait(t *testing.T, _ string, args ...string) (status int, out, messages string) {
	t.Helper()
	return run(t, slices.Concat([]string{"smoke", "--timeout=5m"}, args)...)
}

// inVain runs a smoke that ends with its timeout, and then says what its last whole attempt
// met. On a busy machine there may be none, so it is tried again with more time.
func inVain(t *testing.T, says string, args ...string) (status int, out, messages string) {
	t.Helper()
	for _, timeout := range []string{"1s", "10s", "100s"} {
		if status, out, messages = run(t, slices.Concat([]string{"smoke", "--timeout", timeout}, args)...); strings.Contains(messages, says) {
			break
		}
	}
	return status, out, messages
}

func TestSmokeWithTLSAndToken(t *testing.T) {
	t.Parallel()
	server := httptest.NewUnstartedServer(&playedInstallation{mean: smokeMean, token: "secret"})
	server.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError) // that a client trusts nobody is part of the test
	server.StartTLS()
	defer server.Close()
	dir := t.TempDir()
	token, authority := filepath.Join(dir, "token"), filepath.Join(dir, "ca.crt")
	ca := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})
	for file, content := range map[string]string{token: "secret\n", authority: string(ca)} {
		if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	at := []string{"smoke", "--ingest", server.URL, "--exporter", server.URL, "--token-file", token}
	if status, _, messages := run(t, append(at, "--timeout=5m", "--tls-ca-file", authority)...); status != 0 {
		t.Errorf("status %d, %q", status, messages)
	}
	if err := os.WriteFile(token, []byte("old"), 0o600); err != nil {
		t.Fatal(err)
	}
	if status, _, messages := run(t, append(at, "--timeout=5m", "--tls-ca-file", authority)...); status != 1 || !strings.Contains(messages, otherToken) {
		t.Errorf("with another token: status %d, %q", status, messages)
	}
	if status, _, messages := inVain(t, "certificate", at[1:]...); status != 1 || !strings.Contains(messages, "certificate") {
		t.Errorf("without the authority: status %d, %q", status, messages)
	}
}

// The token goes to no host that the flags do not name.
func TestSmokeDoesNotFollowRedirects(t *testing.T) {
	t.Parallel()
	var reached atomic.Bool
	other := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { reached.Store(true) }))
	defer other.Close()
	server := httptest.NewServer(http.RedirectHandler(other.URL, http.StatusTemporaryRedirect))
	defer server.Close()
	token := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(token, []byte("secret"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, more := range [][]string{nil, {"--token-file", token}} {
		status, _, messages := run(t, append([]string{"smoke", "--ingest", server.URL, "--exporter", server.URL, "--timeout=5m"}, more...)...)
		if status != 1 || !strings.Contains(messages, "307") || reached.Load() {
			t.Errorf("%v: status %d, %q; the other host was reached: %v", more, status, messages, reached.Load())
		}
	}
}

func TestSmokeFlags(t *testing.T) {
	t.Parallel()
	for _, args := range [][]string{
		{"--ingest=host:8080", "--exporter=http://host:9103"},
		{"--ingest=http://host:8080"},
		{"--ingest=http://host:8080", "--exporter=http://host:9103", "--window-length=0s"},
		{"--ingest=https://host:8080", "--exporter=http://host:9103", "--tls-key-file=x"},
	} {
		if status, _, messages := run(t, append([]string{"smoke"}, args...)...); status != 2 {
			t.Errorf("%v: status %d, %q", args, status, messages)
		}
	}
}

// The second frame closes the window of the first, and both are of the past.
func TestSmokeFramesCloseAWindow(t *testing.T) {
	t.Parallel()
	for _, length := range []time.Duration{time.Second, 10 * time.Second, time.Hour} {
		s := defaultSmoke()
		s.Length = length
		for _, now := range []time.Time{time.Now(), time.Unix(1_800_000_000, 0), time.Unix(1_800_000_006, 999_999_999)} {
			body, err := s.frames("r", now)
			if err != nil {
				t.Fatal(err)
			}
			frames := framesOf(body)
			first, second := frames[0].ObservedAt.Time(), frames[1].ObservedAt.Time()
			end := first.Truncate(length).Add(length)
			cfg := windows.DefaultConfig()
			if second.Add(-cfg.OutOfOrderness-cfg.AllowedLateness).Before(end) || second.After(now) {
				t.Errorf("at %s, windows of %s: the frames are of %s and %s", now, length, first, second)
			}
		}
	}
}

// framesOf decodes the body of a request. It stops at what is no frame.
func framesOf(body []byte) (all []oona.Frame) {
	for len(body) > 0 {
		var f oona.Frame
		rest, err := new(avro.FrameDecoder).Decode(body, &f)
		if err != nil {
			return all
		}
		all, body = append(all, f), rest
	}
	return all
}
