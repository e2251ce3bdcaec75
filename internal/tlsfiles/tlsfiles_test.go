package tlsfiles

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"log/slog"
	"net"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/internal/secret"
	"github.com/morphogenetic/oona/internal/tlsfiles/tlstest"
)

// handshake connects a client to a server, and returns what each of them says.
func handshake(t *testing.T, server, client *tls.Config) (serves, connects error) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	accepted := make(chan error, 1)
	go func() {
		conn, err := listener.Accept()
		if err != nil {
			accepted <- err
			return
		}
		defer conn.Close()
		served := tls.Server(conn, server)
		err = served.Handshake()
		if err == nil {
			_, err = served.Write([]byte{1})
		}
		accepted <- err
	}()
	conn, err := net.Dial("tcp", listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	connected := tls.Client(conn, client)
	if connects = connected.Handshake(); connects == nil {
		_, connects = io.ReadFull(connected, make([]byte, 1)) // in TLS 1.3 a refusal comes after the handshake
	}
	conn.Close()
	return <-accepted, connects
}

func TestHandshakes(t *testing.T) {
	ours, other := tlstest.NewAuthority(t, "ours"), tlstest.NewAuthority(t, "other")
	server := ours.Issue(time.Hour, "127.0.0.1", "kafka.test")
	expired := ours.Issue(-time.Minute, "expired", "127.0.0.1")
	trainer := ours.Issue(time.Hour, "trainer")
	stranger := other.Issue(time.Hour, "stranger")
	unknown := func(err error) bool { _, ok := errors.AsType[x509.UnknownAuthorityError](err); return ok }
	for name, test := range map[string]struct {
		server  ServerFlags
		clients tls.ClientAuthType
		client  ClientFlags
		want    func(error) bool // of the client; nil: it connects
	}{
		"good":                     {ServerFlags{CertFile: server.CertFile, KeyFile: server.KeyFile}, tls.NoClientCert, ClientFlags{CAFile: ours.File}, nil},
		"another authority":        {ServerFlags{CertFile: server.CertFile, KeyFile: server.KeyFile}, tls.NoClientCert, ClientFlags{CAFile: other.File}, unknown},
		"the system's authorities": {ServerFlags{CertFile: server.CertFile, KeyFile: server.KeyFile}, tls.NoClientCert, ClientFlags{}, unknown},
		"a given name":             {ServerFlags{CertFile: server.CertFile, KeyFile: server.KeyFile}, tls.NoClientCert, ClientFlags{CAFile: ours.File, ServerName: "kafka.test"}, nil},
		"a wrong name": {ServerFlags{CertFile: server.CertFile, KeyFile: server.KeyFile}, tls.NoClientCert, ClientFlags{CAFile: ours.File, ServerName: "other.test"}, func(err error) bool {
			_, ok := errors.AsType[x509.HostnameError](err)
			return ok
		}},
		"expired": {ServerFlags{CertFile: expired.CertFile, KeyFile: expired.KeyFile}, tls.NoClientCert, ClientFlags{CAFile: ours.File}, func(err error) bool {
			invalid, ok := errors.AsType[x509.CertificateInvalidError](err)
			return ok && invalid.Reason == x509.Expired
		}},
		"both sides":               {ServerFlags{CertFile: server.CertFile, KeyFile: server.KeyFile, ClientCAFile: ours.File}, tls.RequireAndVerifyClientCert, ClientFlags{CAFile: ours.File, CertFile: trainer.CertFile, KeyFile: trainer.KeyFile, MinVersion: "1.3"}, nil},
		"no certificate":           {ServerFlags{CertFile: server.CertFile, KeyFile: server.KeyFile, ClientCAFile: ours.File}, tls.RequireAndVerifyClientCert, ClientFlags{CAFile: ours.File}, refused},
		"a stranger's certificate": {ServerFlags{CertFile: server.CertFile, KeyFile: server.KeyFile, ClientCAFile: ours.File}, tls.RequireAndVerifyClientCert, ClientFlags{CAFile: ours.File, CertFile: stranger.CertFile, KeyFile: stranger.KeyFile}, refused},
		"a certificate if given":   {ServerFlags{CertFile: server.CertFile, KeyFile: server.KeyFile, ClientCAFile: ours.File}, tls.VerifyClientCertIfGiven, ClientFlags{CAFile: ours.File}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			serverConfig, err := OpenServer(nil, "listen-", test.server, test.clients)
			if err != nil {
				t.Fatal(err)
			}
			client, err := OpenClient(nil, "bus-tls-", test.client)
			if err != nil {
				t.Fatal(err)
			}
			serves, connects := handshake(t, serverConfig, client.Config("127.0.0.1"))
			if test.want == nil && (serves != nil || connects != nil) || test.want != nil && (connects == nil || !test.want(connects)) {
				t.Errorf("the server: %v; the client: %v", serves, connects)
			}
		})
	}
}

