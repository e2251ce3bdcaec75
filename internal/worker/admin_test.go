package worker

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/alecthomas/kong"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/internal/access"
	"github.com/morphogenetic/oona/internal/tlsfiles"
	"github.com/morphogenetic/oona/internal/tlsfiles/tlstest"
)

// withWorker runs a worker with the flags args, calls do while it is ready, and returns
// its log.
func withWorker(t *testing.T, args []string, do func(address string)) string {
	t.Helper()
	ctx, stop := context.WithCancel(t.Context())
	run := func(ctx context.Context, w *Worker) error {
		w.Admin.Serve("/a/page", "says something", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { reply(w, http.StatusOK, r.URL.RawQuery) }))
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
	return log.String()
}

// get returns the status and the body of the answer to a request with a token, if there
// is one.
func get(t *testing.T, url string, config *tls.Config, token ...string) (int, string) {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Error(err)
		return 0, ""
	}
	for _, text := range token {
		request.Header.Set("Authorization", "Bearer "+text)
	}
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: config, DisableKeepAlives: true}}
	response, err := client.Do(request)
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

// A worker warns if everyone who can reach its admin port may read profiles.
func TestOpenProfilesAreWarnedOf(t *testing.T) {
	ca := tlstest.NewAuthority(t, "ca")
	own := ca.Issue(time.Hour, "127.0.0.1")
	file := writeFile(t, fmt.Sprintf("identities:\n- {name: a, tokens: [%s], roles: [profile]}\n", access.HashOf(access.NewToken())))
	everywhere := []string{"--admin-address=0.0.0.0:0"}
	for name, test := range map[string]struct {
		args []string
		want bool
	}{
		"open":                 {append(everywhere, "--admin-pprof"), true},
		"no profiles":          {everywhere, false},
		"loopback":             {[]string{"--admin-pprof", "--admin-address=localhost:0"}, false},
		"with an access file":  {append(everywhere, "--admin-pprof", "--admin-access-file", file), false},
		"with certificates":    {append(everywhere, "--admin-pprof", "--admin-tls-cert-file", own.CertFile, "--admin-tls-key-file", own.KeyFile, "--admin-client-ca-file", ca.File), false},
		"with TLS for secrecy": {append(everywhere, "--admin-pprof", "--admin-tls-cert-file", own.CertFile, "--admin-tls-key-file", own.KeyFile), true},
	} {
		t.Run(name, func(t *testing.T) {
			log := withWorker(t, test.args, func(string) {})
			if warned := strings.Contains(log, `"setting":"--admin-pprof"`); warned != test.want {
				t.Errorf("warned: %v, want %v; the log is\n%s", warned, test.want, log)
			}
		})
	}
}

// --check prints what is allowed and probably not meant, and a worker logs it. A
// certificate that expires soon is part of it.
func TestWarnings(t *testing.T) {
	expired := tlstest.NewAuthority(t, "ca").Issue(-time.Minute, "127.0.0.1")
	token := writeFile(t, fmt.Sprintf("identities:\n- {name: a, tokens: [%s], roles: [metrics]}\n", access.HashOf(access.NewToken())))
	for _, test := range []struct {
		setting string
		args    []string
	}{
		{"--admin-access-file", []string{"--admin-access-file", token}},
		{"--admin-tls-cert-file", []string{"--admin-tls-cert-file", expired.CertFile, "--admin-tls-key-file", expired.KeyFile}},
		{"--admin-pprof", []string{"--admin-pprof", "--admin-address=:0"}},
		{"--trace-endpoint", []string{"--trace-exporter=otlp-grpc", "--trace-endpoint=http://127.0.0.1:1", "--trace-headers-file", writeFile(t, "authorization: Bearer secret\n")}},
	} {
		cfg, _, err := parse(t, test.args...)
		if err != nil {
			t.Fatal(err)
		}
		if warnings := cfg.Warnings(); len(warnings) != 1 || warnings[0].Field != test.setting {
			t.Errorf("%q: warnings %v", test.args, warnings)
		}
		var stderr strings.Builder
		if code := execute(t.Context(), "probe", "Probes.", newTestConfig(), nil, append(test.args, "--check"), io.Discard, &stderr, kong.Vars{"caps": "1"}); code != exitOK || !strings.Contains(stderr.String(), "warning: "+test.setting) {
			t.Errorf("%q: status %d, stderr %q", test.args, code, stderr.String())
		}
		if log := withWorker(t, test.args, func(string) {}); strings.Count(log, `"setting":"`+test.setting+`"`) != 1 {
			t.Errorf("%q: the log is\n%s", test.args, log)
		}
	}
	if cfg, _, err := parse(t); err != nil || len(cfg.Warnings()) != 0 {
		t.Errorf("by default: warnings %v, error %v", cfg.Warnings(), err)
	}
}

