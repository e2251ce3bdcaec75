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
