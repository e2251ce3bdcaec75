// Package catalogue describes metrics: their group, unit, direction and meaning. The
// built-in catalogues are files with a version. A YAML file of the same form can replace
// entries and add others.
//
// The content of rollups depends on groups and directions. So a log names its catalogue
// by a hash of these, and published files never change: see [BuiltIn].
package catalogue

import (
	"bytes"
	"embed"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"

	"gopkg.in/yaml.v3"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/verdict"
)

//go:embed default.v*.yaml
var files embed.FS

// versions are the files of the built-in catalogues, oldest first.
var versions = []string{"default.v1.yaml"}

// Catalogue has the metrics by name. It is immutable and safe for concurrent use.
type Catalogue struct {
	metrics map[string]oona.Metric
	rules   map[string]verdict.Rule // of metrics that are judged, or have verdict: none
}

// Default returns the newest built-in catalogue.
func Default() (*Catalogue, error) { return builtIn(versions[len(versions)-1]) }

// BuiltIn returns the built-in catalogue with the hash, or false. For the zero hash, of
// logs that name no catalogue, it returns the oldest.
func BuiltIn(hash oona.CatalogueHash) (*Catalogue, bool, error) {
	for _, file := range versions {
		c, err := builtIn(file)
		if err != nil {
			return nil, false, err
		}
		if hash == (oona.CatalogueHash{}) || c.Hash() == hash {
			return c, true, nil
		}
	}
	return nil, false, nil
}

func builtIn(file string) (*Catalogue, error) {
	text, err := files.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("embedded metric catalogue: %w", err)
	}
	c, err := Parse(text)
	if err != nil {
		return nil, fmt.Errorf("embedded metric catalogue %s: %w", file, err)
	}
	return c, nil
}

// Parse parses a whole catalogue in the form of [Catalogue.YAML]. Unlike Open, it adds
// no entries of a built-in catalogue.
func Parse(text []byte) (*Catalogue, error) {
	c, err := read(text)
	if err != nil {
		return nil, err
	}
	return c, c.complete()
}

// Open returns the newest built-in catalogue with the entries of the file at path. If
// path is empty, it returns the built-in one.
func Open(path string) (*Catalogue, error) {
	c, err := Default()
	if err != nil {
		return nil, err
	}
	return c.Overlay(path)
}

// Overlay returns c with the entries of the file at path. If path is empty, it returns c.
func (c *Catalogue) Overlay(path string) (*Catalogue, error) {
	if path == "" {
		return c, nil
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("open the metric catalogue: %w", err)
	}
	defer f.Close()
	over, err := c.With(f)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return over, nil
}

// With returns c with the entries of r. An entry of r replaces the whole entry of c with
// the same name. Errors name the metric.
func (c *Catalogue) With(r io.Reader) (*Catalogue, error) {
	text, err := io.ReadAll(r)
	if err != nil {
		return nil, fmt.Errorf("metric catalogue: %w", err)
	}
	own, err := Parse(text)
	if err != nil {
		return nil, fmt.Errorf("metric catalogue: %w", err)
	}
	over := &Catalogue{maps.Clone(c.metrics), maps.Clone(c.rules)}
	for name := range own.metrics {
		delete(over.rules, name)
	}
	maps.Copy(over.metrics, own.metrics)
	maps.Copy(over.rules, own.rules)
	return over, nil
}

// Hash returns the hash of the catalogue's groups and directions.
func (c *Catalogue) Hash() oona.CatalogueHash {
	return oona.HashCatalogue(slices.Collect(maps.Values(c.metrics)))
}

// YAML returns the whole catalogue in the form that Parse reads. It has a rule only
// where that differs from the built-in one, as programs of before there were rules
// refuse the key.
func (c *Catalogue) YAML() ([]byte, error) {
	known, err := builtInRules()
	if err != nil {
		return nil, err
	}
	entries := make(map[string]map[string]any, len(c.metrics))
	for name, m := range c.metrics {
		entry := map[string]any{"group": m.Group.String()}
		if r := c.rules[name]; r != known[name] {
			entry["verdict"] = ruleYAML(r)
		}
		for word, d := range directions {
			if d == m.Direction {
				entry["direction"] = word
			}
		}
		if m.Unit != "" {
			entry["unit"] = m.Unit
		}
		if m.Help != "" {
			entry["help"] = m.Help
		}
		entries[name] = entry
	}
	text, err := yaml.Marshal(map[string]any{"metrics": entries})
	if err != nil {
		return nil, fmt.Errorf("write a metric catalogue: %w", err)
	}
	return text, nil
}

