package main

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/internal/access"
	"github.com/morphogenetic/oona/internal/tlsfiles/tlstest"
	"github.com/morphogenetic/oona/internal/worker"
	"github.com/morphogenetic/oona/internal/worker/workertest"
)

func parse(t *testing.T, args ...string) (*config, string, error) {
	t.Helper()
	cfg := defaults()
	cfg.Ingest.Instance = "host" // the same on every machine
	var out bytes.Buffer
	_, err := worker.Parse(cfg, "ingest", description, args, &out)
	return cfg, out.String(), err
}

// Set OONA_UPDATE_GOLDEN=1 to rewrite the files.
func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if os.Getenv("OONA_UPDATE_GOLDEN") != "" {
		if err := os.MkdirAll("testdata", 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s: got\n%s\nwant\n%s", name, got, want)
	}
}

func TestHelp(t *testing.T) {
	t.Setenv("COLUMNS", "100")
	_, help, err := parse(t, "-h")
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "help.txt", help)
}

func TestEffectiveConfiguration(t *testing.T) {
	_, effective, err := parse(t, "--check", "--brokers=a:9092,b:9092", "--max-frames=7")
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "effective.yaml", effective)
	path := filepath.Join(t.TempDir(), "ingest.yaml")
	if err := os.WriteFile(path, []byte(effective), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, again, err := parse(t, "--check", "--config", path); err != nil || again != effective {
		t.Errorf("read again it is\n%s\nerror %v", again, err)
	}
}

func TestDefaultsReachTheStage(t *testing.T) {
	cfg, _, err := parse(t)
	if err != nil {
		t.Fatal(err)
	}
	topics, err := oona.NewTopics(cfg.Prefix)
	if err != nil {
		t.Fatal(err)
	}
	want := defaults().Ingest
	want.Instance, want.Topic = "host", "kasmina.telemetry.seed.metrics"
	want.Events, want.Spool.Drain = topics, cfg.DrainTimeout-closing
	if got := cfg.stage(topics); got != want {
		t.Errorf("stage is %+v, want %+v", got, want)
	}
	checked := make(map[string]oona.TopicSpec)
	for _, spec := range cfg.checkedTopics(topics) {
		checked[spec.Name] = spec
	}
	if !checked[want.Topic].AppendTime || checked[want.Topic].LeastMessageBytes != want.MaxMessageBytes || len(checked) != 3 {
		t.Errorf("checked at the start: %+v", checked)
	}
	for _, name := range []string{topics.LayerHealth, topics.LayerPerformance} {
		if checked[name].PartitionsOf != want.Topic {
			t.Errorf("%s is not checked against the number of partitions of %s: %+v", name, want.Topic, checked)
		}
	}
	options := cfg.publisher(topics)
	if options.Pin != want.Topic {
		t.Errorf("pinned is %q", options.Pin)
	}
	if options.BatchBytes != want.MaxMessageBytes || options.MaxMessageBytes < oona.MaxSideBytes {
		t.Errorf("frames are put together to %d bytes, dead letters may have %d", options.BatchBytes, options.MaxMessageBytes)
	}
}

func TestConformance(t *testing.T) {
	workertest.Run(t, func(args ...string) (string, error) {
		_, output, err := parse(t, args...)
		return output, err
	})
}

// Each error names the flag to change.
func TestBadConfiguration(t *testing.T) {
	rubbish := filepath.Join(t.TempDir(), "rubbish")
	if err := os.WriteFile(rubbish, []byte("rubbish"), 0o600); err != nil {
		t.Fatal(err)
	}
	own := tlstest.NewAuthority(t, "ca").Issue(time.Hour, "ingest")
	withTLS := []string{"--listen-tls-cert-file", own.CertFile, "--listen-tls-key-file", own.KeyFile}
	directory := []string{"--tensor-store=directory", "--tensor-directory=" + t.TempDir()}
	for _, c := range []struct {
		field string
		args  []string
	}{
		{"--instance", []string{"--instance=a b"}},
		{"--raw-group", []string{"--raw-group="}},
		{"--listen", []string{"--listen="}},
		{"--admin-address", []string{"--listen=:9101"}},
		{"--admin-address", []string{"--listen=[::ffff:127.0.0.1]:9101"}}, // the same address, written differently
		{"--max-in-flight", []string{"--max-in-flight=0"}},
		{"--listen-tls-key-file", withTLS[:2]},
		{"--listen-tls-cert-file", []string{"--listen-tls-cert-file", rubbish, "--listen-tls-key-file", rubbish}},
		{"--listen-tls-cert-file", []string{"--listen-tls-cert-file=missing", "--listen-tls-key-file=missing"}},
		{"--listen-client-ca-file", []string{"--listen-client-ca-file", own.CertFile}}, // without TLS
		{"--listen-client-ca-file", append(withTLS, "--listen-client-ca-file", rubbish)},
		{"--listen-access-file", []string{"--listen-access-file", rubbish}},
		{"--admin-access-file", []string{"--admin-access-file=missing"}},
		{"--drain-timeout", []string{"--publish-timeout=30s"}},
		{"--max-message-bytes", []string{"--max-message-bytes=10"}},
		{"--max-message-bytes", []string{"--max-message-bytes=100000000"}},
		// The sums of these would overflow.
		{"--max-memory-bytes", []string{"--max-body-bytes=9223372036854775807"}},
		{"--max-memory-bytes", []string{"--max-decompressed-bytes=3458764513820540927"}},
		{"--publish-timeout", []string{"--publish-timeout=2562047h"}},
		{"--clock-tolerance", []string{"--clock-tolerance=0s"}},
		{"--max-upload-bytes", append(directory, "--max-upload-bytes=1000")},                              // less than a tensor
		{"--max-tensor-requests", append(directory, "--max-tensor-requests=64")},                          // none are left for requests without tensors
		{"--tensor-directory", []string{"--tensor-store=directory", "--tensor-directory=config_test.go"}}, // a file
	} {
		_, _, err := parse(t, append(c.args, "--check")...)
		if wrong, ok := errors.AsType[*oona.FieldError](err); !ok || wrong.Field != c.field {
			t.Errorf("%q: error is %v, want one of %s", c.args, err, c.field)
		}
	}
	if _, _, err := parse(t, "--compression=gzip"); err == nil {
		t.Error("--compression=gzip is accepted")
	}
}

