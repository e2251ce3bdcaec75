package e2e

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

const repository = "../../.."

// build compiles the workers.
func build(t *testing.T) (dir string) {
	t.Helper()
	dir = t.TempDir()
	cmd := exec.CommandContext(t.Context(), "go", "build", "-o", dir, "./cmd/ingest", "./cmd/aggregate", "./cmd/exporter")
	cmd.Dir = repository
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build the workers: %v\n%s", err, out)
	}
	return dir
}

// process is a running program, and the lines of its log.
type process struct {
	t     *testing.T
	name  string
	cmd   *exec.Cmd
	lines chan string
	seen  []string
	admin string // address of a worker's admin server
}

func launch(t *testing.T, path string, args ...string) *process {
	t.Helper()
	p := &process{t: t, name: filepath.Base(path), cmd: exec.Command(path, args...), lines: make(chan string, 100_000)}
	stderr, err := p.cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(p.lines)
		for scanner := bufio.NewScanner(stderr); scanner.Scan(); {
			select {
			case p.lines <- scanner.Text():
			default: // nobody reads that many
			}
		}
	}()
	t.Cleanup(func() {
		p.kill()
		for line := range p.lines {
			p.seen = append(p.seen, line)
		}
		if t.Failed() {
			t.Logf("%s said:\n%s", p.name, strings.Join(p.seen[max(0, len(p.seen)-20):], "\n"))
		}
	})
	return p
}

// worker starts a worker and waits until it is ready.
func worker(t *testing.T, path string, args ...string) *process {
	t.Helper()
	p := launch(t, path, append(args, "--log-format", "json")...)
	p.admin = p.address("admin server listens")
	p.awaitReady()
	return p
}

// kill ends a process without warning.
func (p *process) kill() {
	if p.cmd.ProcessState == nil {
		_ = p.cmd.Process.Kill()
		_ = p.cmd.Wait()
	}
}

// address waits for the log line that says where a server listens.
func (p *process) address(said string) string {
	p.t.Helper()
	for line := range p.lines {
		p.seen = append(p.seen, line)
		var l struct{ Msg, Address string }
		if json.Unmarshal([]byte(line), &l) == nil && l.Msg == said && l.Address != "" {
			return l.Address
		}
	}
	p.t.Fatalf("%s ended before it said %q", p.name, said)
	return ""
}

func (p *process) awaitReady() {
	p.t.Helper()
	for began := time.Now(); time.Since(began) < time.Minute; pause() {
		response, err := http.Get("http://" + p.admin + "/readyz")
		if err != nil {
			p.t.Fatal(err)
		}
		response.Body.Close()
		if response.StatusCode == http.StatusOK {
			return
		}
	}
	p.t.Fatalf("%s did not become ready", p.name)
}

func pause() { time.Sleep(50 * time.Millisecond) }

// startPrometheus starts a Prometheus that scrapes the workers each second and goes by the
// rules of the project. It stores native histograms, or else their classic buckets.
func startPrometheus(t *testing.T, native bool, targets map[string][]string) string {
	t.Helper()
	path, err := exec.LookPath("prometheus")
	if err != nil {
		if os.Getenv("OONA_REQUIRE_PROMETHEUS") != "" {
			t.Fatal(err)
		}
		t.Skip("SKIPPED, THE DASHBOARDS WERE NOT TESTED WITH A REAL PROMETHEUS, which is not on the PATH (Debian: apt-get install prometheus)")
	}
	dir := t.TempDir()
	rules, err := filepath.Abs(filepath.Join(repository, "deploy/prometheus"))
	if err != nil {
		t.Fatal(err)
	}
	var config strings.Builder
	fmt.Fprintf(&config, "global: {scrape_interval: 1s, scrape_timeout: 1s, evaluation_interval: 1s}\nrule_files: ['%s/*-alerts.yml', '%s/*-recording.yml']\nscrape_configs:\n", rules, rules)
	for job, addresses := range targets {
		fmt.Fprintf(&config, "  - {job_name: %s, static_configs: [{targets: ['%s'], labels: {namespace: training}}]}\n", job, strings.Join(addresses, "', '"))
	}
	file := filepath.Join(dir, "prometheus.yml")
	if err := os.WriteFile(file, []byte(config.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	args := []string{"--config.file", file, "--storage.tsdb.path", filepath.Join(dir, "data"), "--web.listen-address", "127.0.0.1:0", "--log.format", "json"}
	if native {
		args = append(args, "--enable-feature", "native-histograms,exemplar-storage")
	}
	return "http://" + launch(t, path, args...).address("Listening on")
}

// every calls f at an interval until ctx is done.
func every(ctx context.Context, interval time.Duration, f func()) {
	ticker := time.NewTicker(interval)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
			f()
		}
	}
}
