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
	onlyWithoutRaceDetector(t)
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

	s := newTranscript(t, dir, "DIR", bin, "BIN", cfg.Brokers[0], "BROKER")
	s.note("With --offline, the bus is not used.")
	out := s.messages(append(good, "--offline")...)
	if strings.Count(out, "---\n# ") != 3 || !strings.Contains(out, "# aggregate "+filepath.Join(dir, "aggregate.yaml")+"\ndrain-timeout: 20s\n") || !strings.Contains(out, "window-length: 10s") {
		t.Errorf("offline: %s", out)
	}
	s.note("Each missing topic is a fault.")
	if out := s.messages(append(good, "--ingest", raw)...); strings.Count(out, "---\n# ") != 4 {
		t.Errorf("without topics: %s", out)
	}
	topics, err := oona.NewTopics("checked")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := kafka.New(cfg, nil).Apply(t.Context(), append(topics.Specs(2), topics.SettingsSpec())); err != nil {
		t.Fatal(err)
	}
	s.note("With the topics.")
	s.messages(good...)
	s.note("The records of an ingest exceed the limit of the topic.")
	s.messages(append(good, "--ingest", file("large.yaml", at+"max-message-bytes: 3000000\n"))...)
	s.note("All faults are named: of each file, and between files.")
	s.messages(append(good, "--aggregate", file("long.yaml", at+"window-length: 20s\n"), "--aggregate", file("wrong.yaml", at+"idle-horizon: 1s\n"),
		"--exporter", file("typo.yaml", at+"lookbak: 1h\n"), "--exporter", filepath.Join(dir, "absent.yaml"), "--ingest", file("other.yaml", "prefix: other\n"))...)
	offline := []string{"check", "--bin", bin, "--offline"}
	s.note("Each file is right by itself, but they disagree.")
	s.messages(append(offline, "--ingest", file("a.yaml", at+"instance: a\n"), "--ingest", file("b.yaml", at+"instance: a\n"),
		"--aggregate", file("slow.yaml", at+"window-length: 10m\n"), "--exporter", file("silent.yaml", at))...)
	s.note("A conflict on one host is a fault if the workers are on one host, and else a note.")
	pods := slices.Concat(offline, []string{"--aggregate", file("c.yaml", at+"admin-address: ':9100'\n"), "--exporter", file("d.yaml", at+"admin-address: ':9100'\n")})
	s.messages(pods...)
	s.messages(append(pods, "--one-host")...)
	s.note("Two ingests of the default name whose ports differ are assumed to be on one host.")
	s.messages(append(offline, "--ingest", file("ports.yaml", at), "--ingest", file("own.yaml", at+"listen: 127.0.0.1:8081\nadmin-address: 127.0.0.1:9111\n"))...)
	s.note("Errors with which a worker would not start.")
	s.messages(append(offline, "--ingest", file("port.yaml", "listen: 127.0.0.1:28080\nadmin-address: 127.0.0.1:28080\n"),
		"--ingest", file("listen.yaml", "listen: 12:30:45\n"), "--exporter", file("admin.yaml", "admin-address: nonsense\n"),
		"--aggregate", file("brokers.yaml", "brokers: '127.0.0.1:29192, b:99999'\n"), "--ingest", file("large.yaml", "max-message-bytes: 100000000\n"))...)
	s.note("The windows of the log hold, so it is no fault if the settings differ. But an exporter must fit the windows.")
	if status, _, messages := run(t, "topics", "apply", "--brokers", cfg.Brokers[0], "--prefix=checked", "--partitions=2", "--window-length=7s"); status != 0 {
		t.Fatal(messages)
	}
	short := []string{"check", "--bin", bin, "--exporter", file("short.yaml", at+"series-silent-after: 12s\n")}
	for _, flags := range [][]string{nil, {"--read-log"}} {
		s.messages(append(good, flags...)...)
		s.messages(append(short, flags...)...)
	}
	s.note("The settings topic has a configuration of a later version, in addition to another fault.")
	later := windows.Configuration{Config: windows.DefaultConfig()}.Record()
	later.Generation, later.Reducer = 2, windows.Reducer+1
	if err := settings.Write(t.Context(), kafka.New(cfg, nil), topics, settings.WindowsEntry(0, later)); err != nil {
		t.Fatal(err)
	}
	s.messages(append(good, "--ingest", filepath.Join(dir, "absent.yaml"))...)
	s.note("If the bus cannot be reached, it is a note and not a fault.")
	s.messages("check", "--bin", bin, "--ingest", file("nowhere.yaml", "brokers: ['127.0.0.1:1']\n"))
	s.note("Variables apply as for a worker: OONA_MAX_FRAMES=0.")
	t.Setenv("OONA_MAX_FRAMES", "0")
	s.messages(append(offline, "--ingest=-")...)
	s.golden("check-faults.txt")
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
	for _, command := range regexp.MustCompile(`(?m)^  ([\w-]+( [\w-]+)?) [^\n]*\[flags\]$`).FindAllStringSubmatch(commands, -1) {
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

// foreignFlags are flags of other programs that the pages mention by themselves: of
// Prometheus, Kafka, Helm, curl and Docker Compose, and of go run ./bench.
var foreignFlags = []string{
	"enable-feature", "query", "web", "profile", "print-data-log", "files", "topic", "partition", "offset", "property", "delete-offsets",
	"wait", "reuse-values", "cacert", "timeout", "peers", "rounds", "layers", "steps", "only", "hostile",
}

// foreignCommand matches commands of other programs, as lines and in the text, with the
// lines that continue them. acl is a function of docs/security.md that calls Kafka's.
var foreignCommand = regexp.MustCompile(`(?m)(?:^[ $]*|\x60)(?:helm|kubectl|curl|docker|systemctl|openssl|keytool|acl|(?:acl[(][)] [{] |bin/)?kafka-[a-z-]+[.]sh) (?:[^\x60\n\\]|\\\n|\\.)*`)

// documentedFlagsExist checks that the flags in the documentation exist.
func documentedFlagsExist(t *testing.T, help string) {
	t.Helper()
	pages, err := filepath.Glob("../../docs/*.md")
	if err != nil || len(pages) == 0 {
		t.Fatalf("%d pages, %v", len(pages), err)
	}
	flag := regexp.MustCompile(`(?:^|[^\w-])--([a-z][a-z0-9-]+)`)
	known := foreignFlags
	for _, found := range flag.FindAllStringSubmatch(strings.ReplaceAll(help, "--[no-]", "--"), -1) {
		known = append(known, found[1])
	}
	for _, page := range append(pages, "../../README.md", "../../DESIGN.md") {
		text, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		for _, found := range flag.FindAllStringSubmatch(foreignCommand.ReplaceAllString(string(text), ""), -1) {
			if !slices.Contains(known, found[1]) && !slices.Contains(known, strings.TrimPrefix(found[1], "no-")) {
				t.Errorf("%s mentions --%s, which no program has", page, found[1])
			}
		}
	}
}
