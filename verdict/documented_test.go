package verdict_test

import (
	"os"
	"strings"
	"testing"

	"github.com/morphogenetic/oona/verdict"
)

// docs/verdict.md says for each kind what it means and what to do, in the order of Kinds.
func TestDocumentedKinds(t *testing.T) {
	page, err := os.ReadFile("../docs/verdict.md")
	if err != nil {
		t.Fatal(err)
	}
	rest := string(page)
	for _, k := range verdict.Kinds() {
		_, after, ok := strings.Cut(rest, "`"+k.String()+"`")
		if !ok {
			t.Fatalf("docs/verdict.md has no %v after the kind before it", k)
		}
		rest = after
	}
}

func TestNames(t *testing.T) {
	names := map[string]bool{}
	for _, k := range verdict.Kinds() {
		names[k.String()] = true
	}
	if len(names) != len(verdict.Kinds()) || names[""] {
		t.Errorf("%v", names)
	}
	for l, want := range map[verdict.Level]string{verdict.OK: "ok", verdict.Warning: "warning", verdict.Critical: "critical", 7: "Level(7)"} {
		if l.String() != want {
			t.Errorf("%q, want %q", l, want)
		}
	}
	if got := verdict.Kind(99).String(); got != "Kind(99)" {
		t.Errorf("%q", got)
	}
}
