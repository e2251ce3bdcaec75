package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/morphogenetic/oona/bus/kafka/embedded"
	"github.com/morphogenetic/oona/internal/demo"
)

// shortSettle is the settle time for the embedded broker, which is a single one and
// knows a change when it has answered the request.
const shortSettle = 50 * time.Millisecond

// run runs a command line and returns its exit status and its output. For real
// brokers, the settle time is the default.
func run(t *testing.T, args ...string) (status int, out, messages string) {
	t.Helper()
	cli := newGrammar()
	if real := os.Getenv("OONA_KAFKA"); real == "" || !slices.Contains(args, real) {
		cli.Topics.Bus.Settle, cli.Windows.Bus.Settle, cli.Watch.Bus.Settle, cli.Check.Settle = shortSettle, shortSettle, shortSettle, shortSettle
	}
	var o, m bytes.Buffer
	status = cli.execute(t.Context(), args, streams{strings.NewReader(""), &o, &m})
	return status, o.String(), m.String()
}

func TestHelpIsOnStdout(t *testing.T) {
	for _, args := range [][]string{{"--help"}, {"demo", "--help"}, {"topics", "apply", "--help"}} {
		status, out, messages := run(t, args...)
		if status != 0 || !strings.HasPrefix(out, "Usage: oona") || messages != "" {
			t.Errorf("%v: status %d, out %q, messages %q", args, status, out, messages)
		}
	}
}

// Set OONA_UPDATE_GOLDEN=1 to rewrite the files.
func TestHelpOfCommands(t *testing.T) {
	t.Setenv("COLUMNS", "100")
	for _, command := range []string{"watch", "check"} {
		_, out, _ := run(t, command, "--help")
		golden(t, command+".txt", out)
	}
}

