package lint

import (
	"fmt"
	"go/ast"
	"go/importer"
	"go/parser"
	"go/token"
	"go/types"
	"slices"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/tools/go/packages"
)

// purePackages are packages whose results depend on the log alone, or on the rollups.
var purePackages = []string{module + "/logtime", module + "/windows", module + "/windows/reduce", module + "/verdict"}

// pureImports are the packages that they may import. None reads a file, the network or
// the environment. (Package time is needed for durations; reading the clock is forbidden
// by impure. The processor's features select among loops with equal results, which tests
// check bit by bit.)
var pureImports = []string{
	module, module + "/logtime", module + "/windows/reduce", processorFeatures,
	"cmp", "container/heap", "container/list", "container/ring", "encoding/base64", "encoding/binary", "errors", "fmt", "hash", "hash/crc32", "hash/fnv",
	"iter", "maps", "math", "math/bits", "slices", "sort", "strconv", "strings", "time", "unsafe",
}

// impure are functions of pureImports that make a result depend on when or where it is
// computed.
var impure = map[string]string{
	"time.Now": "reads the clock", "time.Since": "reads the clock", "time.Until": "reads the clock",
	"time.Sleep": "waits", "time.After": "waits", "time.AfterFunc": "waits", "time.Tick": "waits",
	"time.NewTimer": "waits", "time.NewTicker": "waits", "time.LoadLocation": "reads files",
	"math.FMA":  "rounds once where other processors round twice",
	"fmt.Print": "writes", "fmt.Println": "writes", "fmt.Printf": "writes", "fmt.Fprint": "writes", "fmt.Fprintf": "writes", "fmt.Fprintln": "writes",
}

// purityViolations returns the uses of imports, functions and statements because of which
// rollups would depend on something other than the log.
func purityViolations(fset *token.FileSet, files []*ast.File, info *types.Info) (violations []string) {
	report := func(n ast.Node, format string, args ...any) {
		violations = append(violations, fset.Position(n.Pos()).String()+": "+fmt.Sprintf(format, args...))
	}
	for _, file := range files {
		for _, spec := range file.Imports {
			if path, err := strconv.Unquote(spec.Path.Value); err != nil || !slices.Contains(pureImports, path) {
				report(spec, "imports %s, which is not among the pure", spec.Path.Value)
			}
		}
		ast.Inspect(file, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.GoStmt:
				report(n, "starts a goroutine")
			case *ast.SelectStmt:
				report(n, "selects: what comes first depends on the scheduler")
			case *ast.Ident:
				if f, ok := info.Uses[n].(*types.Func); ok && f.Pkg() != nil {
					if why, bad := impure[f.Pkg().Path()+"."+f.Name()]; bad && f.Signature().Recv() == nil {
						report(n, "%s.%s %s", f.Pkg().Name(), f.Name(), why)
					}
				}
			case *ast.BinaryExpr:
				if (n.Op == token.ADD || n.Op == token.SUB) && (isFloatProduct(n.X, info) || isFloatProduct(n.Y, info)) {
					report(n, "a product and a sum that a compiler may fuse; write float64(x*y) + z")
				}
			case *ast.AssignStmt:
				if (n.Tok == token.ADD_ASSIGN || n.Tok == token.SUB_ASSIGN) && isFloatProduct(n.Rhs[0], info) {
					report(n, "a product and a sum that a compiler may fuse; write z += float64(x*y)")
				}
			}
			return true
		})
	}
	return violations
}

// isFloatProduct reports whether e is x*y in floating point, without a conversion that
// rounds it, and not a constant.
func isFloatProduct(e ast.Expr, info *types.Info) bool {
	product, ok := ast.Unparen(e).(*ast.BinaryExpr)
	if !ok || product.Op != token.MUL {
		return false
	}
	tv := info.Types[product]
	basic, ok := tv.Type.Underlying().(*types.Basic)
	return ok && basic.Info()&types.IsFloat != 0 && tv.Value == nil
}

