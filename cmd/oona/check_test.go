package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/bus/kafka"
	"github.com/morphogenetic/oona/internal/settings"
	"github.com/morphogenetic/oona/internal/worker"
	"github.com/morphogenetic/oona/windows"
)

// Check runs the binaries of the workers, and checks the topics.
func TestCheck(t *testing.T) {
	bin := t.TempDir()
	build := exec.CommandContext(t.Context(), "go", "build", "-o", bin, "../ingest", "../aggregate", "../exporter")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	help := helpOfAll(t, bin)
	variablesAreListed(t, help)
	documentedFlagsExist(t, help)
	_, cfg := startBroker(t)
	dir := t.TempDir()
	file := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	at := "brokers: [" + cfg.Brokers[0] + "]\nprefix: checked\n"
	raw := file("raw.yaml", at+"raw: true\n")
	good := []string{"check", "--bin", bin, "--ingest", file("ingest.yaml", at), "--aggregate", file("aggregate.yaml", at), "--exporter", file("exporter.yaml", at)}

	// With --offline, the bus is not used.
	status, out, messages := run(t, append(good, "--offline")...)
	if status != 0 || messages != "" || strings.Count(out, "---\n# ") != 3 || !strings.Contains(out, "# aggregate "+filepath.Join(dir, "aggregate.yaml")+"\ndrain-timeout: 20s\n") || !strings.Contains(out, "window-length: 10s") {
		t.Errorf("offline: status %d, %q\n%s", status, messages, out)
	}
	// Each missing topic is a fault.
	status, out, messages = run(t, append(good, "--ingest", raw)...)
	if status != exitFailed || strings.Count(out, "---\n# ") != 4 || !strings.Contains(messages, "fault: topic checked.telemetry.seed.metrics does not exist; run `oona topics apply`") ||
		!strings.Contains(messages, "fault: topic checked.telemetry.seed.raw does not exist") || !strings.Contains(messages, "the configuration has faults: 10") {
		t.Errorf("without topics: status %d, %q", status, messages)
	}
	topics, err := oona.NewTopics("checked")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := kafka.New(cfg, nil).Apply(t.Context(), append(topics.Specs(2), topics.SettingsSpec())); err != nil {
		t.Fatal(err)
	}
	if status, _, messages = run(t, good...); status != 0 || messages != "" {
		t.Errorf("with topics: status %d, %q", status, messages)
	}
	status, _, messages = run(t, append(good, "--ingest", file("large.yaml", at+"max-message-bytes: 3000000\n"))...)
	if status != exitFailed || !strings.Contains(messages, "fault: topic checked.telemetry.seed.metrics has max.message.bytes=1048588 and must have at least 3000000") {
		t.Errorf("with an ingest whose records exceed the limit of the topic: status %d, %q", status, messages)
	}
	// All faults are named: of each file, and between files.
	status, _, messages = run(t, append(good, "--aggregate", file("long.yaml", at+"window-length: 20s\n"), "--aggregate", file("wrong.yaml", at+"idle-horizon: 1s\n"),
		"--exporter", file("typo.yaml", at+"lookbak: 1h\n"), "--exporter", filepath.Join(dir, "absent.yaml"), "--ingest", file("other.yaml", "prefix: other\n"))...)
	for _, want := range []string{
		"long.yaml: window-length is 20s, but aggregate ",
		"wrong.yaml: ", "--idle-horizon: is 1s; it is longer than two tick intervals",
		`unknown key "lookbak"`,
		"absent.yaml: no such file",
		"other.yaml: prefix is other, but ingest ", "other.yaml: brokers are [127.0.0.1:9092], but ingest ",
		"the configuration has faults: 6",
	} {
		if !strings.Contains(messages, want) {
			t.Errorf("nothing says %q", want)
		}
	}
	if status != exitFailed || strings.Contains(messages, "-h for help") {
		t.Errorf("with faults: status %d, %q", status, messages)
	}
	// Each file is right by itself, but they disagree.
	status, _, messages = run(t, "check", "--bin", bin, "--offline", "--ingest", file("a.yaml", at+"instance: a\n"), "--ingest", file("b.yaml", at+"instance: a\n"),
		"--aggregate", file("slow.yaml", at+"window-length: 10m\n"), "--exporter", file("silent.yaml", at))
	for _, want := range []string{"b.yaml: instance is a, which ingest ", "silent.yaml: series-silent-after is 5m0s, but by aggregate ", "the configuration has faults: 2"} {
		if !strings.Contains(messages, want) {
			t.Errorf("nothing says %q", want)
		}
	}
	if status != exitFailed {
		t.Errorf("together: status %d, %q", status, messages)
	}
	// A conflict on one host is a fault if the workers are on one host, and else a note.
	// Two ingests of the default name whose ports differ are assumed to be on one host.
	pods := []string{"check", "--bin", bin, "--offline", "--aggregate", file("c.yaml", at+"admin-address: ':9100'\n"), "--exporter", file("d.yaml", at+"admin-address: ':9100'\n")}
	status, _, messages = run(t, pods...)
	if status != 0 || strings.Count(messages, "note: if they run on one host (--one-host): exporter ") != 1 {
		t.Errorf("one port on two hosts: status %d, %q", status, messages)
	}
	status, _, messages = run(t, append(pods, "--one-host")...)
	if status != exitFailed || !strings.Contains(messages, "d.yaml: admin-address is :9100, and admin-address of aggregate ") {
		t.Errorf("one port on one host: status %d, %q", status, messages)
	}
	status, _, messages = run(t, "check", "--bin", bin, "--offline", "--ingest", file("ports.yaml", at), "--ingest", file("own.yaml", at+"listen: 127.0.0.1:8081\nadmin-address: 127.0.0.1:9111\n"))
	if status != exitFailed || !strings.Contains(messages, "own.yaml: instance is ") || !strings.Contains(messages, "the configuration has faults: 1") {
		t.Errorf("two ingests of the default name: status %d, %q", status, messages)
	}
	// Errors with which a worker would not start.
	status, _, messages = run(t, "check", "--bin", bin, "--offline", "--ingest", file("port.yaml", "listen: 127.0.0.1:28080\nadmin-address: 127.0.0.1:28080\n"),
		"--ingest", file("listen.yaml", "listen: 12:30:45\n"), "--exporter", file("admin.yaml", "admin-address: nonsense\n"),
		"--aggregate", file("brokers.yaml", "brokers: '127.0.0.1:29192, b:99999'\n"), "--ingest", file("large.yaml", "max-message-bytes: 100000000\n"))
	for _, want := range []string{
		"port.yaml: --admin-address: is 127.0.0.1:28080, and --listen is 127.0.0.1:28080", "listen.yaml: --listen: is ", "admin.yaml: --admin-address: is ",
		"brokers.yaml: --brokers: entry 2 is ", "large.yaml: --max-message-bytes: is 100000000", "the configuration has faults: 5",
	} {
		if !strings.Contains(messages, want) {
			t.Errorf("nothing says %q in %q", want, messages)
		}
	}
	if status != exitFailed {
		t.Errorf("each by itself: status %d", status)
	}
	// It is not a fault if the log has other windows, as those of the log hold.
	if status, _, messages := run(t, "topics", "apply", "--brokers", cfg.Brokers[0], "--prefix=checked", "--partitions=2", "--window-length=7s"); status != 0 {
		t.Fatal(messages)
	}
	short := []string{"check", "--bin", bin, "--exporter", file("short.yaml", at+"series-silent-after: 12s\n")}
	for source, flags := range map[string][]string{"settings topic": nil, "log": {"--read-log"}} {
		status, _, messages = run(t, append(good, flags...)...)
		if status != 0 || !strings.Contains(messages, "window-length is 10s; generation 1 in the "+source+" has 7s, which holds") || strings.Count(messages, "note:") != 1 {
			t.Errorf("against the %s: status %d, %q", source, status, messages)
		}
		status, _, messages = run(t, append(short, flags...)...)
		if status != exitFailed || !strings.Contains(messages, "series-silent-after is 12s, but by generation 1 in the "+source+" a window closes up to 13s after the end of the previous one") {
			t.Errorf("an exporter against the %s: status %d, %q", source, status, messages)
		}
	}
	// The settings topic has a configuration of a later version, in addition to another fault.
	later := windows.Configuration{Config: windows.DefaultConfig()}.Record()
	later.Generation, later.Reducer = 2, windows.Reducer+1
	if err := settings.Write(t.Context(), kafka.New(cfg, nil), topics, settings.WindowsEntry(0, later)); err != nil {
		t.Fatal(err)
	}
	status, _, messages = run(t, append(good, "--ingest", filepath.Join(dir, "absent.yaml"))...)
	if status != exitFailed || !strings.Contains(messages, "fault: the settings topic, partition 0: ") || !strings.Contains(messages, "the configuration has faults: 2") {
		t.Errorf("windows of a later version: status %d, %q", status, messages)
	}
	// If the bus cannot be reached, it is a note and not a fault.
	status, _, messages = run(t, "check", "--bin", bin, "--ingest", file("nowhere.yaml", "brokers: ['127.0.0.1:1']\n"))
	if status != 0 || !strings.Contains(messages, "note: only the files are checked: the bus cannot be reached at 127.0.0.1:1") {
		t.Errorf("without a bus: status %d, %q", status, messages)
	}
	// Variables apply as for a worker.
	t.Setenv("OONA_MAX_FRAMES", "0")
	if status, _, messages = run(t, "check", "--bin", bin, "--offline", "--ingest=-"); status != exitFailed || !strings.Contains(messages, "ingest without a file: ") || !strings.Contains(messages, "max-frames: is 0") {
		t.Errorf("with a variable: status %d, %q", status, messages)
	}
}

