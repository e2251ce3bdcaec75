package lint

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// otherKeys are keys of log lines that have another name. With one key for each thing,
// all lines about it are found under that key.
var otherKeys = map[string]string{
	"error":           "err",
	"such_so_far":     "count",
	"as_often_before": "suppressed",
	"skipped":         "suppressed",
}

// logging are the names of functions whose arguments, after the text, are keys
// and values.
var logging = map[string]bool{"Debug": true, "Info": true, "Warn": true, "Error": true, "Log": true, "With": true, "warn": true}

// logKeyViolations returns the keys of log lines in a source file that have another
// name.
func logKeyViolations(file *ast.File) (violations []string) {
	ast.Inspect(file, func(n ast.Node) bool {
		call, ok := n.(*ast.CallExpr)
		if !ok {
			return true
		}
		selector, ok := call.Fun.(*ast.SelectorExpr)
		if !ok || !logging[selector.Sel.Name] {
			return true
		}
		for _, arg := range call.Args {
			literal, ok := arg.(*ast.BasicLit)
			if !ok || literal.Kind != token.STRING {
				continue
			}
			key, err := strconv.Unquote(literal.Value)
			if better := otherKeys[key]; err == nil && better != "" {
				violations = append(violations, "a log line has the key "+key+"; use "+better)
			}
		}
		return true
	})
	return violations
}

func TestLogKeys(t *testing.T) {
	bad, err := parser.ParseFile(token.NewFileSet(), "bad.go", `package p
func f() { logger.Warn("a text", "error", err); s.warn("error", "count", 1, "such_so_far", 2) }`, 0)
	if err != nil {
		t.Fatal(err)
	}
	if found := logKeyViolations(bad); len(found) != 3 {
		t.Fatalf("of a bad file: %q", found)
	}
	files := 0
	err = fs.WalkDir(os.DirFS("../.."), ".", func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && strings.HasPrefix(d.Name(), ".") && path != ".":
			return filepath.SkipDir
		case d.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go"):
			return nil
		}
		file, err := parser.ParseFile(token.NewFileSet(), "../../"+path, nil, 0)
		if err != nil {
			return err
		}
		files++
		for _, v := range logKeyViolations(file) {
			t.Errorf("%s: %s", path, v)
		}
		return nil
	})
	if err != nil || files < 100 {
		t.Fatalf("%d files: %v", files, err)
	}
}
