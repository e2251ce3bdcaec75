package catalogue

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/morphogenetic/oona"
)

// The catalogue in docs/protocol.md can be parsed, and has every key.
func TestDocumentedCatalogue(t *testing.T) {
	page, err := os.ReadFile("../../docs/protocol.md")
	if err != nil {
		t.Fatal(err)
	}
	_, section, _ := strings.Cut(string(page), "### Catalogues\n")
	_, text, _ := strings.Cut(section, "```yaml\n")
	text, _, _ = strings.Cut(text, "```")
	c, err := Parse([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	want := oona.Metric{Name: "energy_joules", Group: oona.Performance, Unit: "joules", Direction: oona.LowerIsBetter, Help: "Energy of one batch."}
	if got := c.Metric(want.Name); got != want || !c.Rule(want.Name).Judged {
		t.Errorf("the example is %+v, judged: %v; want %+v", got, c.Rule(want.Name).Judged, want)
	}
}

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
