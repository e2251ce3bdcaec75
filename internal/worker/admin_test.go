package worker

import (
	"context"
	"crypto/tls"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/alecthomas/kong"

	"github.com/morphogenetic/oona/internal/tlsfiles"
	"github.com/morphogenetic/oona/internal/tlsfiles/tlstest"
)

// withWorker runs a worker with the flags args, and calls do while it is ready.
func withWorker(t *testing.T, args []string, do func(address string)) {
	t.Helper()
	ctx, stop := context.WithCancel(t.Context())
	run := func(ctx context.Context, w *Worker) error {
		return w.Run(ctx, Component{"client", func(context.Context) error {
			defer stop()
			do(w.Admin.Addr().String())
			return nil
		}})
	}
	var log strings.Builder
	if code := execute(ctx, "probe", "Probes.", newTestConfig(), run, args, io.Discard, &log, kong.Vars{"caps": "1"}); code != exitOK {
		t.Errorf("exit status %d, log\n%s", code, log.String())
	}
}

// get returns the status and the body of an answer.
func get(t *testing.T, url string, config *tls.Config) (int, string) {
	t.Helper()
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: config, DisableKeepAlives: true}}
	response, err := client.Get(url)
	if err != nil {
		t.Error(err)
		return 0, ""
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		t.Error(err)
	}
	return response.StatusCode, string(body)
}

func TestAdminOverTLS(t *testing.T) {
	ca := tlstest.NewAuthority(t, "ca")
	server := ca.Issue(time.Hour, "127.0.0.1")
	files := []string{"--admin-tls-cert-file", server.CertFile, "--admin-tls-key-file", server.KeyFile}
	client, err := tlsfiles.OpenClient(nil, "", tlsfiles.ClientFlags{CAFile: ca.File})
	if err != nil {
		t.Fatal(err)
	}
	withWorker(t, files, func(address string) {
		if status, body := get(t, "https://"+address+"/metrics", client.Config("127.0.0.1")); status != http.StatusOK || !strings.Contains(body, `setting="--admin-tls-cert-file"`) {
			t.Errorf("over TLS: %d %.300s", status, body)
		}
		if status, body := get(t, "http://"+address+"/metrics", nil); status != http.StatusBadRequest || !strings.Contains(body, "HTTPS server") {
			t.Errorf("without TLS: %d %q", status, body)
		}
		var out strings.Builder
		ask := append([]string{"--check-ready", "--admin-address", address}, files...)
		if code := execute(t.Context(), "probe", "Probes.", newTestConfig(), nil, ask, &out, io.Discard, kong.Vars{"caps": "1"}); code != exitOK || out.String() != "ready\n" {
			t.Errorf("--check-ready: status %d, %q", code, out.String())
		}
	})
}

func TestProfilesAreServedWhenAskedFor(t *testing.T) {
	withWorker(t, []string{"--admin-pprof"}, func(address string) {
		if status, body := get(t, "http://"+address+"/debug/pprof/goroutine?debug=1", nil); status != http.StatusOK || !strings.HasPrefix(body, "goroutine profile") {
			t.Errorf("%d %.80s", status, body)
		}
		if _, page := get(t, "http://"+address+"/", nil); !strings.Contains(page, "/debug/pprof/") {
			t.Errorf("the index page is %s", page)
		}
	})
}
