package export_test

import (
	"fmt"
	"io"
	"log/slog"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/morphogenetic/oona/internal/catalogue"
	"github.com/morphogenetic/oona/internal/worker/workertest"
	"github.com/morphogenetic/oona/pipeline/export"
	"github.com/morphogenetic/oona/verdict"
)

// documentedSeries are the names in the first column of docs/metrics.md, of the
// layers and of the exporter, written out.
func documentedSeries(page string) (all []string) {
	cells := regexp.MustCompile("(?m)^\\| `((?:oona_exporter|kasmina_layer|kasmina_run)[^|]*)")
	series := regexp.MustCompile("`(\\w+)(?:{([a-z,]+)}(\\w*))?")
	for _, cell := range cells.FindAllString(page, -1) {
		prefix := "oona_exporter"
		for _, of := range []string{"kasmina_layer", "kasmina_run"} {
			if strings.Contains(cell, of) {
				prefix = of
			}
		}
		if strings.Contains(cell, "GROUP") {
			prefix += "_GROUP"
		}
		for _, found := range series.FindAllStringSubmatch(cell, -1) {
			name := found[1]
			if strings.HasPrefix(name, "_") {
				name = prefix + name
			}
			names := []string{name}
			if strings.HasSuffix(name, "_") { // else what is in braces are labels
				names = nil
				for part := range strings.SplitSeq(found[2], ",") {
					names = append(names, name+part+found[3])
				}
			}
			for _, n := range names {
				all = append(all, strings.Replace(n, "GROUP", "health", 1), strings.Replace(n, "GROUP", "performance", 1))
			}
		}
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// The levels of a verdict, and the kinds of its reasons, are explained.
func TestVerdictsAreDocumented(t *testing.T) {
	pages := map[string]string{}
	for _, name := range []string{"metrics.md", "operations.md"} {
		page, err := os.ReadFile("../../docs/" + name)
		if err != nil {
			t.Fatal(err)
		}
		pages[name] = string(page)
	}
	for level := verdict.OK; level <= verdict.Critical; level++ {
		if text := fmt.Sprintf("%d: %s", level, level); !strings.Contains(pages["metrics.md"], text) {
			t.Errorf("docs/metrics.md does not say %s", text)
		}
	}
	_, network, _ := strings.Cut(pages["operations.md"], "## The network\n")
	for _, kind := range verdict.Kinds() {
		if !strings.Contains(network, "`"+kind.String()+"`") {
			t.Errorf("docs/operations.md says nothing of the kind %s", kind)
		}
	}
}

// The rows of docs/metrics.md about layers and the exporter name the series that
// there are.
func TestMetricsAreDocumented(t *testing.T) {
	page, err := os.ReadFile("../../docs/metrics.md")
	if err != nil {
		t.Fatal(err)
	}
	known, err := catalogue.Default()
	if err != nil {
		t.Fatal(err)
	}
	d := workertest.NewSeries()
	if _, err := export.New(export.DefaultConfig(), newTape(t, 1).reader, known, d, slog.New(slog.NewTextHandler(io.Discard, nil))); err != nil {
		t.Fatal(err)
	}
	if _, err := export.NewTransitions(export.DefaultConfig(), d, slog.New(slog.DiscardHandler)); err != nil {
		t.Fatal(err)
	}
	names := d.Names()
	if documented := documentedSeries(string(page)); !slices.Equal(documented, names) {
		t.Errorf("docs/metrics.md has\n%s\nand the exporter has\n%s", strings.Join(documented, "\n"), strings.Join(names, "\n"))
	}
}