func TestPurePackages(t *testing.T) {
	loaded, err := packages.Load(&packages.Config{
		Context: t.Context(),
		Mode:    packages.NeedName | packages.NeedImports | packages.NeedTypes | packages.NeedSyntax | packages.NeedTypesInfo,
	}, purePackages...)
	if err != nil {
		t.Fatal(err)
	}
	if len(loaded) != len(purePackages) {
		t.Errorf("%d packages are in the tree, want %d", len(loaded), len(purePackages))
	}
	for _, p := range loaded {
		for _, err := range p.Errors {
			t.Fatalf("%s: %v", p.PkgPath, err)
		}
		if len(p.Syntax) == 0 {
			t.Errorf("%s has no files, so nothing was checked", p.PkgPath)
		}
		for _, v := range purityViolations(p.Fset, p.Syntax, p.TypesInfo) {
			t.Error(v)
		}
	}
}

func TestPurityRules(t *testing.T) {
	for _, tt := range []struct {
		name, source, want string // want: within the one violation; empty: none
	}{
		{"clock", "import \"time\"\nfunc f() time.Time { return time.Now() }", "time.Now reads the clock"},
		{"clock by another name", "import t \"time\"\nvar now = t.Now", "time.Now reads the clock"},
		{"since", "import \"time\"\nfunc f(t time.Time) time.Duration { return time.Since(t) }", "time.Since reads the clock"},
		{"timer", "import \"time\"\nvar c = time.After(1)", "time.After waits"},
		{"a duration, and After of a time", "import \"time\"\nfunc f(t, u time.Time) bool { return t.Add(time.Second).After(u) }", ""},
		{"goroutine", "func f() { go f() }", "starts a goroutine"},
		{"select", "func f(c chan int) { select { case <-c: default: } }", "selects"},
		{"files", "import _ \"os\"", `imports "os"`},
		{"network", "import _ \"net/http\"", `imports "net/http"`},
		{"log", "import _ \"log/slog\"", `imports "log/slog"`},
		{"context", "import _ \"context\"", `imports "context"`},
		{"locks", "import _ \"sync\"", `imports "sync"`},
		{"chance", "import _ \"math/rand/v2\"", `imports "math/rand/v2"`},
		{"output", "import \"fmt\"\nfunc f() { fmt.Println() }", "fmt.Println writes"},
		{"text", "import \"fmt\"\nvar s = fmt.Sprint(1)", ""},
		{"FMA", "import \"math\"\nvar x = math.FMA(1, 2, 3)", "math.FMA rounds once"},
		{"fused sum", "func f(x, y, z float64) float64 { return x*y + z }", "may fuse"},
		{"fused difference", "func f(x, y, z float32) float32 { return z - (x * y) }", "may fuse"},
		{"fused assignment", "func f(x, y, z float64) float64 { z += x * y; return z }", "may fuse"},
		{"rounded sum", "func f(x, y, z float64) float64 { z += float64(x * y); return float64(x*y) + z }", ""},
		{"whole numbers", "func f(x, y, z int64) int64 { return x*y + z }", ""},
		{"constants", "const x = 2.5\nvar z = x*x + 1", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			fset := token.NewFileSet()
			file, err := parser.ParseFile(fset, "fixture.go", "package fixture\n"+tt.source, parser.SkipObjectResolution)
			if err != nil {
				t.Fatal(err)
			}
			info := &types.Info{Types: map[ast.Expr]types.TypeAndValue{}, Uses: map[*ast.Ident]types.Object{}}
			config := types.Config{Importer: importer.ForCompiler(fset, "gc", nil)}
			if _, err := config.Check("fixture", fset, []*ast.File{file}, info); err != nil {
				t.Fatal(err)
			}
			got := purityViolations(fset, []*ast.File{file}, info)
			if tt.want == "" {
				if len(got) != 0 {
					t.Errorf("violations %q, want none", got)
				}
				return
			}
			if len(got) != 1 || !strings.Contains(got[0], tt.want) {
				t.Errorf("violations %q, want one with %q", got, tt.want)
			}
		})
	}
}
