package proof

import (
	"flag"
	"fmt"
	"io"
	"log"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

const (
	chartDir   = "../oona"
	repository = "../../.."
)

var update = flag.Bool("update", false, "write the golden files and the generated part of the chart's README")

// binaries is the directory of the programs that the chart's containers run.
var binaries string

func TestMain(m *testing.M) {
	flag.Parse()
	log.SetOutput(io.Discard) // Helm logs that the chart's alerts are a symbolic link
	os.Exit(run(m))
}

func run(m *testing.M) int {
	dir, err := os.MkdirTemp("", "oona-helm-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	binaries = dir
	build := exec.Command("go", "build", "-o", dir+string(filepath.Separator), "./cmd/...")
	build.Dir = repository
	if out, err := build.CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "building the programs: %v\n%s", err, out)
		return 1
	}
	return m.Run()
}
