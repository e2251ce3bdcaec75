package lint

import (
	"go/parser"
	"go/token"
	"path/filepath"
	"strings"
	"testing"
)

// withoutHTTP are the files that both HTTP and the raw topic use, or neither. What a refusal means to
// an HTTP client is decided in pipeline/ingest/problem.go.
var withoutHTTP = []string{
	"intake/*.go", "forward/*.go", "spool/*.go", "spool/*/*.go", "deadletters/*.go",
	"pipeline/ingest/sink.go", "pipeline/ingest/raw*.go", "pipeline/ingest/publish.go", "pipeline/ingest/event_topics.go",
	"pipeline/ingest/storing.go", "pipeline/ingest/schemas.go", "pipeline/ingest/spool.go",
}

func TestNoHTTP(t *testing.T) {
	for _, pattern := range withoutHTTP {
		names, err := filepath.Glob(filepath.Join("..", "..", filepath.FromSlash(pattern)))
		if err != nil || len(names) == 0 {
			t.Errorf("%s: no files, %v", pattern, err)
		}
		for _, name := range names {
			if strings.HasSuffix(name, "_test.go") {
				continue
			}
			file, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.ImportsOnly)
			if err != nil {
				t.Fatal(err)
			}
			for _, imported := range file.Imports {
				if path := strings.Trim(imported.Path.Value, `"`); path == "net/http" || strings.HasPrefix(path, "net/http/") {
					t.Errorf("%s imports %s", name, path)
				}
			}
		}
	}
}
