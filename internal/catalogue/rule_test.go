package catalogue

import (
	"errors"
	"maps"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/verdict"
)

func TestBuiltInRules(t *testing.T) {
	c, err := Default()
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]verdict.Rule{
		"reconstruction_loss": {Judged: true, Level: verdict.Up, Warn: 2, Critical: 10, Best: true, Stuck: true},
		"gradient_norm":       {Judged: true, Level: verdict.Both, Warn: 2, Critical: 10, Due: true, Outlier: 16, Drift: true, Stuck: true},
		"activation_variance": {Judged: true, Level: verdict.Both, Warn: 4, Critical: 32},
		"weight_norm":         {Judged: true, Level: verdict.Both, Warn: 2, Critical: 10},
		"dead_fraction":       {Judged: true, Dead: true},
		"compute_seconds":     {Judged: true, Level: verdict.Up, Warn: 2},
		"improvement":         {Judged: true},
		"blend":               {Judged: true},
		"unknown":             {},
	} {
		if got := c.Rule(name); got != want {
			t.Errorf("%s: %+v, want %+v", name, got, want)
		}
	}
}

// An entry has its own rule, or the built-in one for its name.
func TestOwnRules(t *testing.T) {
	c, err := load(t, `
metrics:
  blend: {group: health, verdict: {level: down, warn: 4, outlier: 8}}
  gradient_norm: {group: health}
  weight_norm: {group: health, verdict: none}
  perplexity: {group: health, verdict: {level: up, critical: never}}
  energy: {group: health}
`)
	if err != nil {
		t.Fatal(err)
	}
	builtIn, err := Default()
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]verdict.Rule{
		"blend":         {Judged: true, Level: verdict.Down, Warn: 4, Critical: 20, Outlier: 8},
		"gradient_norm": builtIn.Rule("gradient_norm"),
		"weight_norm":   {},
		"perplexity":    {Judged: true, Level: verdict.Up, Warn: 2},
		"energy":        {},
		"improvement":   builtIn.Rule("improvement"),
	} {
		if got := c.Rule(name); got != want {
			t.Errorf("%s: %+v, want %+v", name, got, want)
		}
	}
	text, err := c.YAML()
	if err != nil {
		t.Fatal(err)
	}
	back, err := Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	if rules := func(c *Catalogue) map[string]verdict.Rule {
		judged := maps.Clone(c.rules)
		maps.DeleteFunc(judged, func(_ string, r verdict.Rule) bool { return !r.Judged })
		return judged
	}; !maps.Equal(rules(back), rules(c)) {
		t.Errorf("read back are %+v, want %+v, from\n%s", back.rules, c.rules, text)
	}
}

// Rules are for readers. So they change no hash, and a catalogue with built-in rules only
// is written without them, for programs that do not know them.
func TestRulesAreNotInTheHash(t *testing.T) {
	plain, err := load(t, "metrics: {loss: {group: health}}")
	if err != nil {
		t.Fatal(err)
	}
	own, err := load(t, "metrics: {loss: {group: health, verdict: {level: up}}}")
	if err != nil {
		t.Fatal(err)
	}
	if plain.Hash() != own.Hash() {
		t.Errorf("%s with a rule, %s without", own.Hash(), plain.Hash())
	}
	for c, want := range map[*Catalogue]bool{plain: false, own: true} {
		text, err := c.YAML()
		if err != nil || strings.Contains(string(text), "verdict") != want {
			t.Errorf("%v; the text has rules: %v, want %v:\n%s", err, !want, want, text)
		}
	}
	if first, _, err := BuiltIn(oona.FirstCatalogue); err != nil || first.Hash() != oona.FirstCatalogue {
		t.Errorf("the first catalogue is %v, %v", first, err)
	}
}

func TestWrongRules(t *testing.T) {
	for name, tt := range map[string]struct{ rule, key string }{
		"word":              {"some", "verdict"},
		"list":              {"[level]", "verdict"},
		"unknown key":       {"{levels: up}", `"levels"`},
		"level":             {"{level: sideways}", "level"},
		"warn":              {"{level: up, warn: much}", "warn"},
		"warn not a number": {"{level: up, warn: NaN}", "warn"},
		"warn of nothing":   {"{level: up, warn: 0}", "warn"},
		"warn below 1":      {"{level: up, warn: 0.5}", "warn"},
		"critical":          {"{level: up, critical: 1.5}", "critical"},
		"infinite":          {"{level: up, critical: inf}", "critical"},
		"without level":     {"{warn: 2}", "warn"},
		"best, no level":    {"{best: true}", "best"},
		"outlier, no level": {"{outlier: 16}", "outlier"},
		"outlier":           {"{level: up, outlier: yes}", "outlier"},
		"due":               {"{due: always}", "due"},
		"flag":              {"{stuck: 1}", "stuck"},
		"nested":            {"{level: {up: 2}}", "line 1"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := load(t, "metrics: {loss: {group: health, verdict: "+tt.rule+"}}")
			if !errors.Is(err, errRule) || !strings.Contains(err.Error(), "metric loss:") || !strings.Contains(err.Error(), tt.key) {
				t.Errorf("%v; want an error that names metric loss and %s", err, tt.key)
			}
		})
	}
}

// The tables of docs/verdict.md have the built-in rules and all keys.
func TestDocumentedRules(t *testing.T) {
	page, err := os.ReadFile("../../docs/verdict.md")
	if err != nil {
		t.Fatal(err)
	}
	c, err := Default()
	if err != nil {
		t.Fatal(err)
	}
	documented := map[string]verdict.Rule{}
	for _, row := range regexp.MustCompile("(?m)^\\| ((?:`[a-z_]+`(?:, )?)+) \\| `(\\{.*\\})`").FindAllStringSubmatch(string(page), -1) {
		for _, name := range strings.Split(strings.ReplaceAll(row[1], "`", ""), ", ") {
			own, err := load(t, "metrics: {"+name+": {group: health, verdict: "+row[2]+"}}")
			if err != nil {
				t.Fatal(err)
			}
			documented[name] = own.Rule(name)
		}
	}
	if !maps.Equal(documented, c.rules) {
		t.Errorf("docs/verdict.md has the rules %+v, and the catalogue has %+v", documented, c.rules)
	}
	for key := range ruleKeys {
		if !strings.Contains(string(page), "\n| `"+key+"` | ") {
			t.Errorf("docs/verdict.md has no row for the key %s", key)
		}
	}
}
