package simulate

import (
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/scanner"
	"go/token"
	"go/types"
	"maps"
	"os"
	"path"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"

	"golang.org/x/tools/imports"
)

// An edit replaces one piece of code in a function. The piece is found in the syntax
// tree, so comments, formatting and the names of locals make no difference.
type edit struct {
	// in names the function and its package: "(e *windows.Engine) Fold(r)". It lists
	// the parameters, from the first one on, that find or put use.
	in string
	// find is an expression, an assignment or a return statement. It must match exactly
	// once in the function. Names of fields and methods, and names that the package
	// imports or declares at its top level, must be the same in the source. A name that
	// begins with an underscore stands for any expression. Any other name stands for
	// a local variable, which may have another name in the source. An assignment also matches
	// one of the pairs of an assignment like a, b = c, d.
	find string
	// put replaces the code. If it is empty, the code is removed. The names in find and in
	// stand for the code that they have matched.
	put string
}

var (
	errNotFound  = errors.New("not found")
	errAmbiguous = errors.New("found more than once")
)

// packageDirs has the directories of the packages that edits may change.
var packageDirs = map[string]string{"windows": "../../windows", "reduce": "../../windows/reduce", "logtime": "../../logtime"}

// mutate returns the source files that the edits change, by their path.
func mutate(edits []edit) (map[string][]byte, error) {
	changes := map[string][]change{}
	for _, e := range edits {
		c, err := e.locate()
		if err != nil {
			return nil, fmt.Errorf("in %s, %s: %w", e.in, e.find, err)
		}
		changes[c.path] = append(changes[c.path], c)
	}
	sources := map[string][]byte{}
	for path, list := range changes {
		source, err := os.ReadFile(path)
		if err != nil {
			return nil, err
		}
		slices.SortFunc(list, func(a, b change) int { return b.from - a.from }) // the last change first, so that the positions of the others stay valid
		for i, c := range list {
			if i > 0 && c.to > list[i-1].from {
				return nil, fmt.Errorf("%s: two edits are of the same code: %w", path, errAmbiguous)
			}
			source = slices.Concat(source[:c.from], []byte(c.text), source[c.to:])
		}
		if sources[path], err = imports.Process(path, source, nil); err != nil { // an edit may need an import, or make one unused
			return nil, err
		}
	}
	return sources, nil
}

// change replaces the bytes from one position of a file to another.
type change struct {
	path     string
	from, to int
	text     string
}

// locate finds the code of an edit, and returns the change.
func (e edit) locate() (change, error) {
	address := regexp.MustCompile(`^(?:\((\w+) \*?(\w+)\.(\w+)\) |(\w+)\.)(\w+)\(([\w, ]*)\)$`).FindStringSubmatch(e.in)
	if address == nil {
		return change{}, fmt.Errorf("not the address of a function: %w", errNotFound)
	}
	pkg, err := parsePackage(packageDirs[address[2]+address[4]])
	if err != nil {
		return change{}, err
	}
	fn, err := pkg.function(address[3], address[5])
	if err != nil {
		return change{}, err
	}
	given := map[string]string{}
	if fn.Recv != nil {
		given[address[1]] = fn.Recv.List[0].Names[0].Name
	}
	var parameters []string
	for _, field := range fn.Type.Params.List {
		for _, name := range field.Names {
			parameters = append(parameters, name.Name)
		}
	}
	for i, name := range strings.FieldsFunc(address[6], func(r rune) bool { return r == ',' || r == ' ' }) {
		if i >= len(parameters) {
			return change{}, fmt.Errorf("parameter %s: %w", name, errNotFound)
		}
		given[name] = parameters[i]
	}
	found, err := pkg.find(fn, e.find, given)
	if err != nil {
		return change{}, err
	}
	return found.replace(e.put)
}

// parsedPackage is the syntax of a package without its tests.
type parsedPackage struct {
	fset    *token.FileSet
	sources map[string][]byte // source files by path
	files   []*ast.File
	names   map[string]bool // names that its files import or declare at the top level
}

