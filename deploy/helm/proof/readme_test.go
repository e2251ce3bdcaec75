package proof

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
)

const (
	tableBegins = "<!-- The table is generated from values.yaml by `make helm-golden`. -->\n"
	tableEnds   = "<!-- end of the table -->\n"
)

// The table of values in the chart's README is what values.yaml says, and each value there
// has a description.
func TestReadme(t *testing.T) {
	file := filepath.Join(chartDir, "README.md")
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, ok := strings.Cut(string(text), tableBegins)
	_, after, ends := strings.Cut(rest, tableEnds)
	if !ok || !ends {
		t.Fatalf("%s has no place for the table", file)
	}
	values, err := os.ReadFile(filepath.Join(chartDir, "values.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	var document yaml.Node
	if err := yaml.Unmarshal(values, &document); err != nil {
		t.Fatal(err)
	}
	var table strings.Builder
	table.WriteString("| value | default | description |\n|---|---|---|\n")
	rows(t, &table, "", document.Content[0])
	golden(t, file, []byte(before+tableBegins+table.String()+tableEnds+after))
}

// rows writes a row for each value that has a description. A mapping without one has rows
// for its values, and each of these needs one.
func rows(t *testing.T, table *strings.Builder, path string, mapping *yaml.Node) {
	t.Helper()
	for i := 0; i < len(mapping.Content); i += 2 {
		key, value := mapping.Content[i], mapping.Content[i+1]
		name := path + key.Value
		comment := description(key)
		if value.Kind == yaml.MappingNode && value.Style != yaml.FlowStyle {
			if comment != "" {
				fmt.Fprintf(table, "| `%s` | | %s |\n", name, comment)
			}
			if len(value.Content) > 0 && comment == "" || inner(value) {
				rows(t, table, name+".", value)
				continue
			}
		}
		if comment == "" {
			t.Errorf("values.yaml: %s has no description", name)
			continue
		}
		var plain any
		if err := value.Decode(&plain); err != nil {
			t.Fatal(err)
		}
		text, err := json.Marshal(plain)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(table, "| `%s` | `%s` | %s |\n", name, text, comment)
	}
}

// inner reports whether a mapping's values have descriptions.
func inner(mapping *yaml.Node) bool {
	for i := 0; i < len(mapping.Content); i += 2 {
		if description(mapping.Content[i]) != "" {
			return true
		}
	}
	return false
}

// description is the comment above a key. The comment at the beginning of values.yaml ends
// with an empty line, and is of no key.
func description(key *yaml.Node) string {
	paragraphs := strings.Split(key.HeadComment, "\n\n")
	var words []string
	for line := range strings.SplitSeq(paragraphs[len(paragraphs)-1], "\n") {
		words = append(words, strings.TrimSpace(strings.TrimPrefix(line, "#")))
	}
	return strings.ReplaceAll(strings.Join(words, " "), "|", `\|`)
}
