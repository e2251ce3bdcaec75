package main

import (
	"strings"
	"testing"

	"github.com/morphogenetic/oona/schemas/registry/registrytest"
)

// Schemas are registered by the command for it only, and not beside others that they are
// not compatible with.
func TestRegistry(t *testing.T) {
	fake := registrytest.Start(t, "")
	do := func(want int, args ...string) (out, messages string) {
		t.Helper()
		status, out, messages := run(t, append([]string{"registry"}, append(args, "--registry-url="+fake.URL)...)...)
		if status != want {
			t.Fatalf("oona registry %v exits with %d: %s%s", args, status, out, messages)
		}
		return out, messages
	}
	do(exitFailed, "check")
	if out, _ := do(0, "register", "--dry-run"); strings.Count(out, "would register") != 6 {
		t.Errorf("a dry run says\n%s", out)
	}
	do(exitFailed, "check")
	if out, _ := do(0, "register"); strings.Count(out, "FULL_TRANSITIVE") != 6 {
		t.Errorf("register says\n%s", out)
	}
	do(0, "check")

	fake.Register("other.telemetry.seed.raw-value", `{"type":"record","name":"Order","fields":[]}`)
	_, messages := do(exitFailed, "register", "--prefix=other")
	if !strings.Contains(messages, "other.telemetry.seed.raw-value") {
		t.Errorf("the message does not name the subject: %s", messages)
	}
	if out, _ := do(exitFailed, "check", "--prefix=other"); strings.Count(out, "FULL_TRANSITIVE") != 5 {
		t.Errorf("the other subjects were not registered:\n%s", out)
	}
}

func TestRegistrySettings(t *testing.T) {
	for _, args := range [][]string{
		{"registry", "check"},
		{"registry", "register", "--registry-url=http://r", "--prefix=a", "--to-prefix=a"},
		{"registry", "mirror", "--registry-url=http://r", "--mirror-group="},
	} {
		if status, _, messages := run(t, args...); status != exitUsage {
			t.Errorf("%v exits with %d: %s", args, status, messages)
		}
	}
}
