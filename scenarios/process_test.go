package scenarios

import (
	"bufio"
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
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/morphogenetic/oona/bus"
)

// process is a running binary with its log.
type process struct {
	name string
	cmd  *exec.Cmd
	done chan struct{} // closed when the process has ended and its whole log was read
	err  error         // how it ended; once done

	mu    sync.Mutex
	lines []line
	admin string // where its admin server listens

	replayed int // records that were replayed, at the last request
}

// line is a line of a process's log. A line that is not JSON is in msg.
type line map[string]any

func launch(t *testing.T, name string, args ...string) *process {
	t.Helper()
	return launchBinary(t, binaries[name], nil, args...)
}

// launchBinary starts a binary, whose output goes to out unless that is nil.
func launchBinary(t *testing.T, path string, out io.Writer, args ...string) *process {
	t.Helper()
	p := &process{name: filepath.Base(path), cmd: exec.Command(path, args...), done: make(chan struct{})}
	p.cmd.Stdout = out
	stderr, err := p.cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(p.done)
		scanner := bufio.NewScanner(stderr)
		scanner.Buffer(nil, 1<<20)
		for scanner.Scan() {
			var l line
			if json.Unmarshal(scanner.Bytes(), &l) != nil {
				l = line{"msg": scanner.Text()}
			}
			p.mu.Lock()
			p.lines = append(p.lines, l)
			p.mu.Unlock()
		}
		p.err = p.cmd.Wait()
	}()
	t.Cleanup(func() {
		if p.ended() {
			return
		}
		_ = p.cmd.Process.Kill() // the scenario failed before it ended the process
		<-p.done
	})
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("%s (process %d) said:\n%s", p.name, p.cmd.Process.Pid, p.said())
		}
	})
	return p
}

func (p *process) ended() bool {
	select {
	case <-p.done:
		return true
	default:
		return false
	}
}

// said returns the end of the log as text.
func (p *process) said() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	var text strings.Builder
	for _, l := range p.lines[max(0, len(p.lines)-12):] {
		fmt.Fprintln(&text, map[string]any(l))
	}
	return text.String()
}

// logged returns the lines with a message.
func (p *process) logged(msg string) (found []line) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, l := range p.lines {
		if l["msg"] == msg {
			found = append(found, l)
		}
	}
	return found
}

// address returns the address of a server from a log line with one of the messages, or "" if
// the process ended or a long time passed before it logged one.
func (p *process) address(messages ...string) string {
	for began := time.Now(); time.Since(began) < 2*time.Minute; time.Sleep(5 * time.Millisecond) {
		ended := p.ended()
		for _, msg := range messages {
			if found := p.logged(msg); len(found) > 0 {
				return fmt.Sprint(found[0]["address"])
			}
		}
		if ended {
			break
		}
	}
	return ""
}

var errEnded = errors.New("the process has ended, or has logged no address")

// get sends a request to the admin server. It returns an error if the process hangs or has
// ended.
func (p *process) get(path string) (status int, body []byte, err error) {
	p.mu.Lock()
	admin := p.admin
	p.mu.Unlock()
	if admin == "" {
		admin = p.address("admin server listens")
		if admin == "" {
			return 0, nil, errEnded
		}
		p.mu.Lock()
		p.admin = admin
		p.mu.Unlock()
	}
	client := http.Client{Timeout: time.Minute}
	response, err := client.Get("http://" + admin + path)
	if err != nil {
		return 0, nil, err
	}
	defer response.Body.Close()
	var all bytes.Buffer
	_, err = all.ReadFrom(response.Body)
	return response.StatusCode, all.Bytes(), err
}

func (p *process) ready() bool {
	status, _, err := p.get("/readyz")
	return err == nil && status == http.StatusOK
}

func (p *process) awaitReady(t *testing.T, ctx context.Context) {
	t.Helper()
	for !p.ready() {
		if p.ended() {
			t.Fatalf("%s ended before it was ready: %v\n%s", p.name, p.err, p.said())
		}
		if !bus.Pause(ctx, 50*time.Millisecond) {
			_, body, err := p.get("/readyz")
			t.Fatalf("%s did not become ready: %s %v", p.name, body, err)
		}
	}
}

// commonLabel is the label prefix, with the comma that goes with it.
var commonLabel = regexp.MustCompile(`(?:([{,])prefix="[^"]*",|,?prefix="[^"]*")`)

// metrics returns the metrics of a process: by name, summed over labels, and each series by
// name and labels as Prometheus writes them, without the label prefix, which all series
// of a world have in common. It returns nil if the process does not answer.
func (p *process) metrics() map[string]float64 {
	_, body, err := p.get("/metrics")
	if err != nil {
		return nil
	}
	sums := make(map[string]float64)
	for text := range strings.Lines(string(body)) {
		series, value, found := strings.Cut(strings.TrimSpace(text), " ")
		if strings.HasPrefix(text, "#") || !found {
			continue
		}
		v, err := strconv.ParseFloat(value, 64)
		if err != nil {
			continue // a label with a space is not one of Oona's
		}
		series = strings.TrimSuffix(commonLabel.ReplaceAllString(series, "$1"), "{}")
		name, labels, _ := strings.Cut(series, "{")
		sums[name] += v
		if labels != "" {
			sums[series] += v
		}
	}
	p.replayed = max(p.replayed, int(sums["oona_aggregate_replayed_records_total"]))
	return sums
}

func (p *process) signal(t *testing.T, s syscall.Signal) {
	t.Helper()
	if err := p.cmd.Process.Signal(s); err != nil {
		t.Fatalf("signal %s: %v", p.name, err)
	}
}

func (p *process) kill(t *testing.T) {
	t.Helper()
	p.signal(t, syscall.SIGKILL)
	<-p.done
}

// terminate ends a process cleanly.
func (p *process) terminate(t *testing.T) {
	t.Helper()
	p.signal(t, syscall.SIGTERM)
	select {
	case <-p.done:
	case <-time.After(5 * time.Minute):
		t.Fatalf("%s does not end", p.name)
	}
	if p.err != nil {
		t.Errorf("%s ended with %v after SIGTERM", p.name, p.err)
	}
}

// refuses waits for the process to end by itself, and returns the end of its log.
func (p *process) refuses(t *testing.T, within time.Duration) string {
	t.Helper()
	select {
	case <-p.done:
	case <-time.After(within):
		t.Fatalf("%s still runs:\n%s", p.name, p.said())
	}
	if status := p.cmd.ProcessState.ExitCode(); status <= 0 {
		t.Errorf("%s ended with status %d", p.name, status)
	}
	return p.said()
}

// peakMemory returns the peak resident memory of the process in bytes.
func (p *process) peakMemory(t *testing.T) int64 {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	for l := range strings.Lines(string(text)) {
		if value, found := strings.CutPrefix(l, "VmHWM:"); found {
			kib, err := strconv.ParseInt(strings.Fields(value)[0], 10, 64)
			if err != nil {
				t.Fatal(err)
			}
			return kib << 10
		}
	}
	t.Fatal("the system does not say what memory a process has")
	return 0
}
