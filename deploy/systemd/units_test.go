package systemd

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// installed is the directory of the binaries in the units.
const installed = "/usr/lib/oona/"

// units are the units to verify, and the files that they come from.
var units = map[string]string{
	"oona-topics.service":    "oona-topics.service",
	"oona@ingest.service":    "oona@.service",
	"oona@aggregate.service": "oona@.service",
	"oona@exporter.service":  "oona@.service",
}

// workers are the workers that oona@.service can run.
var workers = []string{"ingest", "aggregate", "exporter"}

func needSystemd(t *testing.T) {
	t.Helper()
	if _, err := exec.LookPath("systemd-analyze"); err != nil {
		if os.Getenv("OONA_REQUIRE_SYSTEMD") != "" {
			t.Fatal(err)
		}
		t.Skip("there is no systemd-analyze, which comes with systemd")
	}
}

// install copies the units into a directory, with binaries that exist.
func install(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for _, name := range append([]string{"oona"}, workers...) {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("#!/bin/true\n"), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	for unit, file := range units {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		text = bytes.ReplaceAll(text, []byte(installed), []byte(dir+"/"))
		if err := os.WriteFile(filepath.Join(dir, unit), text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// For unknown keys, the program exits with 0, but names the unit.
func TestVerify(t *testing.T) {
	needSystemd(t)
	dir := install(t)
	for unit := range units {
		cmd := exec.CommandContext(t.Context(), "systemd-analyze", "verify", "--man=no", filepath.Join(dir, unit))
		cmd.Env = append(os.Environ(), "SYSTEMD_UNIT_PATH="+dir+":")
		out, err := cmd.CombinedOutput()
		if err != nil || bytes.Contains(out, []byte(unit)) {
			t.Errorf("%s: %v\n%s", unit, err, out)
		}
	}
}

// TestHardened fails if systemd finds the exposure of a unit to be 2.0 of 10 or more.
func TestHardened(t *testing.T) {
	needSystemd(t)
	root := t.TempDir()
	place := filepath.Join(root, "etc", "systemd", "system")
	if err := os.MkdirAll(place, 0o700); err != nil {
		t.Fatal(err)
	}
	for _, file := range units {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(place, file), text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for unit := range units {
		out, err := exec.CommandContext(t.Context(), "systemd-analyze", "security", "--no-pager", "--offline=true", "--root="+root, "--threshold=20", unit).CombinedOutput()
		if err != nil {
			t.Errorf("%s: %v\n%s", unit, err, out)
		}
	}
}

// Both units have the same restrictions.
func TestRestrictionsAreEqual(t *testing.T) {
	restrictions := func(file string) string {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		_, after, found := strings.Cut(string(text), "\nDynamicUser=")
		if !found {
			t.Fatalf("%s has no DynamicUser", file)
		}
		return after
	}
	if a, b := restrictions("oona@.service"), restrictions("oona-topics.service"); a != b {
		t.Errorf("after DynamicUser, oona@.service has\n%s\nand oona-topics.service\n%s", a, b)
	}
}

// The files of etc are valid, and the workers can run beside each other.
func TestSettings(t *testing.T) {
	bin := t.TempDir()
	if out, err := exec.CommandContext(t.Context(), "go", "build", "-C", "../..", "-o", bin+"/", "./cmd/...").CombinedOutput(); err != nil {
		t.Fatalf("build the binaries: %v\n%s", err, out)
	}
	for _, worker := range workers {
		out, err := exec.CommandContext(t.Context(), filepath.Join(bin, worker), "--check", "--config", filepath.Join("etc", worker+".yaml")).CombinedOutput()
		if err != nil {
			t.Errorf("%s: %v\n%s", worker, err, out)
		}
	}
	args := []string{"check", "--offline", "--one-host"}
	for _, worker := range workers {
		args = append(args, fmt.Sprintf("--%s=etc/%s.yaml", worker, worker))
	}
	if out, err := exec.CommandContext(t.Context(), filepath.Join(bin, "oona"), args...).CombinedOutput(); err != nil {
		t.Errorf("oona check: %v\n%s", err, out)
	}

	checkCredentials(t, bin)

	// Exit status 2 would mean that a setting is wrong; 1, that there is no broker.
	out, err := exec.CommandContext(t.Context(), filepath.Join(bin, "oona"), "topics", "apply", "--config=etc/topics.yaml", "--brokers=127.0.0.1:1").CombinedOutput()
	if failed, ok := errors.AsType[*exec.ExitError](err); !ok || failed.ExitCode() != 1 {
		t.Errorf("oona topics apply: %v\n%s", err, out)
	}
}

// checkCredentials checks that each credential of the workers' unit has the name of a
// flag for a file.
func checkCredentials(t *testing.T, bin string) {
	t.Helper()
	var flags strings.Builder
	for _, worker := range workers {
		out, err := exec.CommandContext(t.Context(), filepath.Join(bin, worker), "-h").Output()
		if err != nil {
			t.Fatal(err)
		}
		flags.Write(out)
	}
	unit, err := os.ReadFile("oona@.service")
	if err != nil {
		t.Fatal(err)
	}
	_, first, found := strings.Cut(string(unit), "LoadCredential=oona.")
	if !found {
		t.Fatal("the unit has no credentials")
	}
	for _, name := range strings.Split(first, "LoadCredential=oona.") {
		name, _, _ = strings.Cut(name, "\n")
		if !strings.Contains(flags.String(), " --"+name+"-file=") {
			t.Errorf("no worker has a flag --%s-file", name)
		}
	}
}
