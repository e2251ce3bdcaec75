package pressure

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// hopeless is how long the test waits before it fails. It is for a machine that is very busy.
const hopeless = 5 * time.Minute

// process is a running ingest.
type process struct {
	t     *testing.T
	cmd   *exec.Cmd
	ended chan struct{} // closed when the process has ended and its log was read
	err   error         // how it ended, then

	mu     sync.Mutex
	log    bytes.Buffer
	listen string // its addresses, once it has logged them
	admin  string
}

// build builds ingest.
func build(t *testing.T) (binary string) {
	t.Helper()
	binary = filepath.Join(t.TempDir(), "ingest")
	cmd := exec.CommandContext(t.Context(), "go", "build", "-o", binary, "./cmd/ingest")
	cmd.Dir = "../.."
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	return binary
}

// start starts ingest with a memory limit, and waits until it is ready.
func start(t *testing.T, binary string, limit int64, args ...string) *process {
	t.Helper()
	p := &process{t: t, cmd: exec.Command(binary, append(args, "--listen=127.0.0.1:0", "--admin-address=127.0.0.1:0", "--log-format=json")...), ended: make(chan struct{})}
	p.cmd.Env = append(os.Environ(), fmt.Sprintf("GOMEMLIMIT=%d", limit))
	stderr, err := p.cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(p.ended)
		lines := bufio.NewScanner(stderr)
		lines.Buffer(nil, 1<<20)
		for lines.Scan() {
			p.read(lines.Bytes())
		}
		p.err = p.cmd.Wait()
	}()
	t.Cleanup(func() {
		_ = p.cmd.Process.Kill() // it may have ended
		<-p.ended
		if t.Failed() {
			t.Logf("ingest said:\n%s", p.said())
		}
	})
	p.await("readiness", func() bool {
		_, admin := p.addresses()
		if admin == "" {
			return false
		}
		answer, err := http.Get(admin + "/readyz")
		return err == nil && answer.Body.Close() == nil && answer.StatusCode == http.StatusOK
	})
	return p
}

// read reads a line of the log.
func (p *process) read(line []byte) {
	var said struct{ Msg, Address string }
	_ = json.Unmarshal(line, &said) // a line of text has no address
	p.mu.Lock()
	defer p.mu.Unlock()
	switch said.Msg {
	case "admin server listens":
		p.admin = "http://" + said.Address
	case "ingest accepts frames":
		p.listen = said.Address
	}
	p.log.Write(append(line, '\n'))
}

func (p *process) addresses() (listen, admin string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.listen, p.admin
}

func (p *process) said() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.log.String()
}

// await polls for a condition while the process runs.
func (p *process) await(what string, holds func() bool) {
	p.t.Helper()
	for deadline := time.Now().Add(hopeless); !holds(); {
		select {
		case <-p.ended:
			p.t.Fatalf("ingest has ended before its %s: %v", what, p.err)
		case <-time.After(20 * time.Millisecond):
		}
		if time.Now().After(deadline) {
			p.t.Fatalf("waited in vain for its %s", what)
		}
	}
}

// terminate ends the process, and expects the exit status 0.
func (p *process) terminate() (took time.Duration) {
	p.t.Helper()
	began := time.Now()
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		p.t.Fatal(err)
	}
	select {
	case <-p.ended:
	case <-time.After(hopeless):
		p.t.Fatal("it does not end")
	}
	if p.err != nil {
		p.t.Errorf("after SIGTERM it ends with %v", p.err)
	}
	return time.Since(began)
}

// metric returns the sum of the series of a metric.
func (p *process) metric(name string) (sum float64) {
	p.t.Helper()
	_, admin := p.addresses()
	answer, err := http.Get(admin + "/metrics")
	if err != nil {
		p.t.Fatal(err)
	}
	defer answer.Body.Close()
	all, err := io.ReadAll(answer.Body)
	if err != nil {
		p.t.Fatal(err)
	}
	for line := range strings.Lines(string(all)) {
		series, value, _ := strings.Cut(strings.TrimSpace(line), " ")
		if of, _, _ := strings.Cut(series, "{"); of != name {
			continue
		}
		n, err := strconv.ParseFloat(value, 64)
		if err != nil {
			p.t.Fatal(err)
		}
		sum += n
	}
	return sum
}

// peak returns the peak of the resident memory in bytes, or 0 if the system does not say it.
func (p *process) peak() (bytes int64) {
	p.t.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.cmd.Process.Pid))
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(status)) {
		var kib int64
		if n, _ := fmt.Sscanf(line, "VmHWM: %d kB", &kib); n == 1 {
			return kib << 10
		}
	}
	return 0
}
