package catalogue

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"

	"gopkg.in/yaml.v3"

	"github.com/morphogenetic/oona/verdict"
)

// none is the value of verdict: for a metric that is not judged.
const none = "none"

var levels = map[string]verdict.Side{
	verdict.Up.String():   verdict.Up,
	verdict.Down.String(): verdict.Down,
	verdict.Both.String(): verdict.Both,
}

// Defaults of keys that need a value. Critical is this many times warn.
const (
	defaultWarn     = 2
	defaultCritical = 5
)

// ruleKeys are the keys below verdict:.
var ruleKeys = map[string]func(value string, r *verdict.Rule) bool{
	"level": func(value string, r *verdict.Rule) (known bool) {
		r.Level, known = levels[value]
		return known
	},
	"warn":    func(value string, r *verdict.Rule) bool { return parseMultiple(value, &r.Warn) },
	"outlier": func(value string, r *verdict.Rule) bool { return parseMultiple(value, &r.Outlier) },
	"critical": func(value string, r *verdict.Rule) bool {
		return value == "never" || parseMultiple(value, &r.Critical)
	},
	"due": func(value string, r *verdict.Rule) bool {
		r.Due = value == "active"
		return r.Due
	},
	"dead":  func(value string, r *verdict.Rule) bool { return parseFlag(value, &r.Dead) },
	"best":  func(value string, r *verdict.Rule) bool { return parseFlag(value, &r.Best) },
	"drift": func(value string, r *verdict.Rule) bool { return parseFlag(value, &r.Drift) },
	"stuck": func(value string, r *verdict.Rule) bool { return parseFlag(value, &r.Stuck) },
}

// ruleValues describe the values of ruleKeys.
var ruleValues = map[string]string{
	"level":    "up, down or both",
	"warn":     "a multiple of the usual median, for example 2",
	"critical": "a multiple of the usual median, for example 10, or never",
	"outlier":  "a multiple of the usual distance to the median, for example 16",
	"due":      "active",
	"dead":     "true or false", "best": "true or false", "drift": "true or false", "stuck": "true or false",
}

func parseMultiple(value string, to *float64) bool {
	x, err := strconv.ParseFloat(value, 64)
	*to = x
	return err == nil && x != 0
}

func parseFlag(value string, to *bool) bool {
	*to = value == "true"
	return *to || value == "false"
}

// parseRule converts the value of verdict:. Errors name the key.
func parseRule(node *yaml.Node) (verdict.Rule, error) {
	var word string
	if node.Kind == yaml.ScalarNode && node.Decode(&word) == nil && word == none {
		return verdict.Rule{}, nil
	}
	var keys map[string]string
	if node.Kind != yaml.MappingNode {
		return verdict.Rule{}, fmt.Errorf("line %d: is %q; give %s, or keys as in {level: up, warn: 2}", node.Line, node.Value, none)
	}
	if err := node.Decode(&keys); err != nil {
		return verdict.Rule{}, err
	}
	r := verdict.Rule{Judged: true}
	for _, key := range slices.Sorted(maps.Keys(keys)) {
		set, ok := ruleKeys[key]
		if !ok {
			return r, fmt.Errorf("unknown key %q; keys are %s", key, choices(ruleKeys))
		}
		if !set(keys[key], &r) {
			return r, fmt.Errorf("%s is %q; give %s", key, keys[key], ruleValues[key])
		}
	}
	if _, given := keys["warn"]; !given && r.Level != verdict.NoSide {
		r.Warn = defaultWarn
	}
	if _, given := keys["critical"]; !given && r.Level != verdict.NoSide {
		r.Critical = defaultCritical * r.Warn
	}
	return r, r.Validate()
}

// ruleYAML is the inverse of parseRule.
func ruleYAML(r verdict.Rule) any {
	if !r.Judged {
		return none
	}
	keys := map[string]any{}
	if r.Level != verdict.NoSide {
		keys["level"], keys["warn"], keys["critical"] = r.Level.String(), r.Warn, r.Critical
		if r.Critical == 0 {
			keys["critical"] = "never"
		}
	}
	if r.Outlier != 0 {
		keys["outlier"] = r.Outlier
	}
	if r.Due {
		keys["due"] = "active"
	}
	for key, on := range map[string]bool{"dead": r.Dead, "best": r.Best, "drift": r.Drift, "stuck": r.Stuck} {
		if on {
			keys[key] = true
		}
	}
	return keys
}

// Rule returns what is judged of a metric. An entry without verdict: has the rule of the
// newest built-in catalogue for its name. Nothing is judged of an unknown metric.
func (c *Catalogue) Rule(name string) verdict.Rule { return c.rules[name] }

// builtInRules returns the rules of the newest built-in catalogue.
func builtInRules() (map[string]verdict.Rule, error) {
	text, err := files.ReadFile(versions[len(versions)-1])
	if err != nil {
		return nil, fmt.Errorf("embedded metric catalogue: %w", err)
	}
	c, err := read(text)
	if err != nil {
		return nil, fmt.Errorf("embedded metric catalogue: %w", err)
	}
	return c.rules, nil
}

// complete adds the built-in rules of the metrics that have none.
func (c *Catalogue) complete() error {
	known, err := builtInRules()
	if err != nil {
		return err
	}
	for name := range c.metrics {
		if _, own := c.rules[name]; own {
			continue
		}
		if r, ok := known[name]; ok {
			c.rules[name] = r
		}
	}
	return nil
}

var errRule = errors.New("docs/verdict.md describes the keys")
