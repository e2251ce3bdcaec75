package catalogue

import (
	"errors"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/morphogenetic/oona"
)

func TestDefaultKnowsTheMetricsThatAreSent(t *testing.T) {
	c, err := Default()
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []oona.Metric{
		{Name: "reconstruction_loss", Group: oona.Health, Direction: oona.LowerIsBetter},
		{Name: "gradient_norm", Group: oona.Health, Direction: oona.Neutral},
		{Name: "activation_variance", Group: oona.Health, Direction: oona.Neutral},
		{Name: "dead_fraction", Group: oona.Health, Direction: oona.LowerIsBetter, Unit: "ratio"},
		{Name: "weight_norm", Group: oona.Health, Direction: oona.Neutral},
		{Name: "improvement", Group: oona.Performance, Direction: oona.HigherIsBetter},
		{Name: "blend", Group: oona.Performance, Direction: oona.Neutral, Unit: "ratio"},
		{Name: "compute_seconds", Group: oona.Performance, Direction: oona.LowerIsBetter, Unit: "seconds"},
	} {
		got := c.Metric(want.Name)
		if got.Help == "" {
			t.Errorf("%s has no help", want.Name)
		}
		got.Help = ""
		if got != want {
			t.Errorf("got %+v, want %+v", got, want)
		}
	}
	if h, p := len(c.Group(oona.Health)), len(c.Group(oona.Performance)); h != 5 || p != 3 {
		t.Errorf("%d health and %d performance metrics, want 5 and 3", h, p)
	}
}

func TestUnknownMetricIsKept(t *testing.T) {
	c, err := Default()
	if err != nil {
		t.Fatal(err)
	}
	if got, want := c.Metric("novel"), (oona.Metric{Name: "novel", Group: oona.Performance}); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

// load returns the built-in catalogue with the entries of a text.
func load(t *testing.T, text string) (*Catalogue, error) {
	t.Helper()
	c, err := Default()
	if err != nil {
		t.Fatal(err)
	}
	return c.With(strings.NewReader(text))
}

func TestLoadReplacesAndAdds(t *testing.T) {
	c, err := load(t, `
metrics:
  blend: {group: health}
  energy_joules:
    group: performance
    unit: joules
    direction: lower_is_better
    help: Energy of one batch.
`)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := c.Metric("blend"), (oona.Metric{Name: "blend", Group: oona.Health}); got != want {
		t.Errorf("replaced entry: got %+v, want %+v (nothing of the default's entry)", got, want)
	}
	want := oona.Metric{Name: "energy_joules", Group: oona.Performance, Unit: "joules", Direction: oona.LowerIsBetter, Help: "Energy of one batch."}
	if got := c.Metric("energy_joules"); got != want {
		t.Errorf("added entry: got %+v, want %+v", got, want)
	}
	if got := c.Metric("improvement").Direction; got != oona.HigherIsBetter {
		t.Errorf("an entry that was not named changed: direction %d", got)
	}
}

func TestLoadOfNothingIsTheDefault(t *testing.T) {
	c, err := load(t, "# nothing yet\n")
	if err != nil {
		t.Fatal(err)
	}
	if got := c.Metric("improvement").Direction; got != oona.HigherIsBetter {
		t.Errorf("direction %d", got)
	}
}

func TestLoadSaysWhatIsWrong(t *testing.T) {
	for name, c := range map[string]struct{ yaml, want string }{
		"unknown group":     {"metrics: {loss: {group: wealth}}", `"wealth"`},
		"no group":          {"metrics: {loss: {unit: ratio}}", "metric loss:"},
		"entry without key": {"metrics: {loss: }", "metric loss:"},
		"unknown direction": {"metrics: {loss: {group: health, direction: up}}", `"up"`},
		"unknown key":       {"metrics: {loss: {group: health, units: ratio}}", `"units"`},
		"unknown section":   {"metric: {loss: {group: health}}", "line 1"},
		"name":              {`metrics: {"a b": {group: health}}`, `metric name "a b"`},
		"twice":             {"metrics: {loss: {group: health}, loss: {group: health}}", `"loss"`},
		"second document":   {"metrics: {}\n---\nmetrics: {}", "document"},
		"not YAML":          {"metrics: [", "yaml:"},
		"nested":            {"metrics: {loss: {group: [health]}}", "line 1"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := load(t, c.yaml)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want an error with %q", err, c.want)
			}
		})
	}
}

