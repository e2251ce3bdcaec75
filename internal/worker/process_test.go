package worker

import (
	"bufio"
	"context"
	"encoding/json"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/alecthomas/kong"
)

// With OONA_TEST_PROBE, the test binary is a worker.
func TestMain(m *testing.M) {
	kind := os.Getenv("OONA_TEST_PROBE")
	if kind == "" {
		os.Exit(m.Run())
	}
	if err := os.Unsetenv("OONA_TEST_PROBE"); err != nil {
		panic(err)
	}
	Main("probe", "Probes.", newTestConfig(), func(ctx context.Context, w *Worker) error {
		if kind == "stuck" {
			w.OnClose("stuck connection", func() error { select {} })
		}
		return w.Run(ctx, Component{"chatter", func(ctx context.Context) error {
			if kind != "chatty" {
				<-ctx.Done()
			}
			for ctx.Err() == nil {
				w.Logger.Info("chatter", "text", strings.Repeat("x", 20_000))
				time.Sleep(time.Millisecond)
			}
			return ctx.Err()
		}})
	}, kong.Vars{"caps": "1"})
}

// hopeless is how long a test waits before it fails. It is for a machine that is very busy.
const hopeless = 5 * time.Minute

// patient lets a worker drain for as long as it needs.
const patient = "--drain-timeout=1h"

// probe is a worker in its own process.
type probe struct {
	*exec.Cmd
	log  *os.File // the reading end of its stderr
	read *bufio.Scanner
	url  string // of its admin server
}

func startProbe(t *testing.T, kind string, args ...string) *probe {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	log, stderr, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer stderr.Close()
	p := &probe{Cmd: exec.Command(self, args...), log: log, read: bufio.NewScanner(log)}
	p.Env = append(os.Environ(), "OONA_TEST_PROBE="+kind)
	p.Stdout, p.Stderr = stderr, stderr
	if err := p.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = log.Close()      // a test may have closed it
		_ = p.Process.Kill() // if the test has failed before it ended
		_ = p.Wait()
	})
	for p.read.Scan() {
		var line struct{ Msg, Address string }
		if err := json.Unmarshal(p.read.Bytes(), &line); err == nil && line.Msg == "admin server listens" {
			p.url = "http://" + line.Address
			return p
		}
	}
	t.Fatal("the worker has ended")
	return nil
}

// metric waits until a metric is above 0.
func (p *probe) awaitMetric(t *testing.T, series string) {
	t.Helper()
	for deadline := time.Now().Add(hopeless); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		response, err := http.Get(p.url + "/metrics")
		if err != nil {
			t.Fatalf("the worker does not answer: %v", err)
		}
		for lines := bufio.NewScanner(response.Body); lines.Scan(); {
			if value, ok := strings.CutPrefix(lines.Text(), series+" "); ok && value != "0" {
				response.Body.Close()
				return
			}
		}
		response.Body.Close()
	}
	t.Fatalf("%s is not above 0", series)
}

// end sends a signal and waits for the process.
func (p *probe) end(t *testing.T, by os.Signal) (status int) {
	t.Helper()
	if err := p.Process.Signal(by); err != nil {
		t.Fatal(err)
	}
	timer := time.AfterFunc(hopeless, func() { _ = p.Process.Kill() })
	defer timer.Stop()
	_ = p.Wait() // its error is the status
	return p.ProcessState.ExitCode()
}

// A worker continues when the reader of its log has ended.
func TestReaderOfTheLogIsGone(t *testing.T) {
	p := startProbe(t, "chatty", patient)
	if err := p.log.Close(); err != nil {
		t.Fatal(err)
	}
	p.awaitMetric(t, `oona_log_lines_dropped_total{prefix="kasmina",reason="write"}`)
	if status := p.end(t, syscall.SIGTERM); status != exitOK {
		t.Errorf("status %d, %s", status, p.ProcessState)
	}
}

// A worker continues, and ends, when its log is not read.
func TestReaderOfTheLogStalls(t *testing.T) {
	p := startProbe(t, "chatty", patient)
	p.awaitMetric(t, `oona_log_lines_dropped_total{prefix="kasmina",reason="full"}`)
	if status := p.end(t, syscall.SIGTERM); status != exitOK {
		t.Errorf("status %d, %s", status, p.ProcessState)
	}
}

func TestSignalsDrain(t *testing.T) {
	// A signal that the test itself was started to ignore, as by nohup, is
	// ignored by what it starts too, unless the test takes it.
	taken := make(chan os.Signal, 1)
	signal.Notify(taken, syscall.SIGHUP)
	defer signal.Stop(taken)
	for _, order := range []os.Signal{syscall.SIGHUP, syscall.SIGTERM, syscall.SIGINT} {
		p := startProbe(t, "quiet", patient)
		said := make(chan bool, 1)
		go func() {
			for p.read.Scan() {
				if strings.Contains(p.read.Text(), "probe has ended") {
					said <- true
				}
			}
			close(said)
		}()
		if status := p.end(t, order); status != exitOK || !<-said {
			t.Errorf("%s: status %d, %s", order, status, p.ProcessState)
		}
	}
}

// The drain timeout includes the functions of OnClose. When it expires, the process
// ends and names the function that has not returned.
func TestDrainTimeoutBoundsCloseToo(t *testing.T) {
	p := startProbe(t, "stuck", "--drain-timeout=300ms")
	lines := make(chan string, 1)
	go func() {
		for p.read.Scan() {
			if text := p.read.Text(); strings.Contains(text, "probe failed") {
				lines <- text
			}
		}
		close(lines)
	}()
	if status := p.end(t, syscall.SIGTERM); status != exitFailed {
		t.Errorf("status %d, %s", status, p.ProcessState)
	}
	if line := <-lines; !strings.Contains(line, "300ms after the signal to stop: stuck connection") {
		t.Errorf("it says %q", line)
	}
}
