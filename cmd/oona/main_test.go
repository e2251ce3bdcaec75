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

	"github.com/alecthomas/kong"

	"github.com/morphogenetic/oona/bus/kafka/embedded"
	"github.com/morphogenetic/oona/internal/demo"
	"github.com/morphogenetic/oona/internal/worker"
	"github.com/morphogenetic/oona/internal/worker/workertest"
)

// shortSettle is the settle time for the embedded broker, which is a single one and
// knows a change when it has answered the request.
const shortSettle = 50 * time.Millisecond

// Each command that connects to the bus warns of a password in clear text, and smoke of a
// token.
func TestClearCredentialsAreWarnedOf(t *testing.T) {
	file := filepath.Join(t.TempDir(), "password")
	if err := os.WriteFile(file, []byte("password"), 0o600); err != nil {
		t.Fatal(err)
	}
	sasl := []string{"--bus-sasl=plain", "--bus-sasl-username=u", "--bus-sasl-password-file=" + file}
	const nobody = "--brokers=127.0.0.1:1"
	commands := map[string][]string{
		"demo": {"--kafka=127.0.0.1:1"}, "topics": {"check", nobody}, "windows": {"show", nobody}, "group": {"show", nobody}, "watch": {nobody},
		"top": {"--once", nobody}, "audit": {nobody}, "tensors": {"ls", nobody, "--tensor-store=directory", "--tensor-directory=" + t.TempDir()}, "replay": {"verify", "nowhere", nobody}, "dead-letters": {"list", nobody},
	}
	parser, err := kong.New(newGrammar(), worker.Options()...)
	if err != nil {
		t.Fatal(err)
	}
	for _, command := range parser.Model.Children {
		if !slices.ContainsFunc(command.Flags, func(f *kong.Flag) bool { return f.Name == "bus-sasl" }) {
			continue
		}
		more, known := commands[command.Name]
		if !known {
			t.Errorf("oona %s is not tested", command.Name)
		}
		_, _, messages := run(t, slices.Concat([]string{command.Name}, more, sasl)...)
		if !strings.Contains(messages, "warning: --bus-sasl: ") {
			t.Errorf("oona %s: %s", command.Name, messages)
		}
	}
	_, _, messages := run(t, "smoke", "--ingest=http://127.0.0.1:1", "--exporter=https://127.0.0.1:1", "--timeout=1ms", "--token-file="+file)
	if strings.Count(messages, "warning: --ingest: ") != 1 || strings.Contains(messages, "warning: --exporter") {
		t.Errorf("oona smoke: %s", messages)
	}
	_, _, messages = run(t, "status", "mine", "--exporter=http://127.0.0.1:1", "--timeout=1ms", "--token-file="+file)
	if strings.Count(messages, "warning: --exporter: ") != 1 {
		t.Errorf("oona status: %s", messages)
	}
	_, _, messages = run(t, "dead-letters", "redrive", nobody, "--registry-url=http://127.0.0.1:1", "--registry-token-file="+file)
	if strings.Count(messages, "warning: --registry-url: ") != 1 {
		t.Errorf("oona dead-letters: %s", messages)
	}
	_, _, messages = run(t, "top", "--once", nobody, "--worker=http://127.0.0.1:1", "--worker=https://127.0.0.1:1", "--token-file="+file)
	if strings.Count(messages, "warning: --worker: ") != 1 {
		t.Errorf("oona top: %s", messages)
	}
}

// run runs a command line and returns its exit status and its output. For real
// brokers, the settle time is the default.
func run(t *testing.T, args ...string) (status int, out, messages string) {
	t.Helper()
	cli := newGrammar()
	cli.Demo.Patience, cli.Demo.Grace = hopeless/2, hopeless/2
	if real := os.Getenv("OONA_KAFKA"); real == "" || !slices.Contains(args, real) {
		cli.Topics.Bus.Settle, cli.Windows.Bus.Settle, cli.Watch.Bus.Settle, cli.Check.Settle, cli.DeadLetters.Bus.Settle = shortSettle, shortSettle, shortSettle, shortSettle, shortSettle
	}
	var o, m bytes.Buffer
	status = cli.execute(t.Context(), args, streams{strings.NewReader(""), &o, &m})
	return status, o.String(), m.String()
}

// If the reader of the output has ended, such as head, a command ends without an error message.
func TestReaderOfTheOutputIsGone(t *testing.T) {
	for command, want := range map[string]int{"--help": 0, "version": worker.ExitUnread} {
		var messages bytes.Buffer
		if status := newGrammar().execute(t.Context(), []string{command}, streams{strings.NewReader(""), workertest.Unread(t), &messages}); status != want || messages.Len() > 0 {
			t.Errorf("oona %s ends with status %d, want %d, and says %q", command, status, want, &messages)
		}
	}
}

