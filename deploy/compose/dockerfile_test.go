package compose

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	"github.com/moby/buildkit/frontend/dockerfile/parser"
)

// dockerfile parses the Dockerfile and returns its stages.
func dockerfile(t *testing.T) []instructions.Stage {
	t.Helper()
	text, err := os.ReadFile("../../Dockerfile")
	if err != nil {
		t.Fatal(err)
	}
	file, err := parser.Parse(bytes.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	stages, _, err := instructions.Parse(file.AST, nil)
	if err != nil {
		t.Fatal(err)
	}
	return stages
}

// Images of the Dockerfile run as the images of deploy/image do.
func TestDockerfileHasTheSameUser(t *testing.T) {
	stages := dockerfile(t)
	var user string
	var env, entrypoint []string
	for _, command := range stages[len(stages)-1].Commands {
		switch c := command.(type) {
		case *instructions.UserCommand:
			user = c.User
		case *instructions.EnvCommand:
			for _, pair := range c.Env {
				env = append(env, pair.String())
			}
		case *instructions.EntrypointCommand:
			entrypoint = c.CmdLine
		}
	}
	if user != "65532:65532" || !slices.Equal(entrypoint, []string{"/entrypoint"}) ||
		!slices.Equal(env, []string{"PATH=/ko-app", "SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt"}) {
		t.Errorf("the user is %q, the entry point %q, the environment %q", user, entrypoint, env)
	}
}

// The commands of the Dockerfile that build a binary do so, and stamp it.
func TestDockerfileBuilds(t *testing.T) {
	var script string
	for _, command := range dockerfile(t)[0].Commands {
		if run, ok := command.(*instructions.RunCommand); ok {
			script = strings.Join(run.CmdLine, " ") // of the last RUN
		}
	}
	out := t.TempDir()
	script = strings.NewReplacer("GOCACHE=/cache", "", "/out", out).Replace(script)
	run := func(binary string) ([]byte, error) {
		cmd := exec.CommandContext(t.Context(), "sh", "-euc", script)
		cmd.Dir = "../.."
		cmd.Env = append(os.Environ(), "BINARY="+binary, "VERSION=1.2.3", "REVISION=0123abcd", "TARGETOS="+runtime.GOOS, "TARGETARCH="+runtime.GOARCH)
		return cmd.CombinedOutput()
	}
	if said, err := run(""); err == nil || !bytes.Contains(said, []byte("BINARY")) {
		t.Errorf("without BINARY: %v\n%s", err, said)
	}
	if said, err := run("exporter"); err != nil {
		t.Fatalf("build: %v\n%s\n%s", err, script, said)
	}
	if link, err := os.Readlink(filepath.Join(out, "entrypoint")); link != "/ko-app/exporter" {
		t.Errorf("the entry point is %q (%v)", link, err)
	}
	said, err := exec.CommandContext(t.Context(), filepath.Join(out, "ko-app", "exporter"), "--version").CombinedOutput()
	if err != nil || !strings.HasPrefix(string(said), "exporter 1.2.3 0123abcd go") {
		t.Errorf("--version says %q (%v)", said, err)
	}
}