func parsePackage(dir string) (*parsedPackage, error) {
	paths, err := filepath.Glob(filepath.Join(dir, "*.go"))
	if err != nil {
		return nil, err
	}
	p := &parsedPackage{fset: token.NewFileSet(), sources: map[string][]byte{}, names: map[string]bool{}}
	for _, name := range paths {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		if p.sources[name], err = os.ReadFile(name); err != nil {
			return nil, err
		}
		file, err := parser.ParseFile(p.fset, name, p.sources[name], parser.SkipObjectResolution)
		if err != nil {
			return nil, err
		}
		p.files = append(p.files, file)
		for _, d := range file.Decls {
			p.declare(d)
		}
	}
	return p, nil
}

// declare adds the names of an import or a declaration.
func (p *parsedPackage) declare(d ast.Decl) {
	switch d := d.(type) {
	case *ast.FuncDecl:
		if d.Recv == nil {
			p.names[d.Name.Name] = true
		}
	case *ast.GenDecl:
		for _, spec := range d.Specs {
			switch spec := spec.(type) {
			case *ast.ImportSpec:
				p.names[path.Base(strings.Trim(spec.Path.Value, `"`))] = true
			case *ast.TypeSpec:
				p.names[spec.Name.Name] = true
			case *ast.ValueSpec:
				for _, name := range spec.Names {
					p.names[name.Name] = true
				}
			}
		}
	}
}

// function returns the function with a name, or the method if the type of a receiver is given.
func (p *parsedPackage) function(receiver, name string) (*ast.FuncDecl, error) {
	var found []*ast.FuncDecl
	for _, file := range p.files {
		for _, d := range file.Decls {
			fn, ok := d.(*ast.FuncDecl)
			if !ok || fn.Name.Name != name || (fn.Recv != nil) != (receiver != "") {
				continue
			}
			if fn.Recv == nil || strings.TrimPrefix(p.text(fn.Recv.List[0].Type), "*") == receiver {
				found = append(found, fn)
			}
		}
	}
	return the("the function", found)
}

// the returns the only element of found. It returns an error if there are more or none.
func the[T any](what string, found []T) (one T, err error) {
	switch len(found) {
	case 0:
		return one, fmt.Errorf("%s: %w", what, errNotFound)
	case 1:
		return found[0], nil
	}
	return one, fmt.Errorf("%s: %w: %d times", what, errAmbiguous, len(found))
}

func (p *parsedPackage) text(n ast.Node) string {
	file := p.fset.File(n.Pos())
	return string(p.sources[file.Name()][file.Offset(n.Pos()):file.Offset(n.End())])
}

// isLocal reports whether a name is only declared in functions.
func (p *parsedPackage) isLocal(name string) bool {
	return !p.names[name] && types.Universe.Lookup(name) == nil
}

// find returns the place at which a pattern matches in a function. given maps names of the pattern to
// the receiver and the parameters of the function.
func (p *parsedPackage) find(fn *ast.FuncDecl, pattern string, given map[string]string) (*match, error) {
	want, _, err := parseStatement(pattern)
	if err != nil {
		return nil, err
	}
	pair, _ := want.(*ast.AssignStmt)
	var found []*match
	ast.Inspect(fn, func(n ast.Node) bool {
		if n == nil {
			return true
		}
		if m := (&match{pkg: p, node: n, pair: -1, bound: maps.Clone(given)}); m.matches(want, n) {
			found = append(found, m)
			return true
		}
		if a, ok := n.(*ast.AssignStmt); ok && pair != nil && a.Tok == pair.Tok && len(pair.Lhs) == 1 && len(a.Lhs) == len(a.Rhs) {
			for i := range a.Lhs {
				if m := (&match{pkg: p, node: n, pair: i, bound: maps.Clone(given)}); m.matches(pair.Lhs[0], a.Lhs[i]) && m.matches(pair.Rhs[0], a.Rhs[i]) {
					found = append(found, m)
				}
			}
		}
		return true
	})
	return the("the code", found)
}

// parseStatement parses an expression or a statement. It also returns the position of its beginning in
// the source from which it was parsed.
func parseStatement(text string) (ast.Node, token.Pos, error) {
	const before = "package p; func _() {"
	file, err := parser.ParseFile(token.NewFileSet(), "", before+text+"\n}", parser.SkipObjectResolution)
	if err != nil {
		return nil, 0, err
	}
	begin := file.FileStart + token.Pos(len(before))
	statement, err := the("the statement of a pattern", file.Decls[0].(*ast.FuncDecl).Body.List)
	if e, ok := statement.(*ast.ExprStmt); ok {
		return e.X, begin, err
	}
	return statement, begin, err
}

