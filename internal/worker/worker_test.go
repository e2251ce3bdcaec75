package worker

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/alecthomas/kong"

	"github.com/morphogenetic/oona/internal/worker/workertest"
)

type stageConfig struct {
	Length time.Duration `help:"Length of a window."`
	Caps   int           `default:"${caps}" help:"A cap."`
}

func (c stageConfig) Validate() error {
	if c.Length < 0 {
		return errors.New("--length is negative")
	}
	return nil
}

type testConfig struct {
	Config
	Brokers []string          `default:"a:1,b:2" help:"Brokers."`
	Labels  map[string]string `help:"Labels."`
	Lossy   bool              `help:"Lossy."`
	Stage   stageConfig       `embed:"" group:"Stage"`
}

func newTestConfig() *testConfig {
	return &testConfig{Config: Config{AdminAddress: "127.0.0.1:0"}, Stage: stageConfig{Length: 10 * time.Second}}
}

func parse(t *testing.T, args ...string) (cfg *testConfig, output string, err error) {
	t.Helper()
	t.Setenv("COLUMNS", "100")
	cfg = newTestConfig()
	var out bytes.Buffer
	_, err = Parse(cfg, "probe", "Probes.", args, &out, kong.Vars{"caps": "7"})
	return cfg, out.String(), err
}

func writeFile(t *testing.T, content string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "oona.yaml")
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestPrecedence(t *testing.T) {
	path := writeFile(t, "length: 3s\ncaps: 3\nbrokers: [x:1, y:2]\nlog-level: warn\nlossy: true\n")
	t.Setenv("OONA_CAPS", "4")
	t.Setenv("OONA_LENGTH", "4s")
	cfg, _, err := parse(t, "--config", path, "--length", "5s")
	if err != nil {
		t.Fatal(err)
	}
	if cfg.Stage.Length != 5*time.Second {
		t.Errorf("length = %s: the flag goes before all", cfg.Stage.Length)
	}
	if cfg.Stage.Caps != 4 {
		t.Errorf("caps = %d: the environment goes before the file", cfg.Stage.Caps)
	}
	if got := strings.Join(cfg.Brokers, " "); got != "x:1 y:2" || cfg.Log.Level != "warn" || !cfg.Lossy {
		t.Errorf("brokers %q, level %s, lossy %t: the file goes before the defaults", got, cfg.Log.Level, cfg.Lossy)
	}
}

func TestDefaults(t *testing.T) {
	cfg, _, err := parse(t)
	if err != nil {
		t.Fatal(err)
	}
	if cfg.Stage.Length != 10*time.Second || cfg.Stage.Caps != 7 || cfg.AdminAddress != "127.0.0.1:0" || cfg.DrainTimeout != 20*time.Second {
		t.Errorf("defaults are %+v", cfg)
	}
}

func TestFileFromEnvironment(t *testing.T) {
	t.Setenv("OONA_CONFIG", writeFile(t, "caps: 12\n"))
	cfg, _, err := parse(t)
	if err != nil || cfg.Stage.Caps != 12 {
		t.Errorf("caps = %d, error %v", cfg.Stage.Caps, err)
	}
}