// refused reports whether the peer has sent an alert.
func refused(err error) bool {
	_, ok := errors.AsType[*net.OpError](err)
	return ok
}

func TestSettingsThatGoTogether(t *testing.T) {
	ca := tlstest.NewAuthority(t, "ca")
	cert, other := ca.Issue(time.Hour, "a"), ca.Issue(time.Hour, "b")
	_, missingKey := OpenClient(nil, "bus-tls-", ClientFlags{CertFile: cert.CertFile})
	_, missingCert := OpenServer(nil, "listen-", ServerFlags{KeyFile: cert.KeyFile}, tls.NoClientCert)
	_, noTLS := OpenServer(nil, "admin-", ServerFlags{ClientCAFile: ca.File}, tls.NoClientCert)
	_, mixed := OpenClient(nil, "bus-tls-", ClientFlags{CertFile: cert.CertFile, KeyFile: other.KeyFile})
	_, notPEM := OpenClient(nil, "bus-tls-", ClientFlags{CAFile: cert.KeyFile})
	for _, test := range []struct {
		err   error
		field string
	}{
		{missingKey, "--bus-tls-key-file"},
		{missingCert, "--listen-tls-cert-file"},
		{noTLS, "--admin-client-ca-file"},
		{mixed, "--bus-tls-cert-file"},
		{notPEM, "--bus-tls-ca-file"},
	} {
		if field, ok := errors.AsType[*oona.FieldError](test.err); !ok || field.Field != test.field {
			t.Errorf("the error is %v, want one of %s", test.err, test.field)
		}
	}
}

// The metrics have when the own certificates of servers and clients expire.
func TestExpiryIsMeasured(t *testing.T) {
	ca := tlstest.NewAuthority(t, "ca")
	own := ca.Issue(time.Hour, "oona")
	files := secret.NewFiles(slog.New(slog.DiscardHandler))
	registry := prometheus.NewRegistry()
	registry.MustRegister(files.Collectors()...)
	if _, err := OpenServer(files, "listen-", ServerFlags{CertFile: own.CertFile, KeyFile: own.KeyFile}, tls.NoClientCert); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenClient(files, "bus-tls-", ClientFlags{CAFile: ca.File, CertFile: own.CertFile, KeyFile: own.KeyFile}); err != nil {
		t.Fatal(err)
	}
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	expiry := make(map[string]time.Time)
	for _, family := range families {
		if family.GetName() == "oona_certificate_expiry_timestamp_seconds" {
			for _, m := range family.Metric {
				expiry[m.Label[0].GetValue()] = time.Unix(int64(m.Gauge.GetValue()), 0)
			}
		}
	}
	for _, setting := range []string{"--listen-tls-cert-file", "--bus-tls-cert-file"} {
		if left := time.Until(expiry[setting]); left < 59*time.Minute || left > time.Hour {
			t.Errorf("%s expires in %s", setting, left)
		}
	}
	if len(expiry) != 2 {
		t.Errorf("the series are %v", expiry)
	}
}