// match is code that a pattern matches.
type match struct {
	pkg   *parsedPackage
	node  ast.Node
	pair  int               // index of the matching pair if node is an assignment; -1 if all of node matches
	bound map[string]string // the code that names of the pattern stand for
}

// matches compares a pattern with code, and binds the names of the pattern.
func (m *match) matches(pattern, code ast.Node) bool {
	if e, ok := code.(ast.Expr); ok {
		code = ast.Unparen(e)
	}
	switch p := pattern.(type) {
	case *ast.Ident:
		return m.matchesName(p.Name, code)
	case *ast.SelectorExpr:
		c, ok := code.(*ast.SelectorExpr)
		return ok && p.Sel.Name == c.Sel.Name && m.matches(p.X, c.X)
	}
	return reflect.TypeOf(pattern) == reflect.TypeOf(code) && m.alike(reflect.ValueOf(pattern).Elem(), reflect.ValueOf(code).Elem())
}

func (m *match) matchesName(name string, code ast.Node) bool {
	id, isName := code.(*ast.Ident)
	switch {
	case name == "_":
		_, ok := code.(ast.Expr)
		return ok
	case name[0] == '_':
		if _, ok := code.(ast.Expr); !ok {
			return false
		}
	case !m.pkg.isLocal(name):
		return isName && id.Name == name
	case !isName || !m.pkg.isLocal(id.Name):
		return false
	}
	text := m.pkg.text(code)
	before, bound := m.bound[name]
	m.bound[name] = text
	return !bound || before == text
}

// alike compares the parts of nodes, except for their positions.
func (m *match) alike(p, c reflect.Value) bool {
	switch p.Kind() {
	case reflect.Interface, reflect.Pointer:
		if p.IsNil() || c.IsNil() {
			return p.IsNil() == c.IsNil()
		}
		node, ok := p.Interface().(ast.Node)
		return !ok || m.matches(node, c.Interface().(ast.Node))
	case reflect.Slice:
		for i := range p.Len() {
			if i >= c.Len() || !m.alike(p.Index(i), c.Index(i)) {
				return false
			}
		}
		return p.Len() == c.Len()
	case reflect.Struct:
		for i := range p.NumField() {
			if !m.alike(p.Field(i), c.Field(i)) {
				return false
			}
		}
		return true
	}
	return p.Type() == reflect.TypeFor[token.Pos]() || p.Equal(c)
}

// replace returns the change that replaces the matched code.
func (m *match) replace(put string) (change, error) {
	put = m.fill(put)
	if a, ok := m.node.(*ast.AssignStmt); ok && m.pair >= 0 && len(a.Lhs) > 1 {
		var left, right []string
		for i := range a.Lhs {
			left, right = append(left, m.pkg.text(a.Lhs[i])), append(right, m.pkg.text(a.Rhs[i]))
		}
		if put == "" {
			left, right = slices.Delete(left, m.pair, m.pair+1), slices.Delete(right, m.pair, m.pair+1)
		} else {
			n, begin, err := parseStatement(put)
			pair, ok := n.(*ast.AssignStmt)
			if err != nil || !ok {
				return change{}, fmt.Errorf("%s is not an assignment: %w", put, err)
			}
			of := func(e ast.Expr) string { return put[e.Pos()-begin : e.End()-begin] }
			left[m.pair], right[m.pair] = of(pair.Lhs[0]), of(pair.Rhs[0])
		}
		put = strings.Join(left, ", ") + " " + a.Tok.String() + " " + strings.Join(right, ", ")
	}
	file := m.pkg.fset.File(m.node.Pos())
	return change{file.Name(), file.Offset(m.node.Pos()), file.Offset(m.node.End()), put}, nil
}

// fill replaces names by the code to which they were bound.
func (m *match) fill(put string) string {
	var s scanner.Scanner
	file := token.NewFileSet().AddFile("", -1, len(put))
	s.Init(file, []byte(put), nil, 0)
	var filled strings.Builder
	done, last := 0, token.ILLEGAL
	for pos, tok, name := s.Scan(); tok != token.EOF; pos, tok, name = s.Scan() {
		if code, bound := m.bound[name]; bound && tok == token.IDENT && last != token.PERIOD {
			at := file.Offset(pos)
			filled.WriteString(put[done:at] + code)
			done = at + len(name)
		}
		last = tok
	}
	return filled.String() + put[done:]
}