// onlyWithoutRaceDetector skips a test of programs that it builds and starts. The race
// detector sees nothing of what they do, and the test runs without it, too.
func onlyWithoutRaceDetector(t *testing.T) {
	t.Helper()
	if raceDetector {
		t.Skip("it tests processes that are built without the race detector")
	}
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
	for _, command := range []string{"watch", "top", "check", "group", "audit", "status"} {
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

func TestErrors(t *testing.T) {
	bin := t.TempDir()
	s := newTranscript(t, bin, "BIN")
	for _, args := range [][]string{
		{},
		{"demo", "--nope"},
		{"demo", "--speed", "fast"},
		{"demo", "--speed", "-3"},
		{"topics"},
		{"topics", "apply", "--catalogue", "testdata/catalogue-text.yaml"},
		{"demo", "--once", "--synthetic", "layers=1,seeds=1,rate=1"},
		{"demo", "--data", "d", "--kafka", "h:1"},
		{"demo", "--for=-1s"},
		{"demo", "--window=0s"},
		{"demo", "--idle=0s"},
		{"demo", "--once", "--recording", "main.go"},
		{"windows", "apply", "--from", "2026-12-01"},
		{"topics", "apply", "--memory-limit", "banana"},
		{"topics", "apply", "--tick-interval", "1us", "--idle-horizon", "3us"},
		{"topics", "apply", "--window-length", "0s"},
		{"topics", "check", "--brokers", "127.0.0.1:1"},
		{"check"},
		{"check", "--ingest=-", "--offline", "--read-log"},
		{"check", "--offline", "--exporter=-", "--bin", bin},
	} {
		if out := s.messages(args...); out != "" {
			t.Errorf("%v: %q", args, out)
		}
	}
	// For services called oona-..., Kubernetes sets variables that look like those of flags.
	s.note("With OONA_INGEST_PORT=tcp://10.96.0.8:8080 and OONA_SERVICE_HOST=10.96.0.7.")
	t.Setenv("OONA_INGEST_PORT", "tcp://10.96.0.8:8080")
	t.Setenv("OONA_SERVICE_HOST", "10.96.0.7")
	s.run("demo", "--for=-1s")
	s.note("With OONA_NOPE=1 and OONA_BROKRES=h:1, too.")
	t.Setenv("OONA_NOPE", "1")
	t.Setenv("OONA_BROKRES", "h:1")
	s.run("demo", "--for=-1s")
	s.golden("errors.txt")
}

func TestTopicsApplyThenCheck(t *testing.T) {
	t.Parallel()
	broker, err := embedded.Start(t.Context(), embedded.Options{Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	defer broker.Close()
	s := newTranscript(t, broker.Addrs[0], "BROKER")
	topics := func(command string, more ...string) {
		t.Helper()
		s.run(append([]string{"topics", command, "--brokers", broker.Addrs[0]}, more...)...)
	}
	topics("check", "--partitions=3")
	topics("apply", "--partitions=3")
	topics("check", "--partitions=3")
	s.note("Without --partitions, any number is right if the topics agree.")
	topics("check")
	topics("check", "--partitions=4")
	s.note("For an ingest with a higher limit. A limit that is higher than necessary is right.")
	topics("check", "--partitions=3", "--max-message-bytes=5000000")
	topics("apply", "--partitions=3", "--max-message-bytes=5000000")
	topics("apply", "--partitions=3")
	s.golden("topics.txt")
}

func TestDemoPrintsJSON(t *testing.T) {
	t.Parallel()
	var messages string
	for _, idle := range []string{"2s", "10s", "50s"} { // on a busy machine frames are late
		var status int
		var out string
		status, out, messages = run(t, "demo", "--once", "--speed", "max", "--json", "--recording", "../../testdata/digits.avro",
			"--window", "1s", "--idle", idle, "--ingest-port", "0", "--admin-port", "0", "--broker-port", "0", "--data", t.TempDir())
		var report demo.Report
		if err := json.Unmarshal([]byte(out), &report); err != nil {
			t.Fatalf("status %d, %v in %q; messages %q", status, err, out, messages)
		}
		if report.Late > 0 && idle != "50s" {
			continue
		}
		if status != 0 || !report.Agree || report.Sent == 0 || report.Folded != report.Sent {
			t.Errorf("status %d, report %+v", status, report)
		}
		break
	}
	if !strings.Contains(messages, "Reconciliation") {
		t.Errorf("messages are %q", messages)
	}
}
