package aggregate

import (
	"errors"
	"os"
	"regexp"
	"testing"

	"github.com/morphogenetic/oona/windows"
)

// docs/operations.md quotes the errors for a refused partition, and says what to do.
func TestRefusalsAreDocumented(t *testing.T) {
	page, err := os.ReadFile("../../docs/operations.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, refusal := range append([]error{ErrUpgrade}, final...) {
		if errors.Is(refusal, windows.ErrCommit) {
			continue // ErrCommitText says it
		}
		said := regexp.MustCompile(`[:;]| than this worker`).Split(refusal.Error(), 2)[0]
		if !regexp.MustCompile(`(?m)^\|([^|]*;)? ` + regexp.QuoteMeta(said) + `( \||;)`).Match(page) {
			t.Errorf("docs/operations.md has no row for %q", refusal)
		}
	}
}
