package main

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// No program prints a password or a token: not when it checks its settings, and not in an
// error of a connection.
func TestNoSecretIsPrinted(t *testing.T) {
	onlyWithoutRaceDetector(t)
	t.Parallel()
	bin := t.TempDir()
	if out, err := exec.CommandContext(t.Context(), "go", "build", "-o", bin, "../ingest", "../aggregate", "../exporter", ".").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	const password, token = "s3cret-password", "s3cret-token"
	write := func(content string) string {
		path := filepath.Join(t.TempDir(), "file")
		if err := os.WriteFile(path, []byte(content+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	passwordFile, tokenFile := write(password), write(token)
	identities := map[string][]string{
		"plain":  {"--bus-sasl=plain", "--bus-sasl-username=u", "--bus-sasl-password-file", passwordFile},
		"scram":  {"--bus-sasl=scram-sha-512", "--bus-sasl-username=u", "--bus-sasl-password-file", passwordFile},
		"bearer": {"--bus-sasl=oauthbearer", "--bus-sasl-token-file", tokenFile},
		"both":   {"--bus-sasl=plain", "--bus-sasl-username=u", "--bus-sasl-password-file", passwordFile, "--bus-sasl-token-file", tokenFile},
		"as PEM": {"--bus-tls", "--bus-tls-ca-file", passwordFile, "--bus-sasl=oauthbearer", "--bus-sasl-token-file", tokenFile},
	}
	passwordInAddress(t, bin, password)
	nobody, babbler := "127.0.0.1:1", babble(t)
	for _, name := range []string{"ingest", "aggregate", "exporter", "oona"} {
		for title, identity := range identities {
			for broker, check := range map[string]bool{"": true, nobody: false, babbler: false} {
				args := slices.Concat(identity, []string{"--log-level=debug"})
				switch {
				case name == "oona" && check:
					continue
				case name == "oona":
					args = slices.Concat([]string{"topics", "check", "--brokers", broker}, args)
				case check:
					args = append(args, "--check")
				default:
					args = append(args, "--brokers", broker, "--admin-address=127.0.0.1:0")
				}
				out, err := exec.CommandContext(t.Context(), filepath.Join(bin, name), args...).CombinedOutput()
				if good := title != "both" && title != "as PEM"; (err == nil) != (check && good) || len(out) == 0 {
					t.Errorf("%s %v: %v\n%s", name, args, err, out)
				}
				noSecret(t, fmt.Sprint(name, args), string(out), password, token)
			}
		}
	}
}

// A password in an address, where it does not belong, is refused and not printed.
func passwordInAddress(t *testing.T, bin, password string) {
	t.Helper()
	s3 := []string{"ingest", "--check", "--tensor-store=s3", "--s3-access-key-id=id", "--s3-secret-access-key-file=f"}
	for _, args := range [][]string{
		append(slices.Clone(s3), "--s3-endpoint=https://u:"+password+"@h"),
		append(slices.Clone(s3), "--s3-endpoint=u:"+password+"@h:9000"),
		append(slices.Clone(s3), "--s3-endpoint=https://u:"+password+"@h:no-port"),
		{"ingest", "--check", "--s3-endpoint=https://u:" + password + "@h"}, // it is not used
		{"ingest", "--check", "--s3-endpoint=https://h/?token=" + password},
		{"ingest", "--check", "--brokers=u:" + password + "@h:9092"},
		{"aggregate", "--check", "--brokers=h:9092,u:" + password + "@h:9092"},
		{"exporter", "--check", "--brokers=kafka://u:" + password + "@h:9092"},
		{"exporter", "--check", "--remote-write-url=https://u:" + password + "@h/api/v1/write"},
		{"exporter", "--check", "--remote-write-url=u:" + password + "@h/api/v1/write"},
		{"exporter", "--check", "--remote-write-url=https://u:" + password + "@h:no-port/api/v1/write"},
		{"aggregate", "--check", "--trace-exporter=otlp-http", "--trace-endpoint=https://u:" + password + "@h:4318"},
		{"aggregate", "--check", "--trace-exporter=otlp-grpc", "--trace-endpoint=u:" + password + "@h:4317"},
		{"aggregate", "--check", "--trace-exporter=otlp-http", "--trace-endpoint=https://u:" + password + "@h:no-port"},
		{"ingest", "--check", "--trace-endpoint=https://u:" + password + "@h:4318"}, // it is not used
		{"exporter", "--check", "--trace-endpoint=https://h:4318/?token=" + password},
		{"oona", "topics", "check", "--brokers=u:" + password + "@h:9092"},
		{"oona", "smoke", "--ingest=http://u:" + password + "@h:8080", "--exporter=http://h:9103"},
		{"oona", "smoke", "--ingest=http://h:8080", "--exporter=u:" + password + "@h:9103"},
	} {
		out, err := exec.CommandContext(t.Context(), filepath.Join(bin, args[0]), args[1:]...).CombinedOutput()
		if err == nil || !strings.Contains(string(out), "has an @") {
			t.Errorf("%v: error %v\n%s", args, err, out)
		}
		noSecret(t, fmt.Sprint(args), string(out), password)
	}
}

func noSecret(t *testing.T, what, out string, secrets ...string) {
	t.Helper()
	for _, secret := range secrets {
		if strings.Contains(out, secret) {
			t.Errorf("%s prints %s:\n%s", what, secret, out)
		}
	}
}

// babble returns the address of a server that answers what it gets.
func babble(t *testing.T) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			got := make([]byte, 4096)
			n, _ := conn.Read(got)
			_, _ = conn.Write(got[:n])
			conn.Close()
		}
	}()
	t.Cleanup(func() {
		_ = listener.Close()
		<-ended
	})
	return listener.Addr().String()
}
