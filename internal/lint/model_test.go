package lint

import (
	"fmt"
	"go/types"
	"slices"
	"testing"

	"golang.org/x/tools/go/packages"
)

// sharedCode returns the uses of functions and variables of a package. Types and
// constants may be used.
func sharedCode(of string, info *types.Info) (violations []string) {
	for use, object := range info.Uses {
		if object.Pkg() == nil || object.Pkg().Path() != of {
			continue
		}
		switch o := object.(type) {
		case *types.TypeName, *types.Const:
			continue
		case *types.Var:
			if o.IsField() {
				continue
			}
		}
		violations = append(violations, fmt.Sprintf("%s.%s is used", of, use.Name))
	}
	slices.Sort(violations)
	return violations
}

// TestModelSharesNoCode checks that the model of the engine uses nothing of package
// windows but types and constants. If they shared code, no test would find an error
// in it.
func TestModelSharesNoCode(t *testing.T) {
	loaded, err := packages.Load(&packages.Config{
		Context: t.Context(),
		Mode:    packages.NeedName | packages.NeedImports | packages.NeedTypes | packages.NeedSyntax | packages.NeedTypesInfo | packages.NeedDeps,
	}, module+"/windows/model", module+"/internal/demo")
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range loaded {
		for _, err := range p.Errors {
			t.Fatalf("%s: %v", p.PkgPath, err)
		}
		if len(p.Syntax) == 0 {
			t.Fatalf("%s has no files, so nothing was checked", p.PkgPath)
		}
		got := sharedCode(module+"/windows", p.TypesInfo)
		if p.PkgPath == module+"/windows/model" {
			for _, v := range got {
				t.Error(v)
			}
		} else if !slices.Contains(got, module+"/windows.DefaultConfig is used") {
			t.Errorf("package demo uses windows.DefaultConfig, and these were found: %q", got)
		}
	}
}