// What is wrong with a configuration is in testdata/errors.txt. Set OONA_UPDATE_GOLDEN=1
// to rewrite it.
func TestBadConfiguration(t *testing.T) {
	var got strings.Builder
	for _, file := range []string{
		"caps: 1\nlenght: 3s\ntick: 1s\n",
		"log_level: debug\n",
		"caps: 1\ncaps: 2\n",
		"- caps\n",
		"caps: [\n",
		"caps: 1\n---\ncaps: 2\n",
		"\nlength: ten\n",
		"caps: [1]\n",
		"log-level: loud\n",
		"check: true\n",
	} {
		path := writeFile(t, file)
		_, _, err := parse(t, "--config", path)
		fmt.Fprintf(&got, "%q\n\t%s\n", file, strings.ReplaceAll(fmt.Sprint(err), filepath.Dir(path), "DIR"))
	}
	for _, flag := range []string{"--nonsense", "--length=-1s", "--drain-timeout=0s"} {
		_, _, err := parse(t, flag)
		fmt.Fprintf(&got, "%s\n\t%v\n", flag, err)
	}
	_, _, err := parse(t, "--length", "-1s")
	fmt.Fprintf(&got, "--length -1s\n\t%v\n", err)
	for _, file := range []string{"hi\n", "identities: []\n"} {
		path := writeFile(t, file)
		_, _, err := parse(t, "--admin-access-file", path)
		fmt.Fprintf(&got, "--admin-access-file with %q\n\t%s\n", file, strings.ReplaceAll(fmt.Sprint(err), filepath.Dir(path), "DIR"))
	}
	const golden = "testdata/errors.txt"
	if os.Getenv("OONA_UPDATE_GOLDEN") != "" {
		if err := os.WriteFile(golden, []byte(got.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if got.String() != string(want) {
		t.Errorf("%s: got\n%s\nwant\n%s", golden, got.String(), want)
	}
	if _, _, err := parse(t, "--config", "no/such.yaml"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("error for a missing file is %v", err)
	}
}

func TestEmptyFile(t *testing.T) {
	for _, content := range []string{"", "# nothing\n", "caps:\n"} {
		if cfg, _, err := parse(t, "--config", writeFile(t, content)); err != nil || cfg.Stage.Caps != 7 {
			t.Errorf("file %q: caps %d, error %v", content, cfg.Stage.Caps, err)
		}
	}
}

// The output of --check is a configuration file with the same effect.
func TestEffectiveRoundTrip(t *testing.T) {
	_, first, err := parse(t, "--check", "--length=90s", "--brokers=a:1,b:2,c:3", "--labels=k=v", "--lossy")
	if err != nil {
		t.Fatal(err)
	}
	const want = `drain-timeout: 20s
# Admin:
admin-address: 127.0.0.1:0
admin-tls-cert-file: ""
admin-tls-key-file: ""
admin-client-ca-file: ""
admin-access-file: ""
admin-pprof: false
# Logs:
log-level: info
log-format: auto
# Traces:
trace-exporter: none
trace-endpoint: ""
trace-sample-ratio: 1
trace-headers-file: ""
trace-ca-file: ""
# Bus:
prefix: kasmina
brokers:
  - a:1
  - b:2
  - c:3
labels:
  k: v
lossy: true
# Stage:
length: 1m30s
caps: 7
`
	if first != want {
		t.Errorf("--check prints\n%s\nwant\n%s", first, want)
	}
	_, second, err := parse(t, "--check", "--config", writeFile(t, first))
	if err != nil || second != first {
		t.Errorf("read again it prints\n%s\nerror %v", second, err)
	}
}

func TestHelpAndVersion(t *testing.T) {
	_, help, err := parse(t, "-h")
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"Usage: probe [flags]", "Stage:", "--length=TIME", "default 10s, $OONA_LENGTH", "default 7", "$OONA_LOG_LEVEL", "debug|info|warn|error"} {
		if !strings.Contains(help, want) {
			t.Errorf("help lacks %q:\n%s", want, help)
		}
	}
	_, version, err := parse(t, "--version")
	if err != nil || !strings.HasPrefix(version, "probe ") || !strings.Contains(version, "go1.") {
		t.Errorf("version is %q, error %v", version, err)
	}
}

func TestExitStatus(t *testing.T) {
	for _, c := range []struct {
		args   []string
		run    func(context.Context, *Worker) error
		want   int
		stderr string
	}{
		{args: []string{"--nonsense"}, want: exitUsage, stderr: "probe: unknown flag --nonsense\nRun probe -h for help.\n"},
		{args: []string{"--check"}, want: exitOK},
		{run: func(context.Context, *Worker) error { return errors.New("no brokers") }, want: exitFailed, stderr: `"err":"no brokers"`},
		{run: func(context.Context, *Worker) error { return nil }, want: exitOK, stderr: "probe has ended"},
	} {
		var stdout, stderr bytes.Buffer
		got := execute(t.Context(), "probe", "Probes.", newTestConfig(), c.run, c.args, &stdout, &stderr, kong.Vars{"caps": "1"})
		if got != c.want || !strings.Contains(stderr.String(), c.stderr) {
			t.Errorf("%q: status %d, stderr %q", c.args, got, stderr.String())
		}
	}
}

// If the reader of the output has ended, such as head, the worker ends without an error.
func TestReaderOfTheOutputIsGone(t *testing.T) {
	for flag, want := range map[string]int{"-h": exitOK, "--version": exitOK, "--check": ExitUnread} {
		writer := workertest.Unread(t)
		if _, err := writer.WriteString("x"); !IsUnread(writer, err) || IsUnread(os.Stdout, err) {
			t.Errorf("writing to the pipe returns %v", err)
		}
		var stderr bytes.Buffer
		if got := execute(t.Context(), "probe", "Probes.", newTestConfig(), nil, []string{flag}, writer, &stderr, kong.Vars{"caps": "1"}); got != want || stderr.Len() > 0 {
			t.Errorf("%s ends with status %d, want %d, and says %q", flag, got, want, &stderr)
		}
	}
}

// A misspelt variable is named in the log and by --check.
func TestMisspeltVariableIsNamed(t *testing.T) {
	t.Setenv("OONA_DRAIN_TIMEOUTS", "1s")
	run := func(context.Context, *Worker) error { return nil }
	for _, args := range [][]string{nil, {"--check"}, {"--nonsense"}} {
		var stdout, stderr bytes.Buffer
		execute(t.Context(), "probe", "Probes.", newTestConfig(), run, args, &stdout, &stderr, kong.Vars{"caps": "1"})
		if said := stderr.String(); !strings.Contains(said, "OONA_DRAIN_TIMEOUTS ") || !strings.Contains(said, "OONA_DRAIN_TIMEOUT?") {
			t.Errorf("%q: stderr %q", args, stderr.String())
		}
	}
}

// A worker's admin server answers before its components run, while they do and
// while they drain.
func TestLifeOfAWorker(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	stage := errors.New("catching up")
	status := make(chan string, 3)
	run := func(ctx context.Context, w *Worker) error {
		get := func(path string) string {
			response, err := http.Get(fmt.Sprintf("http://%s%s", w.Admin.Addr(), path))
			if err != nil {
				return err.Error()
			}
			defer response.Body.Close()
			body, _ := io.ReadAll(response.Body)
			return fmt.Sprintf("%d %s", response.StatusCode, strings.TrimSpace(string(body)))
		}
		status <- get("/readyz")
		w.Admin.ReadyWhen("stage", func() error { return stage })
		return w.Run(ctx, Component{"stage", func(ctx context.Context) error {
			status <- get("/readyz")
			stage = nil
			status <- get("/readyz")
			cancel()
			<-ctx.Done()
			status <- get("/readyz")
			status <- get("/livez")
			if page := get("/"); !strings.Contains(page, `<a href="/metrics">`) || !strings.Contains(page, "oona probe") {
				t.Errorf("index page is %s", page)
			}
			if metrics := get("/metrics"); !strings.Contains(metrics, `oona_build_info{`) {
				t.Errorf("metrics lack oona_build_info: %s", metrics)
			}
			if goroutines := get("/debug/pprof/goroutine?debug=1"); !strings.HasPrefix(goroutines, "404 ") {
				t.Errorf("without --admin-pprof, profiles are served: %.80s", goroutines)
			}
			return ctx.Err()
		}})
	}
	code := make(chan int, 1)
	go func() {
		code <- execute(ctx, "probe", "Probes.", newTestConfig(), run, nil, io.Discard, io.Discard, kong.Vars{"caps": "1"})
	}()
	for _, want := range []string{
		"503 not ready: probe: starting",
		"503 not ready: stage: catching up",
		"200 ready",
		"503 not ready: probe: stopping",
		"200 alive",
	} {
		if got := <-status; got != want {
			t.Errorf("status is %q, want %q", got, want)
		}
	}
	if got := <-code; got != exitOK {
		t.Errorf("exit status %d", got)
	}
}

// A worker that is stopped while it starts ends soon, even if its start is blocked,
// as it has no work in progress.
func TestStopDuringTheStart(t *testing.T) {
	release := make(chan struct{})
	defer close(release)
	ctx, stop := context.WithCancel(t.Context())
	run := func(context.Context, *Worker) error {
		stop()
		<-release // like a client of a bus that does not answer
		return nil
	}
	var stderr bytes.Buffer
	code := execute(ctx, "probe", "Probes.", newTestConfig(), run, []string{"--drain-timeout=24h"}, io.Discard, &stderr, kong.Vars{"caps": "1"})
	if code != exitFailed || !strings.Contains(stderr.String(), starting) {
		t.Errorf("status %d, stderr %s", code, stderr.String())
	}
}

func TestMetricsNegotiation(t *testing.T) {
	listener, err := Listen(t.Context(), "--admin-address", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	admin := NewAdmin("probe", listener, NewRegistry(), NewLogger(LogConfig{}, io.Discard))
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- admin.Run(ctx) }()
	for accept, want := range map[string]string{
		"application/openmetrics-text;version=1.0.0":                                                 "application/openmetrics-text",
		"application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited": "application/vnd.google.protobuf",
		"": "text/plain",
	} {
		request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, fmt.Sprintf("http://%s/metrics", admin.Addr()), nil)
		if err != nil {
			t.Fatal(err)
		}
		request.Header.Set("Accept", accept)
		response, err := http.DefaultClient.Do(request)
		if err != nil {
			t.Fatal(err)
		}
		response.Body.Close()
		if got := response.Header.Get("Content-Type"); !strings.HasPrefix(got, want) {
			t.Errorf("asked for %q it answers %q", accept, got)
		}
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

func TestListenWhereThePortIsTaken(t *testing.T) {
	first, err := Listen(t.Context(), "--admin-address", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer first.Close()
	_, err = Listen(t.Context(), "--admin-address", first.Addr().String())
	if !errors.Is(err, syscall.EADDRINUSE) || !strings.Contains(err.Error(), first.Addr().String()) {
		t.Errorf("error is %v", err)
	}
}

// Errors that --check cannot find, as it may run on another machine, are found at the
// start.
func TestListenWhereTheAddressIsNotThisMachines(t *testing.T) {
	for _, address := range []string{
		"192.0.2.1:8080", // of documentation (RFC 5737)
		"no-such-host.invalid:0",
	} {
		if err := CheckAddresses(Listener{"--listen", address}); err != nil {
			t.Errorf("%s: --check refuses it: %v", address, err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second) // a name server may be silent
		_, err := Listen(ctx, "--listen", address)
		cancel()
		var unknown *net.DNSError
		if !errors.Is(err, syscall.EADDRNOTAVAIL) && !errors.As(err, &unknown) || !strings.Contains(err.Error(), address) {
			t.Errorf("%s: error is %v", address, err)
		}
	}
}

// Durations are for people: JSON has them as text, not in nanoseconds.
func TestSpansInLogsAreReadable(t *testing.T) {
	for format, want := range map[string]string{"json": `"retry_in":"1.5s"`, "text": "retry_in=1.5s"} {
		var out bytes.Buffer
		NewLogger(LogConfig{Level: "info", Format: format}, &out).Info("x", "retry_in", 1500*time.Millisecond)
		if !strings.Contains(out.String(), want) {
			t.Errorf("%s: %s", format, out.String())
		}
	}
}