// An error of the form shows no Go types.
func TestLoadOfAnotherForm(t *testing.T) {
	for _, text := range []string{"hi", "[a]", "metrics: 3", "metrics: {loss: health}", "metric: {}"} {
		if _, err := load(t, text); !errors.Is(err, errForm) || strings.Contains(err.Error(), "map[") || strings.Contains(err.Error(), "struct") {
			t.Errorf("%q: %v", text, err)
		}
	}
}

// Published catalogues never change, as logs name them by their hash. A new one gets a
// row here.
func TestBuiltInCataloguesStayAsTheyAre(t *testing.T) {
	want := map[string]string{
		"default.v1.yaml": "b40fe41f50f13133",
	}
	entries, err := files.ReadDir(".")
	if err != nil || len(entries) != len(want) || len(versions) != len(want) {
		t.Fatalf("%d files, %d versions, %v; want %d", len(entries), len(versions), err, len(want))
	}
	for _, file := range versions {
		c, err := builtIn(file)
		if err != nil {
			t.Fatal(err)
		}
		if got := c.Hash().String(); got != want[file] {
			t.Errorf("%s has the hash %s, and logs name it %s: put the change into a file of the next version", file, got, want[file])
		}
		if found, ok, err := BuiltIn(c.Hash()); err != nil || !ok || found.Hash() != c.Hash() {
			t.Errorf("%s is not found by its hash: %v, %v", file, ok, err)
		}
	}
}

func TestBuiltInOfLogsWithoutACatalogue(t *testing.T) {
	c, ok, err := BuiltIn(oona.CatalogueHash{})
	if err != nil || !ok || c.Hash().String() != "b40fe41f50f13133" {
		t.Errorf("%v, %v, %v; want the first", c, ok, err)
	}
	if _, ok, err := BuiltIn(oona.CatalogueHash{1}); ok || err != nil {
		t.Errorf("a hash that no file has: %v, %v", ok, err)
	}
}

// The hash does not depend on units and help.
func TestHashIsOfGroupAndDirection(t *testing.T) {
	hash := func(text string) oona.CatalogueHash {
		c, err := load(t, text)
		if err != nil {
			t.Fatal(err)
		}
		return c.Hash()
	}
	plain := hash("metrics: {loss: {group: health, direction: neutral}}")
	for text, same := range map[string]bool{
		"metrics: {loss: {group: health}}":                                 true,
		"metrics: {loss: {group: health, unit: ratio, help: A sentence.}}": true,
		"metrics: {loss: {group: performance}}":                            false,
		"metrics: {loss: {group: health, direction: lower_is_better}}":     false,
		"metrics: {Loss: {group: health}}":                                 false,
	} {
		if got := hash(text); (got == plain) != same {
			t.Errorf("%s has the hash %s, and without it is %s", text, got, plain)
		}
	}
}

// Parse reads what YAML writes, even if a name looks like a number or a boolean, and adds
// no entries of the built-in catalogue.
func TestYAMLIsReadBack(t *testing.T) {
	c, err := load(t, `
metrics:
  "1e5": {group: health, direction: higher_is_better}
  "true": {group: performance, unit: "007", help: "it says: # \"no\"\n'yes'"}
  "null": {group: performance, direction: neutral}
  blend: {group: health}
  "a:b": {group: health, unit: "~"}
`)
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]*Catalogue{"all kinds": c, "nothing": {}} {
		text, err := c.YAML()
		if err != nil {
			t.Fatal(err)
		}
		back, err := Parse(text)
		if err != nil || !maps.Equal(back.metrics, c.metrics) || back.Hash() != c.Hash() {
			t.Errorf("%s: read back is %v, %v, from\n%s", name, back, err, text)
		}
	}
}

func TestOverlay(t *testing.T) {
	path := filepath.Join(t.TempDir(), "metrics.yaml")
	if err := os.WriteFile(path, []byte("metrics: {loss: {group: health}}"), 0o644); err != nil {
		t.Fatal(err)
	}
	c, err := Open(path)
	if err != nil || c.Metric("loss").Group != oona.Health || c.Metric("improvement").Direction != oona.HigherIsBetter {
		t.Errorf("%v, %v", c, err)
	}
	below, err := Open("")
	if err != nil || below.Metric("loss").Group != oona.Performance {
		t.Errorf("the catalogue below has changed: %v, %v", below, err)
	}
	if _, err := Open(path + ".not"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a file that is not there: %v", err)
	}
}
