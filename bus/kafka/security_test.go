package kafka_test

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/bus"
	"github.com/morphogenetic/oona/bus/kafka"
	"github.com/morphogenetic/oona/internal/remedy"
	"github.com/morphogenetic/oona/internal/tlsfiles"
	"github.com/morphogenetic/oona/internal/tlsfiles/tlstest"
)

// secretFile returns a file with a content.
func secretFile(t *testing.T, content string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// secureBroker returns the address of a fake broker with a certificate and users.
func secureBroker(t *testing.T, certificate tlstest.Certificate, options ...kfake.Opt) string {
	t.Helper()
	config, err := tlsfiles.OpenServer(nil, "", tlsfiles.ServerFlags{CertFile: certificate.CertFile, KeyFile: certificate.KeyFile}, tls.NoClientCert)
	if err != nil {
		t.Fatal(err)
	}
	options = append(options, kfake.NumBrokers(1), kfake.SeedTopics(2, "t"), kfake.TLS(config))
	cluster, err := kfake.NewCluster(options...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cluster.Close)
	return cluster.ListenAddrs()[0]
}

// use publishes and reads with a configuration.
func use(t *testing.T, cfg kafka.Config) error {
	t.Helper()
	b := kafka.New(cfg, nil)
	p, err := b.Publisher(bus.PublisherOptions{DeliveryTimeout: 3 * time.Second})
	if err != nil {
		return err
	}
	err = p.Publish(t.Context(), "t", bus.NewMessage([]byte("m"), bus.Target{Directed: true, Partition: 1}))
	_, looked := b.Extents(t.Context(), "t")
	return errors.Join(err, looked, p.Close())
}

func TestSecureConnections(t *testing.T) {
	t.Parallel()
	ca, other := tlstest.NewAuthority(t, "ca"), tlstest.NewAuthority(t, "other")
	users := []kfake.Opt{kfake.EnableSASL(), kfake.Superuser("PLAIN", "p", "secret-p"), kfake.Superuser("SCRAM-SHA-256", "s", "secret-256"), kfake.Superuser("SCRAM-SHA-512", "s", "secret-512")}
	broker := secureBroker(t, ca.Issue(time.Hour, "127.0.0.1"), users...)
	expired := secureBroker(t, ca.Issue(-time.Minute, "expired", "127.0.0.1"), users...)
	named := secureBroker(t, ca.Issue(time.Hour, "kafka.test"), users...)
	plain := plainBroker(t)
	with := func(sasl, user, password string) kafka.Security {
		return kafka.Security{TLS: true, TLSFiles: tlsfiles.ClientFlags{CAFile: ca.File}, SASL: sasl, Username: user, PasswordFile: secretFile(t, password+"\n")}
	}
	noTLS := with("plain", "p", "secret-p")
	noTLS.TLS, noTLS.TLSFiles = false, tlsfiles.ClientFlags{}
	wrongCA := with("plain", "p", "secret-p")
	wrongCA.TLSFiles.CAFile = other.File
	name := with("plain", "p", "secret-p")
	name.TLSFiles.ServerName = "kafka.test"
	wrongName := with("plain", "p", "secret-p")
	wrongName.TLSFiles.ServerName = "other.test"
	isA := func(is func(error) bool) func(error) bool {
		return func(err error) bool { return errors.Is(err, bus.ErrUntrusted) && is(err) }
	}
	// The fake broker closes the connection. What Kafka does is tested in security_kafka_test.go.
	refused := func(err error) bool { return err != nil }
	for title, test := range map[string]struct {
		broker   string
		security kafka.Security
		want     func(error) bool // nil if the connection must work
	}{
		"plain":                  {broker, with("plain", "p", "secret-p"), nil},
		"SCRAM-SHA-256":          {broker, with("scram-sha-256", "s", "secret-256"), nil},
		"SCRAM-SHA-512":          {broker, with("scram-sha-512", "s", "secret-512"), nil},
		"a given name":           {named, name, nil},
		"wrong password, plain":  {broker, with("plain", "p", "wrong"), refused},
		"wrong password, SCRAM":  {broker, with("scram-sha-512", "s", "wrong"), refused},
		"unknown user":           {broker, with("scram-sha-512", "nobody", "secret-512"), refused},
		"a mechanism it has not": {broker, kafka.Security{TLS: true, TLSFiles: tlsfiles.ClientFlags{CAFile: ca.File}, SASL: "oauthbearer", TokenFile: secretFile(t, "token")}, refused},
		"wrong authority":        {broker, wrongCA, isA(func(err error) bool { return errors.As(err, new(x509.UnknownAuthorityError)) })},
		"wrong name":             {broker, wrongName, isA(func(err error) bool { return errors.As(err, new(x509.HostnameError)) })},
		"address not in it":      {named, with("plain", "p", "secret-p"), isA(func(err error) bool { return errors.As(err, new(x509.HostnameError)) })},
		"expired":                {expired, with("plain", "p", "secret-p"), isA(func(err error) bool { return errors.As(err, new(x509.CertificateInvalidError)) })},
		"TLS to a plain port":    {plain, with("none", "", ""), refused},
		"no TLS to a TLS port":   {broker, noTLS, refused},
		"no user":                {broker, kafka.Security{TLS: true, TLSFiles: tlsfiles.ClientFlags{CAFile: ca.File}}, refused},
		"no file": {broker, kafka.Security{TLS: true, TLSFiles: tlsfiles.ClientFlags{CAFile: "missing"}}, func(err error) bool {
			field, ok := errors.AsType[*oona.FieldError](err)
			return ok && field.Field == "--bus-tls-ca-file" && errors.Is(err, os.ErrNotExist)
		}},
	} {
		t.Run(title, func(t *testing.T) {
			t.Parallel()
			if test.security.SASL == "none" {
				test.security.PasswordFile = ""
			}
			cfg := kafka.Config{Brokers: []string{test.broker}, ClientID: "test", Security: test.security, Settle: 100 * time.Millisecond}
			if test.want == nil {
				cfg = kafka.Patient(cfg)
			}
			err := use(t, cfg)
			if test.want == nil && err != nil || test.want != nil && (err == nil || !test.want(err)) {
				t.Errorf("the error is %v", err)
			}
		})
	}
}

func plainBroker(t *testing.T) string {
	t.Helper()
	cluster, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(2, "t"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cluster.Close)
	return cluster.ListenAddrs()[0]
}

// No setting of security is ignored.
func TestSecurityIsValidated(t *testing.T) {
	t.Parallel()
	for field, security := range map[string][]kafka.Security{
		"--bus-tls":                {{TLSFiles: tlsfiles.ClientFlags{CAFile: "f"}}, {TLSFiles: tlsfiles.ClientFlags{MinVersion: "1.3"}}},
		"--bus-tls-key-file":       {{TLS: true, TLSFiles: tlsfiles.ClientFlags{CertFile: "f"}}},
		"--bus-sasl":               {{Username: "u"}, {PasswordFile: "f"}, {TokenFile: "f"}, {SASL: "gssapi"}, {SASL: "oauthbearer", TokenFile: "f", Username: "u"}},
		"--bus-sasl-username":      {{SASL: "plain", PasswordFile: "f"}},
		"--bus-sasl-password-file": {{SASL: "scram-sha-256", Username: "u"}},
		"--bus-sasl-token-file":    {{SASL: "oauthbearer"}, {SASL: "plain", Username: "u", PasswordFile: "f", TokenFile: "f"}},
	} {
		for _, s := range security {
			err := kafka.Config{Brokers: []string{"h:1"}, ClientID: "c", Security: s}.Validate()
			if wrong, ok := errors.AsType[*oona.FieldError](err); !ok || wrong.Field != field {
				t.Errorf("%+v: the error is %v, want one of %s", s, err, field)
			}
		}
	}
}

// There is a warning if a password or token is sent in clear text. SCRAM sends no password.
func TestClearCredentialsAreWarnedOf(t *testing.T) {
	t.Parallel()
	for sasl, want := range map[string]bool{"": false, "none": false, "plain": true, "oauthbearer": true, "scram-sha-256": false, "scram-sha-512": false} {
		for _, tls := range []bool{false, true} {
			warnings := kafka.Security{SASL: sasl, TLS: tls}.Warnings()
			if warned := len(warnings) == 1 && warnings[0].Field == "--bus-sasl"; warned != (want && !tls) || len(warnings) > 1 {
				t.Errorf("%q with TLS %v: the warnings are %v", sasl, tls, warnings)
			}
		}
	}
}

// With TLS, nothing is sent in plain text, whatever the other side sends.
func TestNothingIsSentWithoutTLS(t *testing.T) {
	t.Parallel()
	ca := tlstest.NewAuthority(t, "ca")
	for _, sasl := range []string{"none", "plain", "scram-sha-512", "oauthbearer"} {
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		var sent [][]byte
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			for {
				conn, err := listener.Accept()
				if err != nil {
					return
				}
				first := make([]byte, 4096)
				n, _ := conn.Read(first)
				sent = append(sent, first[:n])
				conn.Close()
			}
		}()
		s := kafka.Security{TLS: true, TLSFiles: tlsfiles.ClientFlags{CAFile: ca.File}, SASL: sasl}
		switch sasl {
		case "none":
		case "oauthbearer":
			s.TokenFile = secretFile(t, "token")
		default:
			s.Username, s.PasswordFile = "user", secretFile(t, "password")
		}
		if err := use(t, kafka.Config{Brokers: []string{listener.Addr().String()}, ClientID: "test", Security: s}); !errors.Is(err, bus.ErrUntrusted) {
			t.Errorf("%s: the error is %v, want ErrUntrusted", sasl, err)
		}
		if err := listener.Close(); err != nil {
			t.Error(err)
		}
		<-ended
		if len(sent) == 0 {
			t.Errorf("%s: nobody connected", sasl)
		}
		for _, first := range sent {
			if !bytes.HasPrefix(first, []byte{0x16}) { // a handshake of TLS
				t.Errorf("%s: sent %q", sasl, first)
			}
		}
	}
}

