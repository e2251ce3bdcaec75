package kafka_test

import (
	"context"
	"crypto/x509"
	"errors"
	"log/slog"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/morphogenetic/oona/bus"
	"github.com/morphogenetic/oona/bus/kafka"
	"github.com/morphogenetic/oona/internal/localkafka"
	"github.com/morphogenetic/oona/internal/remedy"
	"github.com/morphogenetic/oona/internal/tlsfiles"
	"github.com/morphogenetic/oona/internal/tlsfiles/authority"
	"github.com/morphogenetic/oona/internal/tlsfiles/tlstest"
)

// briefSession is the time after which clients of the listener "brief" must authenticate again.
const briefSession = 3 * time.Second

// secureKafka is a real broker with secure listeners. Each test starts its own.
type secureKafka struct {
	*localkafka.Cluster
	secure *localkafka.Secure
	ca     *tlstest.Authority // the authority of the servers and clients
	other  *tlstest.Authority // an authority that neither servers nor clients trust
}

// startSecureKafka starts a broker, or skips the test if this run does not use real Kafka.
func startSecureKafka(t *testing.T) *secureKafka {
	t.Helper()
	if os.Getenv("OONA_KAFKA") == "" && os.Getenv("OONA_REQUIRE_KAFKA") != "1" {
		t.Skip("SKIPPED, SECURITY NOT TESTED ON REAL KAFKA: set OONA_KAFKA, or OONA_REQUIRE_KAFKA=1; the test starts its own broker")
	}
	k := &secureKafka{ca: tlstest.NewAuthority(t, "ca"), other: tlstest.NewAuthority(t, "other")}
	issue := func(valid time.Duration, hosts ...string) authority.Certificate {
		c, err := k.ca.Authority.Issue(valid, hosts...)
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	server := issue(time.Hour, "127.0.0.1")
	k.secure = &localkafka.Secure{
		Listeners: []localkafka.Listener{
			{Name: "sasl", Certificate: server, SASL: true},
			{Name: "mtls", Certificate: server, ClientCA: k.ca.PEM},
			{Name: "tls", Certificate: server},
			{Name: "brief", Certificate: server, SASL: true, Session: briefSession},
			{Name: "expired", Certificate: issue(-time.Minute, "127.0.0.1"), SASL: true},
			{Name: "named", Certificate: issue(time.Hour, "kafka.test"), SASL: true},
		},
		Users:      map[string]string{"admin": "secret-admin", "user": "secret-user", "renewed": "secret-1"},
		SuperUsers: []string{"admin", "CN=admin"},
	}
	var err error
	k.Cluster, err = localkafka.Start(t.Context(), localkafka.Options{Dir: t.TempDir(), Nodes: 1, Secure: k.secure})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := k.Stop(); err != nil {
			t.Error(err)
		}
	})
	return k
}

// tls returns the settings of a connection with TLS but without a user.
func (k *secureKafka) tls() kafka.Security {
	return kafka.Security{TLS: true, TLSFiles: tlsfiles.ClientFlags{CAFile: k.ca.File}}
}

func (k *secureKafka) with(t *testing.T, sasl, user, password string) kafka.Security {
	t.Helper()
	s := k.tls()
	s.SASL, s.Username, s.PasswordFile = sasl, user, secretFile(t, password+"\n")
	return s
}

func (k *secureKafka) token(t *testing.T, token string) kafka.Security {
	t.Helper()
	s := k.tls()
	s.SASL, s.TokenFile = "oauthbearer", secretFile(t, token)
	return s
}

func (k *secureKafka) certificate(c tlstest.Certificate) kafka.Security {
	s := k.tls()
	s.TLSFiles.CertFile, s.TLSFiles.KeyFile = c.CertFile, c.KeyFile
	return s
}

func (k *secureKafka) config(listener string, s kafka.Security) kafka.Config {
	addresses := k.Addrs()
	if listener != "" {
		addresses = k.SecureAddrs(listener)
	}
	return kafka.Config{Brokers: addresses, ClientID: "test", Security: s, Settle: 100 * time.Millisecond}
}

func (k *secureKafka) makeTopic(t *testing.T, partitions int32) string {
	t.Helper()
	return makeTopic(t, k.config("", kafka.Security{}), partitions, false)
}

func TestSecurityOnKafka(t *testing.T) {
	t.Parallel()
	k := startSecureKafka(t)
	t.Run("steady", func(t *testing.T) {
		for name, test := range map[string]func(*testing.T, *secureKafka){"connections": testConnections, "denied": testDenied, "access": testAccessComesAndGoes, "sessions": testBriefSessions, "reader": testReaderWaitsForAccess} {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				test(t, k)
			})
		}
	})
	t.Run("rotation", func(t *testing.T) { testRotation(t, k) })
}