// helpOfAll returns the output of -h of all programs and commands.
func helpOfAll(t *testing.T, bin string) string {
	t.Helper()
	var help strings.Builder
	for _, name := range []string{"ingest", "aggregate", "exporter"} {
		out, err := exec.CommandContext(t.Context(), filepath.Join(bin, name), "-h").Output()
		if err != nil {
			t.Fatal(err)
		}
		help.Write(out)
	}
	_, commands, _ := run(t, "--help")
	for _, command := range regexp.MustCompile(`(?m)^  (\w+( \w+)?) [^\n]*\[flags\]$`).FindAllStringSubmatch(commands, -1) {
		_, out, _ := run(t, append(strings.Fields(command[1]), "--help")...)
		help.WriteString(out)
	}
	return help.String()
}

// variablesAreListed checks that internal/worker/variables.txt has all variables of
// flags, as workers warn about others.
func variablesAreListed(t *testing.T, help string) {
	t.Helper()
	var read []string
	for _, variable := range regexp.MustCompile(`\$(OONA_\w+)`).FindAllStringSubmatch(help, -1) {
		read = append(read, variable[1])
	}
	slices.Sort(read)
	read = slices.Compact(read)
	if listed := worker.Variables(); !slices.Equal(read, listed) {
		t.Errorf("flags have the variables\n%s\nwrite them into internal/worker/variables.txt, which has\n%s", strings.Join(read, "\n"), strings.Join(listed, "\n"))
	}
}

