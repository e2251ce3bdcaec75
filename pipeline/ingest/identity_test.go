package ingest

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/intake"
	"github.com/morphogenetic/oona/internal/access"
	"github.com/morphogenetic/oona/internal/tlsfiles"
	"github.com/morphogenetic/oona/internal/tlsfiles/tlstest"
)

// newGate returns a gate for the identities of the tests. Their tokens are their names.
// The trainer is known by a certificate, too.
func newGate(t testing.TB) *access.Gate {
	t.Helper()
	file := filepath.Join(t.TempDir(), "access.yaml")
	text := "identities:\n"
	for _, identity := range []struct{ name, rest string }{
		{"trainer", `certificates: [trainer], runs: [digits], producers: ["trainer-*"], roles: [frames]`},
		{"all", `runs: ["*"], producers: ["*"], roles: [frames, tensors]`},
		{"uploader", `roles: [tensors]`},
		{"prometheus", `roles: [metrics, profile]`},
	} {
		text += fmt.Sprintf("- {name: %s, tokens: [%s], %s}\n", identity.name, access.HashOf(identity.name), identity.rest)
	}
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	gate, err := access.Open(nil, "--listen-access-file", file)
	if err != nil {
		t.Fatal(err)
	}
	return gate
}

// Each identity may do what its roles, runs and producers say, and nothing of a request
// that is refused is accepted.
func TestAccess(t *testing.T) {
	run := func(name oona.RunID) func(*oona.Frame) { return func(f *oona.Frame) { f.Run = name } }
	producer := func(f *oona.Frame) { f.Producer = "intruder" }
	jsonOf := func(run string) []byte { return []byte(strings.Replace(goodJSON, "digits", run, 1)) }
	const ok = intake.Reason("")
	for name, c := range map[string]struct {
		who    string // "": no token
		send   func(s *Stage, headers ...string) *httptest.ResponseRecorder
		status int
		reason intake.Reason
		frame  int
		field  string
	}{
		"frames of nobody":            {"", postOf(mediaAvro, frames(nil)), 401, reasonUnknown, noFrame, ""},
		"frames of a stranger":        {"stranger", postOf(mediaAvro, frames(nil)), 401, reasonUnknown, noFrame, ""},
		"rubbish of a stranger":       {"stranger", postOf("text/plain", []byte("x")), 401, reasonUnknown, noFrame, ""},
		"a wrong path of a stranger":  {"stranger", requestOf("POST", "/nowhere"), 401, reasonUnknown, noFrame, ""},
		"a tensor of nobody":          {"", putOf(aboveIt), 401, reasonUnknown, noFrame, ""},
		"frames":                      {"trainer", postOf(mediaAvro, frames(nil, nil)), 200, ok, noFrame, ""},
		"frames in JSON":              {"trainer", postOf(mediaJSON, []byte(goodJSON)), 200, ok, noFrame, ""},
		"a foreign run":               {"trainer", postOf(mediaAvro, frames(nil, nil, run("digits2"))), 403, reasonForbidden, 2, "run_id"},
		"a foreign run in JSON":       {"trainer", postOf(mediaJSON, jsonOf("other")), 403, reasonForbidden, 0, "run_id"},
		"a foreign producer":          {"trainer", postOf(mediaAvro, frames(nil, producer)), 403, reasonForbidden, 1, "producer_id"},
		"a tensor without the role":   {"trainer", putOf(aboveIt), 403, reasonForbidden, noFrame, ""},
		"a foreign run of all":        {"all", postOf(mediaAvro, frames(run("any"), producer)), 200, ok, noFrame, ""},
		"a tensor of all":             {"all", putOf(aboveIt), 201, ok, noFrame, ""},
		"a tensor":                    {"uploader", putOf(aboveIt), 201, ok, noFrame, ""},
		"frames without the role":     {"uploader", postOf(mediaAvro, frames(nil)), 403, reasonForbidden, noFrame, ""},
		"frames of the metrics' role": {"prometheus", postOf(mediaAvro, frames(nil)), 403, reasonForbidden, noFrame, ""},
		"a wrong path":                {"trainer", requestOf("POST", "/nowhere"), 404, reasonPath, noFrame, ""},
		"a wrong method":              {"prometheus", requestOf("GET", "/v1/frames"), 405, reasonMethod, noFrame, ""},
		"an invalid frame":            {"trainer", postOf(mediaAvro, frames(func(f *oona.Frame) { f.Seeds[2] = 0 })), 400, intake.ReasonInvalid, 0, "seed_ids[2]"},
	} {
		t.Run(name, func(t *testing.T) {
			onBus, store := newBus(t), newStore(t)
			var log bytes.Buffer
			cfg := DefaultConfig()
			cfg.Topic, cfg.Instance, cfg.Tensors, cfg.Access = rawTopics.SeedMetrics, "ingest-1", store, newGate(t)
			s, err := New(cfg, onBus, prometheus.NewRegistry(), slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug})))
			if err != nil {
				t.Fatal(err)
			}
			var headers []string
			if c.who != "" {
				headers = []string{"Authorization", "Bearer " + c.who}
			}
			w := c.send(s, headers...)
			if w.Code != c.status {
				t.Fatalf("answer is %d %s", w.Code, w.Body)
			}
			if challenge := w.Header().Get("WWW-Authenticate"); (challenge != "") != (c.status == 401) {
				t.Errorf("WWW-Authenticate is %q", challenge)
			}
			if c.reason == ok {
				return
			}
			p := decodeProblem(t, w)
			frame := noFrame
			if p.Frame != nil {
				frame = *p.Frame
			}
			if p.Type != "urn:oona:problem:"+string(c.reason) || frame != c.frame || p.Field != c.field {
				t.Errorf("problem is %s", w.Body)
			}
			if calls, _ := onBus.published(t); calls != 0 || store.has(t, aboveIt) {
				t.Error("something of the request was accepted")
			}
			if n := testutil.ToFloat64(s.metrics.rejectedTotal.WithLabelValues(string(c.reason))); n != 1 {
				t.Errorf("%g requests are counted", n)
			}
			if text := log.String(); !strings.Contains(text, "reason="+string(c.reason)) || c.who != "" && strings.Contains(text, "Bearer "+c.who) {
				t.Errorf("the log is %s", text)
			}
			if known := c.reason != reasonUnknown; strings.Contains(log.String(), "identity="+c.who+"\n") != known {
				t.Errorf("the log is to have the identity: %v; it is %s", known, log.String())
			}
		})
	}
}

