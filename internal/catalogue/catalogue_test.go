package catalogue

import (
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

func TestLoadReplacesAndAdds(t *testing.T) {
	c, err := Load(strings.NewReader(`
metrics:
  blend: {group: health}
  energy_joules:
    group: performance
    unit: joules
    direction: lower_is_better
    help: Energy of one batch.
`))
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
	c, err := Load(strings.NewReader("# nothing yet\n"))
	if err != nil {
		t.Fatal(err)
	}
	if got := c.Metric("improvement").Direction; got != oona.HigherIsBetter {
		t.Errorf("direction %d", got)
	}
}

func TestLoadSaysWhatIsWrong(t *testing.T) {
	for name, c := range map[string]struct{ yaml, want string }{
		"unknown group":     {"metrics: {loss: {group: wealth}}", `metric loss: unknown group "wealth"; groups are health, performance`},
		"no group":          {"metrics: {loss: {unit: ratio}}", "metric loss: no group; give one of health, performance"},
		"entry without key": {"metrics: {loss: }", "metric loss: no group"},
		"unknown direction": {"metrics: {loss: {group: health, direction: up}}", `metric loss: unknown direction "up"; directions are higher_is_better, lower_is_better, neutral`},
		"unknown key":       {"metrics: {loss: {group: health, units: ratio}}", `metric loss: unknown key "units"`},
		"unknown section":   {"metric: {loss: {group: health}}", "field metric not found"},
		"name":              {`metrics: {"a b": {group: health}}`, `metric name "a b"`},
		"twice":             {"metrics: {loss: {group: health}, loss: {group: health}}", `"loss" already defined`},
		"second document":   {"metrics: {}\n---\nmetrics: {}", "second YAML document"},
		"not YAML":          {"metrics: [", "yaml:"},
		"nested":            {"metrics: {loss: {group: [health]}}", "line 1"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := Load(strings.NewReader(c.yaml))
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want an error with %q", err, c.want)
			}
		})
	}
}
