package oona

import (
	"fmt"
	"os"
	"strings"
	"testing"
)

// The table of states in docs/protocol.md agrees with the code.
func TestDocumentedStates(t *testing.T) {
	page, err := os.ReadFile("docs/protocol.md")
	if err != nil {
		t.Fatal(err)
	}
	for s := State(0); s.Valid(); s++ {
		if row := fmt.Sprintf("| %d | %s |", s, s.String()); !strings.Contains(string(page), row) {
			t.Errorf("docs/protocol.md has no %q", row)
		}
	}
	if n := strings.Count(string(page), "ROLLED_BACK |"); n != 1 || StateCount != 11 {
		t.Errorf("%d tables of %d states", n, StateCount)
	}
}
