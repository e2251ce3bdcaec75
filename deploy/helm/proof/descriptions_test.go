package proof

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
)

// The schema describes each value with the words of values.yaml, for editors.
func TestSchemaDescribes(t *testing.T) {
	file := filepath.Join(chartDir, "values.schema.json")
	schema, values := parseYAML(t, file), parseYAML(t, filepath.Join(chartDir, "values.yaml"))
	describe(schema, values)
	golden(t, file, []byte(encode(t, schema, "")+"\n"))
}

// parseYAML returns the root of a file of YAML or JSON.
func parseYAML(t *testing.T, file string) *yaml.Node {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var document yaml.Node
	if err := yaml.Unmarshal(text, &document); err != nil {
		t.Fatal(err)
	}
	return document.Content[0]
}

// describe gives the schema of each value the description of the value.
func describe(schema, values *yaml.Node) {
	properties := field(schema, "properties")
	if properties == nil || values.Kind != yaml.MappingNode {
		return
	}
	for i := 0; i < len(values.Content); i += 2 {
		key, value := values.Content[i], values.Content[i+1]
		child := field(properties, key.Value)
		if child == nil {
			continue // TestSchemaHasAllKeys reports it
		}
		remove(child, "description")
		if text := description(key); text != "" {
			child.Content = append(child.Content, scalar("description"), scalar(strings.ReplaceAll(text, `\|`, "|")))
		}
		describe(child, value)
	}
}

func scalar(s string) *yaml.Node { return &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: s} }

func field(mapping *yaml.Node, key string) *yaml.Node {
	for i := 0; i < len(mapping.Content); i += 2 {
		if mapping.Content[i].Value == key {
			return mapping.Content[i+1]
		}
	}
	return nil
}

func remove(mapping *yaml.Node, key string) {
	for i := 0; i < len(mapping.Content); i += 2 {
		if mapping.Content[i].Value == key {
			mapping.Content = append(mapping.Content[:i:i], mapping.Content[i+2:]...)
			return
		}
	}
}

// encode returns JSON with the keys in their order. What fits is on one line.
func encode(t *testing.T, n *yaml.Node, indent string) string {
	t.Helper()
	const width = 120
	if line := oneLine(t, n); n.Kind != yaml.MappingNode || len(indent)+len(line) < width {
		return line
	}
	var entries []string
	for i := 0; i < len(n.Content); i += 2 {
		entries = append(entries, indent+"  "+oneLine(t, n.Content[i])+": "+encode(t, n.Content[i+1], indent+"  "))
	}
	return "{\n" + strings.Join(entries, ",\n") + "\n" + indent + "}"
}

func oneLine(t *testing.T, n *yaml.Node) string {
	t.Helper()
	var entries []string
	switch n.Kind {
	case yaml.MappingNode:
		for i := 0; i < len(n.Content); i += 2 {
			entries = append(entries, oneLine(t, n.Content[i])+": "+oneLine(t, n.Content[i+1]))
		}
		return "{" + strings.Join(entries, ", ") + "}"
	case yaml.SequenceNode:
		for _, element := range n.Content {
			entries = append(entries, oneLine(t, element))
		}
		return "[" + strings.Join(entries, ", ") + "]"
	}
	var value any
	if err := n.Decode(&value); err != nil {
		t.Fatal(err)
	}
	var text strings.Builder
	encoder := json.NewEncoder(&text)
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(value); err != nil {
		t.Fatal(err)
	}
	return strings.TrimSuffix(text.String(), "\n")
}
