package ingest

import (
	"go/parser"
	"go/token"
	"path/filepath"
	"strings"
	"testing"
)

// Storing, publishing and the raw topic know nothing of HTTP.
func TestOnlyRequestsKnowHTTP(t *testing.T) {
	files, err := filepath.Glob("raw*.go")
	if err != nil {
		t.Fatal(err)
	}
	files = append(files, "sink.go", "budget.go", "probe.go", "tensors.go", "throttle.go")
	for _, name := range files {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		file, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.ImportsOnly)
		if err != nil {
			t.Error(err)
			continue
		}
		for _, path := range file.Imports {
			if path.Path.Value == `"net/http"` {
				t.Errorf("%s imports net/http", name)
			}
		}
	}
}
