package compose

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/compose-spec/compose-go/v2/types"
	"gopkg.in/yaml.v3"

	"github.com/morphogenetic/oona/bus/kafka/embedded"
	s3 "github.com/morphogenetic/oona/claimcheck/embedded"
	"github.com/morphogenetic/oona/internal/address/addresstest"
)

// TestRuns runs the services of Oona as processes, with the commands of compose.yaml,
// against a broker and an S3 server in this process. Only addresses are replaced. Each
// health check must succeed, as `docker compose up --wait` asks, and frames must come
// through.
func TestRuns(t *testing.T) {
	project, bin := load(t), build(t)
	here := replaceAddresses(t, project)

	topics := project.Services["topics"]
	if out, err := command(t.Context(), bin, topics, here(topics.Command)...).CombinedOutput(); err != nil {
		t.Fatalf("topics: %v\n%s", err, out)
	}
	for _, name := range workers {
		service := project.Services[name]
		start(t, command(context.Background(), bin, service, here(service.Command)...))
	}
	for _, name := range workers {
		service := project.Services[name]
		check := here(service.HealthCheck.Test[2:]) // after CMD and the binary's path
		var out []byte
		var err error
		for deadline := time.Now().Add(60 * time.Second); time.Now().Before(deadline); time.Sleep(100 * time.Millisecond) {
			if out, err = command(t.Context(), bin, service, check...).CombinedOutput(); err == nil {
				break
			}
		}
		if err != nil {
			t.Fatalf("%s does not become healthy: %v\n%s", name, err, out)
		}
	}
	at := here([]string{"=:8080", "=:9103"})
	out, err := command(t.Context(), bin, topics, "smoke", "--ingest=http://"+at[0][1:], "--exporter=http://"+at[1][1:], "--timeout=60s").CombinedOutput()
	if err != nil {
		t.Errorf("oona smoke: %v\n%s", err, out)
	}
	t.Logf("%s", out)
}

// start runs a process until the end of the test, when it must stop on SIGTERM.
func start(t *testing.T, cmd *exec.Cmd) {
	t.Helper()
	var output bytes.Buffer
	cmd.Stdout, cmd.Stderr = &output, &output
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
			t.Errorf("stop %s: %v", cmd.Path, err)
		}
		if err := cmd.Wait(); err != nil {
			t.Errorf("%s: %v", cmd.Path, err)
		}
		if t.Failed() {
			t.Logf("%s said:\n%s", cmd.Path, output.Bytes())
		}
	})
}

// replaceAddresses starts a broker and an S3 server, and returns a function that puts
// their addresses, and free ports, into a command.
func replaceAddresses(t *testing.T, project *types.Project) func([]string) []string {
	t.Helper()
	broker, err := embedded.Start(t.Context(), embedded.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = broker.Close() })
	environment := project.Services["ingest"].Environment
	server, err := s3.Start(t.Context(), s3.Options{
		Directory: t.TempDir(), Bucket: "kasmina-tensors",
		AccessKeyID: *environment["AWS_ACCESS_KEY_ID"], SecretAccessKey: *environment["AWS_SECRET_ACCESS_KEY"],
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = server.Close() })

	pairs := []string{"kafka:9092", broker.Addrs[0], "http://objectstore:7070", server.URL}
	for _, port := range []string{"=:8080", "=:9101", "=:9102", "=:9103"} {
		pairs = append(pairs, port, fmt.Sprintf("=127.0.0.1:%d", addresstest.Port(t)))
	}
	replacer := strings.NewReplacer(pairs...)
	return func(args []string) []string {
		args = slices.Clone(args)
		for i := range args {
			args[i] = replacer.Replace(args[i])
		}
		return args
	}
}

func readYAML(t *testing.T, path string, into any) {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := yaml.Unmarshal(text, into); err != nil {
		t.Fatalf("%s: %v", path, err)
	}
}