// Metrics, the index page and profiles need a role; the probes need nothing. Tokens are
// neither logged nor printed.
func TestAdminAccess(t *testing.T) {
	scrape, debug := access.NewToken(), access.NewToken()
	file := writeFile(t, fmt.Sprintf("identities:\n- {name: prometheus, tokens: [%s], roles: [metrics]}\n- {name: debugger, tokens: [%s], roles: [profile]}\n", access.HashOf(scrape), access.HashOf(debug)))
	args := []string{"--admin-access-file", file, "--admin-pprof", "--log-level=debug"}
	log := withWorker(t, args, func(address string) {
		for _, test := range []struct {
			path, token string
			want        int
		}{
			{"/livez", "", 200},
			{"/readyz", "", 200},
			{"/readyz", "wrong", 200},
			{"/metrics", "", 401},
			{"/metrics", "wrong", 401},
			{"/metrics", debug, 403},
			{"/metrics", scrape, 200},
			{"/", "", 401},
			{"/", scrape, 200},
			{"/a/page?x=y", "", 401},
			{"/a/page?x=y", debug, 403},
			{"/a/page?x=y", scrape, 200},
			{"/debug/pprof/", "", 401},
			{"/debug/pprof/cmdline", scrape, 403},
			{"/debug/pprof/cmdline", debug, 200},
			{"/debug/pprof/heap", scrape, 403},
		} {
			var token []string
			if test.token != "" {
				token = []string{test.token}
			}
			if status, body := get(t, "http://"+address+test.path, nil, token...); status != test.want {
				t.Errorf("%s with the token %q: %d %.100s", test.path, test.token, status, body)
			}
		}
	})
	if !strings.Contains(log, "clear text") || !strings.Contains(log, "admin request refused") {
		t.Errorf("the log lacks the warning, or refusals:\n%s", log)
	}
	_, effective, err := parse(t, append(args, "--check")...)
	if err != nil {
		t.Fatal(err)
	}
	for _, secret := range []string{scrape, debug, access.HashOf(scrape).String()} {
		if strings.Contains(log+effective, secret) {
			t.Error("the log or --check prints a token or its hash")
		}
	}
}

// With authorities of clients and no access file, each client needs a certificate, except
// for the probes.
func TestAdminNeedsACertificate(t *testing.T) {
	ca := tlstest.NewAuthority(t, "ca")
	server, client := ca.Issue(time.Hour, "127.0.0.1"), ca.Issue(time.Hour, "prometheus")
	args := []string{"--admin-tls-cert-file", server.CertFile, "--admin-tls-key-file", server.KeyFile, "--admin-client-ca-file", ca.File}
	withWorker(t, args, func(address string) {
		for _, test := range []struct {
			path   string
			client tlstest.Certificate
			want   int
		}{
			{"/readyz", tlstest.Certificate{}, 200},
			{"/metrics", tlstest.Certificate{}, 401},
			{"/metrics", client, 200},
		} {
			config, err := tlsfiles.OpenClient(nil, "", tlsfiles.ClientFlags{CAFile: ca.File, CertFile: test.client.CertFile, KeyFile: test.client.KeyFile})
			if err != nil {
				t.Error(err)
				return
			}
			if status, _ := get(t, "https://"+address+test.path, config.Config("127.0.0.1")); status != test.want {
				t.Errorf("%s with the certificate %q: %d", test.path, test.client.CertFile, status)
			}
		}
	})
}

// --check reads the files, and its errors name the flag.
func TestFilesOfTheAdminPortAreChecked(t *testing.T) {
	token := access.NewToken()
	bad := writeFile(t, "identities:\n- {name: a, tokens: ["+token+"], roles: [metrics]}\n")
	own := tlstest.NewAuthority(t, "ca").Issue(time.Hour, "a")
	for flag, args := range map[string][]string{
		"--admin-access-file":    {"--admin-access-file", bad},
		"--admin-tls-cert-file":  {"--admin-tls-cert-file", bad, "--admin-tls-key-file", bad},
		"--admin-client-ca-file": {"--admin-tls-cert-file", own.CertFile, "--admin-tls-key-file", own.KeyFile, "--admin-client-ca-file", bad},
	} {
		_, _, err := parse(t, append(args, "--check")...)
		if field, ok := errors.AsType[*oona.FieldError](err); !ok || field.Field != flag || strings.Contains(err.Error(), token) {
			t.Errorf("%q: the error is %v", args, err)
		}
	}
}