// postOf, putOf and requestOf return functions that send a request.
func postOf(mediaType string, body []byte) func(*Stage, ...string) *httptest.ResponseRecorder {
	return func(s *Stage, headers ...string) *httptest.ResponseRecorder {
		return post(s, mediaType, body, headers...)
	}
}

func putOf(content []byte) func(*Stage, ...string) *httptest.ResponseRecorder {
	return func(s *Stage, headers ...string) *httptest.ResponseRecorder { return put(s, content, headers...) }
}

func requestOf(method, path string) func(*Stage, ...string) *httptest.ResponseRecorder {
	return func(s *Stage, headers ...string) *httptest.ResponseRecorder {
		r := httptest.NewRequest(method, path, nil)
		for i := 0; i+1 < len(headers); i += 2 {
			r.Header.Set(headers[i], headers[i+1])
		}
		w := httptest.NewRecorder()
		s.Handler().ServeHTTP(w, r)
		return w
	}
}

// Clients that are not known and send slowly, or without end, are disconnected after one
// second or 64 kB. They take nothing from clients that are known.
func TestUnknownClientsDoNotHurtOthers(t *testing.T) {
	for name, c := range map[string]struct {
		chunk string
		pause time.Duration
		by    string
	}{
		"slow":    {"x", 100 * time.Millisecond, cutTime},
		"endless": {strings.Repeat("x", 16<<10), 0, cutBytes},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				const clients = 200
				gate := newGate(t)
				s := newStage(t, newBus(t), func(c *Config) { c.Tensors, c.Access = newStore(t), gate })
				listener, end := serve(t, s)
				sending, ended := refusedClients(t, listener, "/v1/frames", http.StatusUnauthorized, clients, c.chunk, c.pause)
				if len(s.discards)+len(s.slots)+len(s.storing) != 0 || s.frames.inUse()+s.spools.taken.Load() != 0 {
					t.Error("clients that are not known hold slots or memory")
				}
				if w := post(s, mediaAvro, frames(withTensors(inline(larger))), "Authorization", "Bearer all"); w.Code != http.StatusOK {
					t.Errorf("during that time a frame is answered %d %s", w.Code, w.Body)
				}
				if w := put(s, aboveIt, "Authorization", "Bearer all"); w.Code != http.StatusCreated {
					t.Errorf("during that time a tensor is answered %d %s", w.Code, w.Body)
				}
				sending.Wait()
				for _, after := range *ended {
					if after > strangerTime+time.Second { // net/http waits for half a second before it closes
						t.Errorf("a client was gone only after %s", after)
					}
				}
				s.cutBy(t, map[string]float64{c.by: clients})
				end()
			})
		})
	}
}