// foreignFlags are flags of other programs that the pages mention: of Prometheus
// and Kafka, and of go run ./bench.
var foreignFlags = []string{
	"enable-feature", "print-data-log", "files", "topic", "partition", "offset", "property", "delete-offsets",
	"peers", "rounds", "layers", "steps", "only",
}

// documentedFlagsExist checks that the flags in the documentation exist.
func documentedFlagsExist(t *testing.T, help string) {
	t.Helper()
	pages, err := filepath.Glob("../../docs/*.md")
	if err != nil || len(pages) == 0 {
		t.Fatalf("%d pages, %v", len(pages), err)
	}
	flag := regexp.MustCompile(`(?:^|[^\w-])--([a-z][a-z0-9-]+)`)
	known := foreignFlags
	for _, found := range flag.FindAllStringSubmatch(help, -1) {
		known = append(known, found[1])
	}
	for _, page := range append(pages, "../../README.md", "../../DESIGN.md") {
		text, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		for _, found := range flag.FindAllStringSubmatch(string(text), -1) {
			if !slices.Contains(known, found[1]) {
				t.Errorf("%s mentions --%s, which no program has", page, found[1])
			}
		}
	}
}

func TestCheckRefuses(t *testing.T) {
	for want, args := range map[string][]string{
		"nothing to check": {},
		"--offline and --read-log exclude each other": {"--ingest=-", "--offline", "--read-log"},
	} {
		if status, out, messages := run(t, append([]string{"check"}, args...)...); status != exitUsage || out != "" || !strings.Contains(messages, want) {
			t.Errorf("%v: status %d, %q, %q", args, status, out, messages)
		}
	}
	if status, _, messages := run(t, "check", "--offline", "--exporter=-", "--bin", t.TempDir()); status != exitFailed || !strings.Contains(messages, "fault: exporter without a file: the binary ") {
		t.Errorf("without binaries: status %d, %q", status, messages)
	}
}
