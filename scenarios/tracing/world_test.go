package tracing

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/morphogenetic/oona/internal/address/addresstest"
)

// binaries are the paths of the programs that the tests run.
var binaries = map[string]string{}

func TestMain(m *testing.M) {
	status, err := run(m)
	if err != nil {
		fmt.Fprintln(os.Stderr, "tracing:", err)
		status = 1
	}
	os.Exit(status)
}

func run(m *testing.M) (status int, err error) {
	dir, err := os.MkdirTemp("", "oona-tracing-")
	if err != nil {
		return 1, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	for name, from := range map[string]struct{ module, pkg string }{
		"jaeger":    {"jaeger", "github.com/jaegertracing/jaeger/cmd/all-in-one"},
		"ingest":    {"../..", "./cmd/ingest"},
		"aggregate": {"../..", "./cmd/aggregate"},
		"exporter":  {"../..", "./cmd/exporter"},
		"oona":      {"../..", "./cmd/oona"},
	} {
		binaries[name] = filepath.Join(dir, name)
		cmd := exec.Command("go", "build", "-o", binaries[name], from.pkg)
		cmd.Dir = from.module
		if out, err := cmd.CombinedOutput(); err != nil {
			return 1, fmt.Errorf("go build %s: %w\n%s", from.pkg, err, out)
		}
	}
	return m.Run(), nil
}

// start runs a process until the end of the test, when it must stop on SIGTERM.
func start(t *testing.T, name string, args ...string) {
	t.Helper()
	var output bytes.Buffer
	cmd := exec.Command(binaries[name], args...)
	cmd.Stdout, cmd.Stderr = &output, &output
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
			t.Errorf("stop %s: %v", name, err)
		}
		if err := cmd.Wait(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if t.Failed() {
			t.Logf("%s said:\n%s", name, output.Bytes()[max(0, output.Len()-4000):])
		}
	})
}

// freeAddress returns an address of this machine on which nothing listens.
func freeAddress(t *testing.T) string {
	t.Helper()
	return fmt.Sprintf("127.0.0.1:%d", addresstest.Port(t))
}

// jaeger is a Jaeger with its storage in memory.
type jaeger struct{ grpc, http, query string }

func startJaeger(t *testing.T) *jaeger {
	t.Helper()
	j := &jaeger{grpc: freeAddress(t), http: freeAddress(t), query: freeAddress(t)}
	args := []string{"--collector.otlp.grpc.host-port=" + j.grpc, "--collector.otlp.http.host-port=" + j.http, "--query.http-server.host-port=" + j.query}
	for _, other := range []string{
		"admin.http", "collector.grpc-server", "collector.http-server", "query.grpc-server", "http-server",
	} {
		args = append(args, "--"+other+".host-port="+freeAddress(t))
	}
	for _, udp := range []string{"jaeger-binary", "jaeger-compact", "zipkin-compact"} {
		args = append(args, "--processor."+udp+".server-host-port=127.0.0.1:0")
	}
	start(t, "jaeger", args...)
	eventually(t, "Jaeger answers", func() error { return fetch(t, "http://"+j.query+"/api/services", nil) })
	return j
}

// eventually waits until try succeeds.
func eventually(t *testing.T, what string, try func() error) {
	t.Helper()
	var err error
	for deadline := time.Now().Add(90 * time.Second); time.Now().Before(deadline); time.Sleep(100 * time.Millisecond) {
		if err = try(); err == nil {
			return
		}
	}
	t.Fatalf("%s: %v", what, err)
}

var errStatus = errors.New("unexpected status")

// fetch gets a URL, and decodes the answer into a value unless that is nil.
func fetch(t *testing.T, url string, into any) error {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	answer, err := http.DefaultClient.Do(r)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	if err != nil {
		return err
	}
	if answer.StatusCode != http.StatusOK {
		return fmt.Errorf("%w: %s answers %d %s", errStatus, url, answer.StatusCode, body)
	}
	if into == nil {
		return nil
	}
	return json.Unmarshal(body, into)
}

// oona runs the command oona.
func oona(t *testing.T, args ...string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if out, err := exec.CommandContext(ctx, binaries["oona"], args...).CombinedOutput(); err != nil {
		t.Fatalf("oona %q: %v\n%s", args, err, out)
	}
}
