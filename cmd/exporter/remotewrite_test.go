package main

import (
	"encoding/pem"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/morphogenetic/oona"
)

// Each error of remote write names the flag to change, and none shows a password.
func TestBadRemoteWrite(t *testing.T) {
	file := filepath.Join(t.TempDir(), "secret")
	lines := filepath.Join(t.TempDir(), "secret")
	for name, content := range map[string]string{file: "hidden", lines: "good\nhidden"} {
		if err := os.WriteFile(name, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	const url = "--remote-write-url=https://receiver/api/v1/write"
	for _, test := range []struct {
		field string
		args  []string
	}{
		{"--remote-write-url", []string{"--remote-write-token-file", file}},
		{"--remote-write-url", []string{"--remote-write-url=receiver:9090"}},
		{"--remote-write-url", []string{"--remote-write-url=https://me:hidden@receiver/api/v1/write"}},
		{"--remote-write-url", []string{"--remote-write-url=http://receiver/api/v1/write", "--remote-write-ca-file", file}},
		{"--remote-write-token-file", []string{url, "--remote-write-token-file", file, "--remote-write-username=me", "--remote-write-password-file", file}},
		{"--remote-write-token-file", []string{url, "--remote-write-token-file=no-such-file"}},
		{"--remote-write-token-file", []string{url, "--remote-write-token-file", lines}},
		{"--remote-write-password-file", []string{url, "--remote-write-username=me", "--remote-write-password-file", lines}},
		{"--remote-write-username", []string{url, "--remote-write-username=me:you", "--remote-write-password-file", file}},
		{"--remote-write-password-file", []string{url, "--remote-write-username=me"}},
		{"--remote-write-password-file", []string{url, "--remote-write-password-file", file}},
		{"--remote-write-ca-file", []string{url, "--remote-write-ca-file", file}},
		{"--remote-write-key-file", []string{url, "--remote-write-cert-file", file}},
		{"--remote-write-group", []string{url, "--remote-write-group="}},
		{"--remote-write-group-instance", []string{url, "--remote-write-group-instance=a b"}},
	} {
		_, err := parse(t, test.args...)
		if wrong, ok := errors.AsType[*oona.FieldError](err); !ok || wrong.Field != test.field || strings.Contains(err.Error(), "hidden") {
			t.Errorf("%v: error is %v, want one of %s", test.args, err, test.field)
		}
	}
	if _, err := parse(t, url, "--remote-write-token-file", file, "--remote-write-group-instance=one"); err != nil {
		t.Error(err)
	}
}

// What a receiver gets to see of the credentials, over TLS with an authority of its own.
func TestRemoteWriteCredentials(t *testing.T) {
	dir := t.TempDir()
	secretFile, caFile := filepath.Join(dir, "secret"), filepath.Join(dir, "ca.pem")
	var seen []string
	receiver := httptest.NewUnstartedServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { seen = append(seen, r.Header.Get("Authorization")) }))
	receiver.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	receiver.StartTLS()
	defer receiver.Close()
	ca := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: receiver.Certificate().Raw})
	for file, content := range map[string][]byte{secretFile: []byte("hidden\n"), caFile: ca} {
		if err := os.WriteFile(file, content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	send := func(args ...string) error {
		t.Helper()
		cfg, err := parse(t, append(args, "--remote-write-url="+receiver.URL+"/api/v1/write")...)
		if err != nil {
			t.Fatal(err)
		}
		authorization, err := cfg.RemoteWrite.authorization(nil)
		if err != nil {
			t.Fatal(err)
		}
		transport, err := cfg.RemoteWrite.transport(nil)
		if err != nil {
			t.Fatal(err)
		}
		request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, cfg.RemoteWrite.URL, nil)
		if err != nil {
			t.Fatal(err)
		}
		if authorization != nil {
			request.Header.Set("Authorization", authorization())
		}
		response, err := (&http.Client{Transport: transport}).Do(request)
		if err == nil {
			response.Body.Close()
		}
		return err
	}
	if err := send(); err == nil {
		t.Error("a receiver of an unknown authority is trusted")
	}
	trusted := "--remote-write-ca-file=" + caFile
	err := errors.Join(send(trusted), send(trusted, "--remote-write-token-file", secretFile), send(trusted, "--remote-write-username=me", "--remote-write-password-file", secretFile))
	if err != nil {
		t.Fatal(err)
	}
	if want := []string{"", "Bearer hidden", "Basic bWU6aGlkZGVu"}; !slices.Equal(seen, want) {
		t.Errorf("the receiver has seen %q, want %q", seen, want)
	}
}

// The members of the two topics differ in their instances, as an instance is unique in a group.
func TestRemoteWriteInstances(t *testing.T) {
	cfg, err := parse(t, "--remote-write-url=https://receiver/api/v1/write", "--remote-write-group-instance=one")
	if err != nil {
		t.Fatal(err)
	}
	health, performance := cfg.RemoteWrite.member(oona.Health), cfg.RemoteWrite.member(oona.Performance)
	if health.Instance != "one-health" || performance.Instance != "one-performance" || health.Group != "oona-remote-write" {
		t.Errorf("%+v, %+v", health, performance)
	}
}