func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if os.Getenv("OONA_UPDATE_GOLDEN") != "" {
		if err := errors.Join(os.MkdirAll("testdata", 0o755), os.WriteFile(path, []byte(got), 0o644)); err != nil {
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

func TestVersion(t *testing.T) {
	_, flag, _ := run(t, "--version")
	status, command, messages := run(t, "version")
	if status != 0 || command != flag || !strings.HasPrefix(command, "oona ") || messages != "" {
		t.Errorf("status %d, %q and %q, %q", status, command, flag, messages)
	}
}

func TestUsageErrors(t *testing.T) {
	for want, args := range map[string][]string{
		`expected one of "demo"`: {},
		"unknown flag --nope":    {"demo", "--nope"},
		`speed "fast"`:           {"demo", "--speed", "fast"},
		"give --for":             {"demo", "--once", "--synthetic", "layers=1,seeds=1,rate=1"},
		"give one of them":       {"demo", "--data", "d", "--kafka", "h:1"},
		"--for is -1s":           {"demo", "--for=-1s"},
		"--window is 0s":         {"demo", "--window=0s"},
		"--idle is 0s":           {"demo", "--idle=0s"},
		`--from: "2026-12-01" is not a time; give for example 2026-12-01T12:00:00Z`: {"windows", "apply", "--from", "2026-12-01"},
		`--memory-limit: "banana" is not a size; give for example 2GiB`:             {"topics", "apply", "--memory-limit", "banana"},
		"--tick-interval: is 1µs; it is at least 10ms":                              {"topics", "apply", "--tick-interval", "1us", "--idle-horizon", "3us"},
	} {
		status, out, messages := run(t, args...)
		if status != exitUsage || out != "" || !strings.Contains(messages, want) {
			t.Errorf("%v: status %d, out %q, messages %q; want %q", args, status, out, messages, want)
		}
	}
}

// For services called oona-..., Kubernetes sets variables that look like those of flags.
func TestServiceLinksAreNotRead(t *testing.T) {
	t.Setenv("OONA_INGEST_PORT", "tcp://10.96.0.8:8080")
	t.Setenv("OONA_SERVICE_HOST", "10.96.0.7")
	status, _, messages := run(t, "demo", "--for=-1s")
	if status != exitUsage || !strings.Contains(messages, "--for is -1s") || !strings.Contains(messages, "warning: OONA_INGEST_PORT is ignored") || strings.Contains(messages, "OONA_SERVICE_HOST") {
		t.Errorf("status %d, %q", status, messages)
	}
}

func TestTopicsApplyThenCheck(t *testing.T) {
	t.Parallel()
	broker, err := embedded.Start(t.Context(), embedded.Options{Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	defer broker.Close()
	at := []string{"--brokers", broker.Addrs[0], "--partitions", "3"}
	topics := func(command string, more ...string) (int, string, string) {
		return run(t, append(append([]string{"topics", command}, at...), more...)...)
	}
	if status, _, messages := topics("check"); status != exitFailed || !strings.Contains(messages, "kasmina.telemetry.seed.metrics") || !strings.Contains(messages, "oona topics apply") {
		t.Errorf("check of nothing: status %d, %q", status, messages)
	}
	if status, out, messages := topics("apply"); status != 0 || !strings.Contains(out, "10 topics are as they must be") {
		t.Errorf("apply: status %d, %q, %q", status, out, messages)
	}
	if status, out, messages := topics("check"); status != 0 || !strings.Contains(out, "10 topics") {
		t.Errorf("check: status %d, %q, %q", status, out, messages)
	}
	// Without --partitions, any number is right if the topics agree.
	if status, out, messages := run(t, "topics", "check", "--brokers", broker.Addrs[0]); status != 0 || !strings.Contains(out, "10 topics") {
		t.Errorf("check without a number: status %d, %q, %q", status, out, messages)
	}
	if status, _, messages := topics("check", "--max-message-bytes", "5000000"); status != exitFailed ||
		!strings.Contains(messages, "kasmina.telemetry.seed.metrics has max.message.bytes=1048588 and must have at least 5000000; run `oona topics apply --max-message-bytes` with that size") {
		t.Errorf("check for an ingest with a higher limit: status %d, %q", status, messages)
	}
	if status, out, messages := topics("apply", "--max-message-bytes", "5000000"); status != 0 || !strings.Contains(out, "max.message.bytes was 1048588, is 5000000 now") {
		t.Errorf("apply for it: status %d, %q, %q", status, out, messages)
	}
	if status, out, messages := topics("apply"); status != 0 || strings.Contains(out, "max.message.bytes") {
		t.Errorf("more is right too: status %d, %q, %q", status, out, messages)
	}
	if status, _, messages := topics("check", "--partitions", "4"); status != exitFailed || !strings.Contains(messages, "3 partitions") {
		t.Errorf("check of another number of partitions: status %d, %q", status, messages)
	}
}

func TestBrokersThatAreNotThere(t *testing.T) {
	status, _, messages := run(t, "topics", "check", "--brokers", "127.0.0.1:1")
	if status != exitFailed || !strings.Contains(messages, "127.0.0.1:1") {
		t.Errorf("status %d, %q", status, messages)
	}
}

func TestDemoPrintsJSON(t *testing.T) {
	t.Parallel()
	status, out, messages := run(t, "demo", "--once", "--speed", "max", "--json", "--recording", "../../testdata/digits.avro",
		"--window", "1s", "--idle", "2s", "--ingest-port", "0", "--admin-port", "0", "--broker-port", "0", "--data", t.TempDir())
	var report demo.Report
	if err := json.Unmarshal([]byte(out), &report); err != nil {
		t.Fatalf("status %d, %v in %q; messages %q", status, err, out, messages)
	}
	if status != 0 || !report.Agree || report.Sent == 0 || report.Folded != report.Sent {
		t.Errorf("status %d, report %+v", status, report)
	}
	if !strings.Contains(messages, "Reconciliation") {
		t.Errorf("messages are %q", messages)
	}
}

func TestDemoOfWhatIsNoRecording(t *testing.T) {
	status, out, messages := run(t, "demo", "--once", "--recording", "main.go")
	if status != exitFailed || out != "" || !strings.Contains(messages, "main.go is not a recording") {
		t.Errorf("status %d, out %q, messages %q", status, out, messages)
	}
}