// Metric returns the entry of a metric. An unknown metric belongs to the performance
// group and is neutral.
func (c *Catalogue) Metric(name string) oona.Metric {
	if m, ok := c.metrics[name]; ok {
		return m
	}
	return oona.Metric{Name: name, Group: oona.Performance, Direction: oona.Neutral}
}

// Group returns the metrics of a group, ascending by name.
func (c *Catalogue) Group(g oona.Group) []oona.Metric {
	var of []oona.Metric
	for _, name := range slices.Sorted(maps.Keys(c.metrics)) {
		if m := c.metrics[name]; m.Group == g {
			of = append(of, m)
		}
	}
	return of
}

// read parses one YAML document. A document without content has no metrics.
func read(text []byte) (*Catalogue, error) {
	var document struct {
		Metrics map[string]map[string]yaml.Node `yaml:"metrics"`
	}
	decoder := yaml.NewDecoder(bytes.NewReader(text))
	decoder.KnownFields(true)
	if err := decoder.Decode(&document); err != nil && !errors.Is(err, io.EOF) {
		return nil, formError(err)
	}
	if err := decoder.Decode(new(yaml.Node)); err == nil {
		return nil, errors.New("a second YAML document follows the first; put all metrics into one")
	} else if !errors.Is(err, io.EOF) {
		return nil, err
	}
	c := &Catalogue{make(map[string]oona.Metric, len(document.Metrics)), make(map[string]verdict.Rule)}
	// Sorted, so that the same file always gives the same error.
	for _, name := range slices.Sorted(maps.Keys(document.Metrics)) {
		if err := c.add(name, document.Metrics[name]); err != nil {
			return nil, err
		}
	}
	return c, nil
}

// add converts an entry and adds it. Its key verdict may be missing.
func (c *Catalogue) add(name string, entry map[string]yaml.Node) error {
	if node, ok := entry["verdict"]; ok {
		rule, err := parseRule(&node)
		if err != nil {
			return fmt.Errorf("metric %s: verdict: %w; %w", name, formError(err), errRule)
		}
		c.rules[name] = rule
		delete(entry, "verdict")
	}
	values := make(map[string]string, len(entry))
	for key, node := range entry {
		var value string
		if err := node.Decode(&value); err != nil {
			return formError(err)
		}
		values[key] = value
	}
	m, err := metric(name, values)
	c.metrics[name] = m
	return err
}

// formError replaces an error of the YAML package that shows the types of this package.
func formError(err error) error {
	form, ok := errors.AsType[*yaml.TypeError](err)
	if !ok || len(form.Errors) == 0 {
		return err
	}
	line, fault, _ := strings.Cut(form.Errors[0], ": ")
	fault, _, _ = strings.Cut(fault, " in type ")
	if strings.HasPrefix(fault, "cannot unmarshal") {
		fault = "the form is wrong"
	}
	return fmt.Errorf("%s: %s; %w", line, fault, errForm)
}

// errForm is wrapped if the file is YAML, but not a catalogue.
var errForm = errors.New("a catalogue is, for example, metrics: {loss: {group: performance, unit: nats}}")

var groups = map[string]oona.Group{
	oona.Health.String():      oona.Health,
	oona.Performance.String(): oona.Performance,
}

var directions = map[string]oona.Direction{
	"neutral":          oona.Neutral,
	"higher_is_better": oona.HigherIsBetter,
	"lower_is_better":  oona.LowerIsBetter,
}

// metric converts an entry. It must have a group. The default direction is neutral.
func metric(name string, entry map[string]string) (oona.Metric, error) {
	if err := oona.CheckID("metrics", name); err != nil {
		return oona.Metric{}, fmt.Errorf("metric name %q: %w", name, err)
	}
	m := oona.Metric{Name: name}
	if _, ok := entry["group"]; !ok {
		return m, fmt.Errorf("metric %s: no group; give one of %s", name, choices(groups))
	}
	for _, key := range slices.Sorted(maps.Keys(entry)) {
		value := entry[key]
		var known bool
		switch key {
		case "group":
			m.Group, known = groups[value]
			if !known {
				return m, fmt.Errorf("metric %s: unknown group %q; groups are %s", name, value, choices(groups))
			}
		case "direction":
			m.Direction, known = directions[value]
			if !known {
				return m, fmt.Errorf("metric %s: unknown direction %q; directions are %s", name, value, choices(directions))
			}
		case "unit":
			m.Unit = value
		case "help":
			m.Help = strings.TrimSpace(value)
		default:
			return m, fmt.Errorf("metric %s: unknown key %q; keys are group, unit, direction, help and verdict", name, key)
		}
	}
	return m, nil
}

func choices[V any](of map[string]V) string {
	return strings.Join(slices.Sorted(maps.Keys(of)), ", ")
}