// Hardly more than 64 kB of an unknown client's body are read. Such clients cannot fill the
// log with warnings.
func TestBodyOfAnUnknownClientIsNotRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		gate := newGate(t)
		s := newStage(t, newBus(t), func(c *Config) { c.Access = gate })
		var log bytes.Buffer
		s.logger = slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelWarn}))
		listener, end := serve(t, s)
		conn := listener.dial() // without buffers
		if _, err := io.WriteString(conn, postHeader+"Transfer-Encoding: chunked\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
		answer, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil || answer.StatusCode != http.StatusUnauthorized {
			t.Fatalf("answer is %v, error %v", answer, err)
		}
		answer.Body.Close()
		read := 0
		for {
			n, err := io.WriteString(conn, "400\r\n"+strings.Repeat("x", 1<<10)+"\r\n")
			read += n
			if err != nil {
				break
			}
		}
		if read < strangerBytes || read > strangerBytes+64<<10 { // some in a buffer
			t.Errorf("%d bytes were read", read)
		}
		conn.Close()
		end()
		s.cutBy(t, map[string]float64{cutBytes: 1})
		if log.Len() > 0 {
			t.Errorf("the log is\n%s", log.String())
		}
	})
}

// A certificate is as good as a token. One that has expired, or is of another authority,
// is refused, and so is a connection without TLS.
func TestAccessByCertificate(t *testing.T) {
	ours, other := tlstest.NewAuthority(t, "ours"), tlstest.NewAuthority(t, "other")
	own := ours.Issue(time.Hour, "127.0.0.1")
	config, err := tlsfiles.OpenServer(nil, "listen-", tlsfiles.ServerFlags{CertFile: own.CertFile, KeyFile: own.KeyFile, ClientCAFile: ours.File}, tls.VerifyClientCertIfGiven)
	if err != nil {
		t.Fatal(err)
	}
	gate := newGate(t)
	s := newStage(t, newBus(t), func(c *Config) { c.Access = gate })
	plain, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx, tls.NewListener(plain, config)) }()
	defer func() {
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}()
	none := tlstest.Certificate{}
	expired := ours.Issue(-time.Minute, "expired")
	for name, c := range map[string]struct {
		certificate tlstest.Certificate
		token       string
		run         oona.RunID
		status      int // 0: there is no connection
	}{
		"good":                      {ours.Issue(time.Hour, "trainer"), "", "digits", 200},
		"good, a foreign run":       {ours.Issue(time.Hour, "trainer"), "", "other", 403},
		"of nobody":                 {ours.Issue(time.Hour, "nobody"), "", "digits", 401},
		"none":                      {none, "", "digits", 401},
		"none, and a token":         {none, "trainer", "digits", 200},
		"good, and another's token": {ours.Issue(time.Hour, "trainer"), "all", "other", 200},
		"expired":                   {expired, "", "digits", 0},
		"expired, and a token":      {expired, "trainer", "digits", 0},
		"of another authority":      {other.Issue(time.Hour, "trainer"), "", "digits", 0},
	} {
		t.Run(name, func(t *testing.T) {
			client, err := tlsfiles.OpenClient(nil, "", tlsfiles.ClientFlags{CAFile: ours.File, CertFile: c.certificate.CertFile, KeyFile: c.certificate.KeyFile})
			if err != nil {
				t.Fatal(err)
			}
			config := client.Config("127.0.0.1")
			if len(config.Certificates) > 0 { // also if the server does not ask for one of its authority
				config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
					return &config.Certificates[0], nil
				}
			}
			status, err := postOver(t, config, "https://"+plain.Addr().String(), c.token, frames(func(f *oona.Frame) { f.Run = c.run }))
			if status != c.status || (err != nil) != (c.status == 0) {
				t.Errorf("status %d, error %v", status, err)
			}
		})
	}
	if status, err := postOver(t, nil, "http://"+plain.Addr().String(), "trainer", frames(nil)); err != nil || status != http.StatusBadRequest {
		t.Errorf("without TLS: status %d, error %v", status, err)
	}
	client, err := tlsfiles.OpenClient(nil, "", tlsfiles.ClientFlags{CAFile: other.File})
	if err != nil {
		t.Fatal(err)
	}
	_, err = postOver(t, client.Config("127.0.0.1"), "https://"+plain.Addr().String(), "trainer", frames(nil))
	if _, unknown := errors.AsType[x509.UnknownAuthorityError](err); !unknown {
		t.Errorf("a client that trusts another authority: %v", err)
	}
}

func postOver(t *testing.T, config *tls.Config, url, token string, body []byte) (status int, err error) {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url+"/v1/frames", bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("Content-Type", mediaAvro)
	if token != "" {
		request.Header.Set("Authorization", "Bearer "+token)
	}
	answer, err := (&http.Client{Transport: &http.Transport{TLSClientConfig: config, DisableKeepAlives: true}}).Do(request)
	if err != nil {
		return 0, err
	}
	return answer.StatusCode, answer.Body.Close()
}