// testConnections connects with valid and with invalid settings. Each error must name the setting
// that is wrong.
func testConnections(t *testing.T, k *secureKafka) {
	topic := k.makeTopic(t, 2)
	admin := k.ca.Issue(time.Hour, "admin")
	set := func(s kafka.Security, change func(*kafka.Security)) kafka.Security { change(&s); return s }
	scram := k.with(t, "scram-sha-512", "admin", "secret-admin")
	valid := localkafka.UnsecuredToken("admin", time.Now().Add(time.Hour))
	unknown, misnamed, invalid := new(x509.UnknownAuthorityError), new(x509.HostnameError), new(x509.CertificateInvalidError)
	for title, test := range map[string]struct {
		listener string
		security kafka.Security
		want     error    // nil if the connection must succeed
		as       any      // type of an error that the error must wrap, or nil
		names    []string // settings that the error must name
	}{
		"plain listener":   {"", kafka.Security{}, nil, nil, nil},
		"PLAIN":            {"sasl", k.with(t, "plain", "admin", "secret-admin"), nil, nil, nil},
		"SCRAM-SHA-256":    {"sasl", k.with(t, "scram-sha-256", "admin", "secret-admin"), nil, nil, nil},
		"SCRAM-SHA-512":    {"sasl", scram, nil, nil, nil},
		"OAUTHBEARER":      {"sasl", k.token(t, valid), nil, nil, nil},
		"certificate":      {"mtls", k.certificate(admin), nil, nil, nil},
		"TLS only":         {"tls", k.tls(), nil, nil, nil},
		"TLS 1.3":          {"tls", set(k.tls(), func(s *kafka.Security) { s.TLSFiles.MinVersion = "1.3" }), nil, nil, nil},
		"server name set":  {"named", set(scram, func(s *kafka.Security) { s.TLSFiles.ServerName = "kafka.test" }), nil, nil, nil},
		"superfluous cert": {"tls", k.certificate(admin), nil, nil, nil},

		"wrong authority":            {"sasl", set(scram, func(s *kafka.Security) { s.TLSFiles.CAFile = k.other.File }), bus.ErrUntrusted, unknown, []string{"--bus-tls-ca-file"}},
		"system's authorities":       {"sasl", set(scram, func(s *kafka.Security) { s.TLSFiles.CAFile = "" }), bus.ErrUntrusted, unknown, []string{"--bus-tls-ca-file"}},
		"wrong name":                 {"sasl", set(scram, func(s *kafka.Security) { s.TLSFiles.ServerName = "other.test" }), bus.ErrUntrusted, misnamed, []string{"--bus-tls-server-name"}},
		"address not in certificate": {"named", scram, bus.ErrUntrusted, misnamed, []string{"--bus-tls-server-name", "--brokers"}},
		"expired":                    {"expired", scram, bus.ErrUntrusted, invalid, nil},

		"wrong password, PLAIN":        {"sasl", k.with(t, "plain", "admin", "wrong"), bus.ErrCredentials, nil, []string{"--bus-sasl-password-file"}},
		"wrong password, SCRAM-256":    {"sasl", k.with(t, "scram-sha-256", "admin", "wrong"), bus.ErrCredentials, nil, []string{"--bus-sasl-password-file"}},
		"wrong password, SCRAM-512":    {"sasl", k.with(t, "scram-sha-512", "admin", "wrong"), bus.ErrCredentials, nil, []string{"--bus-sasl-password-file"}},
		"unknown user, PLAIN":          {"sasl", k.with(t, "plain", "nobody", "secret-admin"), bus.ErrCredentials, nil, []string{"--bus-sasl-username"}},
		"unknown user, SCRAM":          {"sasl", k.with(t, "scram-sha-512", "nobody", "secret-admin"), bus.ErrCredentials, nil, []string{"--bus-sasl-username"}},
		"expired token":                {"sasl", k.token(t, localkafka.UnsecuredToken("admin", time.Now().Add(-time.Minute))), bus.ErrCredentials, nil, []string{"--bus-sasl-token-file"}},
		"no token at all":              {"sasl", k.token(t, "garbage"), bus.ErrCredentials, nil, []string{"--bus-sasl-token-file"}},
		"no user":                      {"sasl", k.tls(), bus.ErrCredentials, nil, []string{"--bus-sasl"}},
		"certificate, no user":         {"sasl", k.certificate(admin), bus.ErrCredentials, nil, []string{"--bus-sasl"}},
		"PLAIN, listener without SASL": {"tls", k.with(t, "plain", "admin", "secret-admin"), bus.ErrCredentials, nil, []string{"--bus-sasl"}},
		"SCRAM, listener without SASL": {"tls", scram, bus.ErrCredentials, nil, []string{"--bus-sasl"}},

		"no certificate":                           {"mtls", k.tls(), bus.ErrUntrusted, nil, []string{"--bus-tls-cert-file"}},
		"certificate of another authority":         {"mtls", k.certificate(k.other.Issue(time.Hour, "admin")), bus.ErrUntrusted, nil, []string{"--bus-tls-cert-file"}},
		"expired certificate":                      {"mtls", k.certificate(k.ca.Issue(-time.Minute, "expired-admin")), bus.ErrUntrusted, nil, []string{"--bus-tls-cert-file"}},
		"no certificate, but a user":               {"mtls", scram, bus.ErrUntrusted, nil, []string{"--bus-tls-cert-file"}},
		"no certificate, but PLAIN":                {"mtls", k.with(t, "plain", "admin", "secret-admin"), bus.ErrUntrusted, nil, []string{"--bus-tls-cert-file"}},
		"TLS to a plain listener":                  {"", k.tls(), bus.ErrUntrusted, nil, []string{"--bus-tls"}},
		"SASL to a plain listener":                 {"", scram, bus.ErrUntrusted, nil, []string{"--bus-tls"}},
		"no TLS to a listener with TLS":            {"tls", kafka.Security{}, bus.ErrUntrusted, nil, []string{"--bus-tls"}},
		"SASL without TLS to a listener with TLS":  {"sasl", set(scram, func(s *kafka.Security) { s.TLS, s.TLSFiles = false, tlsfiles.ClientFlags{} }), bus.ErrUntrusted, nil, []string{"--bus-tls"}},
		"PLAIN without TLS to a listener with TLS": {"sasl", set(k.with(t, "plain", "admin", "secret-admin"), func(s *kafka.Security) { s.TLS, s.TLSFiles = false, tlsfiles.ClientFlags{} }), bus.ErrUntrusted, nil, []string{"--bus-tls"}},
	} {
		t.Run(title, func(t *testing.T) {
			cfg := k.config(test.listener, test.security)
			if test.want == nil {
				cfg = kafka.Patient(cfg)
			}
			b := kafka.New(cfg, nil)
			_, err := b.Extents(t.Context(), topic)
			if test.want == nil && err == nil {
				err = publishOne(t, b, topic)
			}
			if !errors.Is(err, test.want) {
				t.Fatalf("the error is %v, want %v", err, test.want)
			}
			if test.as != nil && !errors.As(err, test.as) {
				t.Errorf("the error is %v, want one of %T", err, test.as)
			}
			if err == nil {
				return
			}
			advised := remedy.Add(err).Error()
			for _, name := range test.names {
				if !strings.Contains(advised, name) {
					t.Errorf("the error does not name %s: %v", name, advised)
				}
			}
			if strings.Contains(advised, "secret-admin") || strings.Contains(advised, valid) {
				t.Errorf("the error has a secret: %v", advised)
			}
		})
	}
}