// TestRefusalText tests the text of an error. The other tests only look for the names of settings in
// it.
func TestRefusalText(t *testing.T) {
	t.Parallel()
	ca, other := tlstest.NewAuthority(t, "ca"), tlstest.NewAuthority(t, "other")
	broker := secureBroker(t, ca.Issue(time.Hour, "127.0.0.1"))
	err := remedy.Add(use(t, kafka.Config{Brokers: []string{broker}, ClientID: "test", Security: kafka.Security{TLS: true, TLSFiles: tlsfiles.ClientFlags{CAFile: other.File}}}))
	want := "the connection to the bus cannot be trusted: " + broker + ": its certificate is of an authority that --bus-tls-ca-file (or the system, without it) does not have: " +
		"tls: failed to verify certificate: x509: certificate signed by unknown authority"
	if err == nil || err.Error() != want {
		t.Errorf("the error is\n%v\nwant\n%s", err, want)
	}
}

// A password or token that is not valid is refused when its file is read. So --check finds it, and a
// running worker keeps the last valid one. The error does not show the password or token.
func TestSecretsOfAnotherForm(t *testing.T) {
	t.Parallel()
	for name, content := range map[string]string{
		"two lines": "good\nhunter2", "a tab": "hunter2\tx", "not UTF-8": "hunter2\xff", "a control character": "hunter2\x00", "not for SCRAM": "hunter2\ue000",
	} {
		for sasl, field := range map[string]string{"scram-sha-256": "--bus-sasl-password-file", "scram-sha-512": "--bus-sasl-password-file", "plain": "--bus-sasl-password-file", "oauthbearer": "--bus-sasl-token-file"} {
			if name == "not for SCRAM" && (sasl == "plain" || sasl == "oauthbearer") {
				continue
			}
			s := kafka.Security{TLS: true, SASL: sasl, Username: "u", PasswordFile: secretFile(t, content)}
			if sasl == "oauthbearer" {
				s = kafka.Security{TLS: true, SASL: sasl, TokenFile: secretFile(t, content)}
			}
			err := s.Check()
			if wrong, ok := errors.AsType[*oona.FieldError](err); !ok || wrong.Field != field || strings.Contains(err.Error(), "hunter2") {
				t.Errorf("%s, %s: the error is %v", name, sasl, err)
			}
			if _, err = kafka.New(kafka.Config{Brokers: []string{"127.0.0.1:1"}, ClientID: "c", Security: s}, nil).Extents(t.Context(), "t"); err == nil || strings.Contains(err.Error(), "hunter2") {
				t.Errorf("%s, %s: the error is %v", name, sasl, err)
			}
		}
	}
}
