package objectstore

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/morphogenetic/oona/claimcheck/claimchecktest"
)

// binaries are the paths of the programs that the tests run.
var binaries struct{ versitygw, ingest string }

func TestMain(m *testing.M) {
	status, err := run(m)
	if err != nil {
		fmt.Fprintln(os.Stderr, "objectstore:", err)
		status = 1
	}
	os.Exit(status)
}

func run(m *testing.M) (status int, err error) {
	dir, err := os.MkdirTemp("", "oona-objectstore-")
	if err != nil {
		return 1, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	binaries.versitygw, binaries.ingest = filepath.Join(dir, "versitygw"), filepath.Join(dir, "ingest")
	if err := build("..", binaries.versitygw, "github.com/versity/versitygw/cmd/versitygw"); err != nil {
		return 1, err
	}
	if err := build("../..", binaries.ingest, "./cmd/ingest"); err != nil {
		return 1, err
	}
	return m.Run(), nil
}

// build compiles a command in the module of a directory.
func build(module, binary, pkg string) error {
	cmd := exec.Command("go", "build", "-o", binary, pkg)
	cmd.Dir = module
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("go build %s: %w\n%s", pkg, err, out)
	}
	return nil
}

// gateway is a versitygw on a directory. Its buckets are subdirectories.
type gateway struct {
	claimchecktest.Server
	dir     string
	address string
	cmd     *exec.Cmd
	done    chan struct{} // closed when the process has ended
	log     bytes.Buffer  // valid after that
}

func startGateway(t *testing.T, dir string) *gateway {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	g := &gateway{dir: dir, address: listener.Addr().String()}
	listener.Close()
	g.Server = claimchecktest.Server{URL: "http://" + g.address, AccessKeyID: "oona", SecretAccessKey: "secret-of-a-test"}
	t.Cleanup(func() {
		g.kill(t)
		if t.Failed() {
			t.Logf("versitygw said:\n%s", g.log.Bytes())
		}
	})
	g.start(t)
	return g
}

// start starts the gateway, perhaps again, and waits until it answers.
func (g *gateway) start(t *testing.T) {
	t.Helper()
	attributes := filepath.Join(filepath.Dir(g.dir), "attributes") // not every file system has extended ones
	for _, dir := range []string{g.dir, attributes} {
		if err := os.MkdirAll(dir, 0o750); err != nil {
			t.Fatal(err)
		}
	}
	g.cmd = exec.Command(binaries.versitygw, "--quiet", "--port", g.address, "posix", "--sidecar", attributes, g.dir)
	g.cmd.Env = append(os.Environ(), "ROOT_ACCESS_KEY_ID="+g.AccessKeyID, "ROOT_SECRET_ACCESS_KEY="+g.SecretAccessKey)
	g.cmd.Stdout, g.cmd.Stderr = &g.log, &g.log
	if err := g.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	g.done = make(chan struct{})
	go func() {
		_ = g.cmd.Wait() // the error is that it was killed
		close(g.done)
	}()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	for {
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, g.URL, nil)
		if err != nil {
			t.Fatal(err)
		}
		answer, err := http.DefaultClient.Do(request)
		if err == nil {
			answer.Body.Close()
			return
		}
		select {
		case <-g.done:
			t.Fatal("versitygw has ended")
		case <-ctx.Done():
			t.Fatalf("versitygw does not answer: %v", err)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

func (g *gateway) signal(t *testing.T, s syscall.Signal) {
	t.Helper()
	if err := g.cmd.Process.Signal(s); err != nil {
		t.Error(err)
	}
}

// kill kills the gateway, unless it has ended or was not started.
func (g *gateway) kill(t *testing.T) {
	t.Helper()
	if g.done == nil {
		return
	}
	if err := g.cmd.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		t.Error(err)
	}
	<-g.done
}