func publishOne(t *testing.T, b *kafka.Bus, topic string) error {
	t.Helper()
	p, err := b.Publisher(bus.PublisherOptions{DeliveryTimeout: time.Minute})
	if err != nil {
		return err
	}
	err = p.Publish(t.Context(), topic, bus.NewMessage([]byte("m"), bus.Target{Directed: true, Partition: 1}))
	return errors.Join(err, p.Close())
}

func writeFile(t *testing.T, path, content string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

func copyFile(t *testing.T, from, to string) {
	t.Helper()
	content, err := os.ReadFile(from)
	if err != nil {
		t.Fatal(err)
	}
	writeFile(t, to, string(content))
}

// logged is a slog.Handler that keeps the text of warnings and errors.
type logged struct {
	mu    sync.Mutex
	lines []string
}

func (l *logged) Enabled(context.Context, slog.Level) bool { return true }
func (l *logged) WithAttrs([]slog.Attr) slog.Handler       { return l }
func (l *logged) WithGroup(string) slog.Handler            { return l }

func (l *logged) Handle(_ context.Context, r slog.Record) error {
	line := r.Message
	r.Attrs(func(a slog.Attr) bool { line += " " + a.String(); return true })
	l.mu.Lock()
	defer l.mu.Unlock()
	if r.Level >= slog.LevelWarn {
		l.lines = append(l.lines, line)
	}
	return nil
}

// has reports whether a warning or an error says that access to what is denied.
func (l *logged) has(what string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.ContainsFunc(l.lines, func(line string) bool {
		return strings.Contains(line, bus.ErrDenied.Error()) && strings.Contains(line, what)
	})
}
