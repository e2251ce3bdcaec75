package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/internal/worker"
	"github.com/morphogenetic/oona/internal/worker/workertest"
)

func parse(t *testing.T, args ...string) (*config, string, error) {
	t.Helper()
	cfg := defaults()
	cfg.Ingest.Instance = "host" // the same on every machine
	var out bytes.Buffer
	_, err := worker.Parse(cfg, "ingest", description, args, &out)
	return cfg, out.String(), err
}

// Set OONA_UPDATE_GOLDEN=1 to rewrite the files.
func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if os.Getenv("OONA_UPDATE_GOLDEN") != "" {
		if err := os.MkdirAll("testdata", 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
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

func TestHelp(t *testing.T) {
	t.Setenv("COLUMNS", "100")
	_, help, err := parse(t, "-h")
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "help.txt", help)
}

func TestEffectiveConfiguration(t *testing.T) {
	_, effective, err := parse(t, "--check", "--brokers=a:9092,b:9092", "--max-frames=7")
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "effective.yaml", effective)
	path := filepath.Join(t.TempDir(), "ingest.yaml")
	if err := os.WriteFile(path, []byte(effective), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, again, err := parse(t, "--check", "--config", path); err != nil || again != effective {
		t.Errorf("read again it is\n%s\nerror %v", again, err)
	}
}

func TestDefaultsReachTheStage(t *testing.T) {
	cfg, _, err := parse(t)
	if err != nil {
		t.Fatal(err)
	}
	topics, err := oona.NewTopics(cfg.Prefix)
	if err != nil {
		t.Fatal(err)
	}
	want := defaults().Ingest
	want.Instance, want.Topic = "host", "kasmina.telemetry.seed.metrics"
	if got := cfg.stage(topics); got != want {
		t.Errorf("stage is %+v, want %+v", got, want)
	}
	checked := make(map[string]oona.TopicSpec)
	for _, spec := range cfg.checkedTopics(topics) {
		checked[spec.Name] = spec
	}
	if !checked[want.Topic].AppendTime || checked[want.Topic].LeastMessageBytes != want.MaxMessageBytes || len(checked) != 3 {
		t.Errorf("checked at the start: %+v", checked)
	}
	for _, name := range []string{topics.LayerHealth, topics.LayerPerformance} {
		if checked[name].PartitionsOf != want.Topic {
			t.Errorf("%s is not checked against the number of partitions of %s: %+v", name, want.Topic, checked)
		}
	}
	options := cfg.publisher(topics)
	if options.Pin != want.Topic {
		t.Errorf("pinned is %q", options.Pin)
	}
	if options.BatchBytes != want.MaxMessageBytes || options.MaxMessageBytes < oona.MaxSideBytes {
		t.Errorf("frames are put together to %d bytes, dead letters may have %d", options.BatchBytes, options.MaxMessageBytes)
	}
}

func TestConformance(t *testing.T) {
	workertest.Run(t, func(args ...string) (string, error) {
		_, output, err := parse(t, args...)
		return output, err
	})
}

func TestBadConfiguration(t *testing.T) {
	for flag, want := range map[string]string{
		"--instance=a b":                "--instance: has ' ' at position 1",
		"--raw-group=":                  "--raw-group: is empty",
		"--listen=":                     "--listen: is \"\"",
		"--listen=:9101":                "--admin-address: is 127.0.0.1:9101, and --listen is :9101",
		"--max-in-flight=0":             "--max-in-flight: is 0; give a value above 0",
		"--publish-timeout=30s":         "--drain-timeout: is 20s, too short for requests in progress; give at least 35s",
		"--compression=gzip":            `--compression must be one of "lz4","none"`,
		"--max-message-bytes=10":        "--max-message-bytes: is 10; give more than 1024",
		"--max-message-bytes=100000000": "--max-message-bytes: is 100000000; give 1024 to 67108864",
		// The same address, written differently.
		"--listen=[::ffff:127.0.0.1]:9101": "--admin-address: is 127.0.0.1:9101, and --listen is [::ffff:127.0.0.1]:9101",
		// The sums of these would overflow.
		"--max-body-bytes=9223372036854775807":         "--max-memory-bytes: is ",
		"--max-decompressed-bytes=3458764513820540927": "--max-memory-bytes: is ",
		"--publish-timeout=2562047h":                   "--publish-timeout: is 2562047h0m0s; give a time above 0 and at most 24h0m0s",
		"--clock-tolerance=0s":                         "--clock-tolerance: is 0s",
	} {
		if _, _, err := parse(t, flag); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: error is %v, want one with %q", flag, err, want)
		}
	}
	_, _, err := parse(t, "--tensor-store=directory", "--tensor-directory="+t.TempDir(), "--max-spool-bytes=1000")
	if err == nil || !strings.Contains(err.Error(), "--max-spool-bytes: is 1000, less than a tensor of --max-tensor-bytes") {
		t.Errorf("too little for one tensor: error is %v", err)
	}
	_, _, err = parse(t, "--check", "--tensor-store=directory", "--tensor-directory=config_test.go")
	if err == nil || !strings.Contains(err.Error(), "--tensor-directory: cannot be used: config_test.go") {
		t.Errorf("a file for a directory: error is %v", err)
	}
	_, _, err = parse(t, "--tensor-store=directory", "--tensor-directory="+t.TempDir(), "--max-tensor-requests=64")
	if err == nil || !strings.Contains(err.Error(), "--max-tensor-requests: is 64; give less than --max-in-flight") {
		t.Errorf("too little for requests without tensors: error is %v", err)
	}
}