// Without an access file, each request needs a certificate that is still valid, also over
// a connection that was opened before it expired.
func TestAnExpiredCertificateIsRefused(t *testing.T) {
	ca := tlstest.NewAuthority(t, "ca")
	own := ca.Issue(time.Hour, "ingest")
	cfg, _, err := parse(t, "--listen-tls-cert-file", own.CertFile, "--listen-tls-key-file", own.KeyFile, "--listen-client-ca-file", ca.File)
	if err != nil {
		t.Fatal(err)
	}
	gate, err := cfg.openListenAccess(nil)
	if err != nil || gate == nil {
		t.Fatalf("the gate is %v, error %v", gate, err)
	}
	for valid, want := range map[time.Duration]error{time.Hour: nil, -time.Second: access.ErrNoCredentials} {
		r := httptest.NewRequest(http.MethodPost, "/v1/frames", nil)
		r.TLS = &tls.ConnectionState{VerifiedChains: [][]*x509.Certificate{{{NotAfter: time.Now().Add(valid)}}}}
		who, err := gate.Identify(r)
		if !errors.Is(err, want) {
			t.Errorf("valid for %s: the error is %v, want %v", valid, err, want)
		}
		if want == nil && (!who.Has(access.Frames) || !who.Has(access.Tensors) || !who.Run("r") || !who.Producer("p")) {
			t.Errorf("valid for %s: not everything is allowed", valid)
		}
	}
	if cfg, _, err = parse(t); err != nil {
		t.Fatal(err)
	}
	if gate, err := cfg.openListenAccess(nil); gate != nil || err != nil {
		t.Errorf("by default, the gate is %v, error %v", gate, err)
	}
}

// A password that goes to the brokers without TLS is warned of.
func TestAPasswordInClearTextIsWarnedOf(t *testing.T) {
	file := filepath.Join(t.TempDir(), "password")
	if err := os.WriteFile(file, []byte("password"), 0o600); err != nil {
		t.Fatal(err)
	}
	cfg, _, err := parse(t, "--bus-sasl=plain", "--bus-sasl-username=oona", "--bus-sasl-password-file", file)
	if err != nil {
		t.Fatal(err)
	}
	if warnings := cfg.Warnings(); len(warnings) != 1 || warnings[0].Field != "--bus-sasl" {
		t.Errorf("the warnings are %v", warnings)
	}
}

// An address for frames that everyone may use, and tokens without TLS, are warned of.
func TestAnOpenAddressIsWarnedOf(t *testing.T) {
	ca := tlstest.NewAuthority(t, "ca")
	own := ca.Issue(365*24*time.Hour, "ingest")
	tls := []string{"--listen-tls-cert-file", own.CertFile, "--listen-tls-key-file", own.KeyFile}
	expired := ca.Issue(-time.Minute, "expired")
	file := filepath.Join(t.TempDir(), "access.yaml")
	if err := os.WriteFile(file, []byte("identities:\n- {name: a, tokens: ["+access.HashOf("a").String()+"], roles: [tensors]}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		want string // "": nothing
		args []string
	}{
		{"", nil},
		{"--listen", []string{"--listen=:8080"}},
		{"--listen", append(tls, "--listen=10.0.0.1:8080")},
		{"", append(tls, "--listen=:8080", "--listen-client-ca-file", ca.File)},
		{"", append(tls, "--listen=:8080", "--listen-access-file", file)},
		{"--listen-access-file", []string{"--listen-access-file", file}},
		{"--listen-tls-cert-file", []string{"--listen-tls-cert-file", expired.CertFile, "--listen-tls-key-file", expired.KeyFile}},
		{"--bus-tls-cert-file", []string{"--bus-tls", "--bus-tls-cert-file", expired.CertFile, "--bus-tls-key-file", expired.KeyFile}},
	} {
		cfg, _, err := parse(t, test.args...)
		if err != nil {
			t.Fatal(err)
		}
		got := ""
		for _, warning := range cfg.Warnings() {
			got += warning.Field
		}
		if got != test.want {
			t.Errorf("%q: warned of %q, want %q", test.args, got, test.want)
		}
	}
}
