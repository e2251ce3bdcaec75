package main

import (
	"bufio"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/morphogenetic/oona/internal/access"
	"github.com/morphogenetic/oona/internal/tlsfiles"
	"github.com/morphogenetic/oona/internal/tlsfiles/tlstest"
)

// secured is an installation of real workers with TLS and access files.
type secured struct {
	t   *testing.T
	bin string

	mu  sync.Mutex
	log strings.Builder // of all workers
}

// start runs a worker and waits until its log has the messages. It returns the addresses
// that they name.
func (s *secured) start(name string, args []string, messages ...string) map[string]string {
	s.t.Helper()
	cmd := exec.CommandContext(s.t.Context(), filepath.Join(s.bin, name), append(args, "--log-format=json", "--log-level=debug")...)
	stderr, err := cmd.StderrPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		s.t.Fatal(err)
	}
	found, ended := make(chan [2]string, 100), make(chan struct{})
	go func() {
		defer close(ended)
		for lines := bufio.NewScanner(stderr); lines.Scan(); {
			s.mu.Lock()
			s.log.Write(append(lines.Bytes(), '\n'))
			s.mu.Unlock()
			var line struct{ Msg, Address string }
			if json.Unmarshal(lines.Bytes(), &line) == nil && line.Address != "" {
				select {
				case found <- [2]string{line.Msg, line.Address}:
				default:
				}
			}
		}
	}()
	s.t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		<-ended
		_ = cmd.Wait() // its log is looked at
	})
	addresses := map[string]string{}
	for len(addresses) < len(messages) {
		select {
		case line := <-found:
			for _, message := range messages {
				if line[0] == message {
					addresses[message] = line[1]
				}
			}
		case <-ended:
			s.t.Fatalf("%s has ended; the log:\n%s", name, s.log.String())
		case <-time.After(hopeless):
			s.t.Fatalf("%s does not log %q", name, messages)
		}
	}
	return addresses
}

const (
	adminListens = "admin server listens"
	acceptFrames = "ingest accepts frames"
)

// With TLS and access files on all ports, a client with a token sends frames through the
// real workers and reads their rollup, others do nothing, and no token is logged.
func TestSecuredInstallation(t *testing.T) {
	onlyWithoutRaceDetector(t)
	s := &secured{t: t, bin: t.TempDir()}
	if out, err := exec.CommandContext(t.Context(), "go", "build", "-o", s.bin, "../ingest", "../aggregate", "../exporter").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	brokers, _ := startBroker(t)
	if status, _, messages := run(t, append([]string{"topics", "apply", "--partitions=1", "--window-length=1s"}, brokers...)...); status != 0 {
		t.Fatal(messages)
	}
	ca := tlstest.NewAuthority(t, "ca")
	server := ca.Issue(time.Hour, "127.0.0.1")
	smoke, stranger := access.NewToken(), access.NewToken()
	write := func(name, text string) string {
		path := filepath.Join(t.TempDir(), name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	identities := write("access.yaml", fmt.Sprintf("identities:\n- {name: smoke, tokens: [%s], runs: [\"oona-smoke-*\"], producers: [oona-smoke], roles: [frames, metrics]}\n", access.HashOf(smoke)))
	admin := append([]string{"--admin-address=127.0.0.1:0", "--admin-tls-cert-file", server.CertFile, "--admin-tls-key-file", server.KeyFile, "--admin-access-file", identities}, brokers...)
	listen := []string{"--listen=127.0.0.1:0", "--listen-tls-cert-file", server.CertFile, "--listen-tls-key-file", server.KeyFile, "--listen-access-file", identities}

	ingest := s.start("ingest", append(listen, admin...), adminListens, acceptFrames)
	aggregate := s.start("aggregate", admin, adminListens)
	exporter := s.start("exporter", admin, adminListens)

	client, err := tlsfiles.OpenClient(nil, "", tlsfiles.ClientFlags{CAFile: ca.File})
	if err != nil {
		t.Fatal(err)
	}
	for name, address := range map[string]string{"ingest": ingest[adminListens], "aggregate": aggregate[adminListens], "exporter": exporter[adminListens]} {
		for _, test := range []struct {
			url, token string
			want       int
		}{
			{"https://" + address + "/livez", "", 200},
			{"https://" + address + "/metrics", "", 401},
			{"https://" + address + "/metrics", stranger, 401},
			{"https://" + address + "/metrics", smoke, 200},
			{"https://" + address + "/debug/pprof/", smoke, 404}, // without --admin-pprof
			{"http://" + address + "/metrics", smoke, 400},
		} {
			if got := statusOf(t, client.Config("127.0.0.1"), test.url, test.token); got != test.want {
				t.Errorf("%s: %s with the token %q answers %d, want %d", name, test.url, test.token, got, test.want)
			}
		}
	}
	for token, want := range map[string]int{"": 401, stranger: 401, smoke: 405} { // it is no POST
		if got := statusOf(t, client.Config("127.0.0.1"), "https://"+ingest[acceptFrames]+"/v1/frames", token); got != want {
			t.Errorf("frames with the token %q: %d, want %d", token, got, want)
		}
	}
	send := []string{"smoke", "--ingest=https://" + ingest[acceptFrames], "--exporter=https://" + exporter[adminListens], "--tls-ca-file", ca.File, "--window-length=1s", "--timeout=5m"}
	if status, _, messages := run(t, append(send, "--token-file", write("stranger", stranger))...); status != 1 || !strings.Contains(messages, "401") {
		t.Errorf("a stranger: status %d, %q", status, messages)
	}
	if status, _, messages := run(t, append(send, "--token-file", write("token", smoke))...); status != 0 {
		t.Errorf("with a token: status %d, %q", status, messages)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, secret := range []string{smoke, stranger, access.HashOf(smoke).String()} {
		if strings.Contains(s.log.String(), secret) {
			t.Errorf("a log has a token or its hash:\n%s", s.log.String())
		}
	}
	if !strings.Contains(s.log.String(), "request refused") {
		t.Error("the log lacks the refusal, so it does not show what a refusal logs")
	}
}

func statusOf(t *testing.T, config *tls.Config, url, token string) int {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	if token != "" {
		request.Header.Set("Authorization", "Bearer "+token)
	}
	response, err := (&http.Client{Transport: &http.Transport{TLSClientConfig: config, DisableKeepAlives: true}}).Do(request)
	if err != nil {
		t.Error(err)
		return 0
	}
	response.Body.Close()
	return response.StatusCode
}
