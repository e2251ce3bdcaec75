package catalogue

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/morphogenetic/oona"
)

// The table of metrics in docs/metrics.md agrees with the newest built-in catalogue.
func TestDocumentedMetrics(t *testing.T) {
	page, err := os.ReadFile("../../docs/metrics.md")
	if err != nil {
		t.Fatal(err)
	}
	_, section, _ := strings.Cut(string(page), "### Known metrics\n")
	section, _, _ = strings.Cut(section, "\n## ")
	c, err := Default()
	if err != nil {
		t.Fatal(err)
	}
	groupName := map[oona.Group]string{oona.Health: "health", oona.Performance: "performance"}
	directionName := map[oona.Direction]string{oona.HigherIsBetter: "higher is better", oona.LowerIsBetter: "lower is better", oona.Neutral: "neutral"}
	known := 0
	for group, name := range groupName {
		for _, m := range c.Group(group) {
			known++
			row := fmt.Sprintf("| %#q | %s | %s | %s | %s |", m.Name, name, directionName[m.Direction], m.Unit, m.Help)
			if row = strings.ReplaceAll(row, "|  |", "| |"); !strings.Contains(section, row+"\n") {
				t.Errorf("docs/metrics.md has no row %s", row)
			}
		}
	}
	if rows := strings.Count(section, "\n| `"); rows != known {
		t.Errorf("docs/metrics.md has %d metrics, the catalogue %d", rows, known)
	}
}
