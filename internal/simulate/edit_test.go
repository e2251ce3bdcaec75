package simulate

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// An edit finds its code whatever the comments, the formatting and the names of local variables
// are. It fails if the code does not occur, or occurs more than once.
func TestEdit(t *testing.T) {
	for _, c := range []struct {
		name, body string
		find, put  string
		want       string // text that the source must contain after the edit
		err        error
	}{
		{"the same text", "return r.From <= ahead", "r.From <= ahead", "false", "return false", nil},
		{"other locals", "return q.From <= limit", "r.From <= ahead", "ahead < r.From", "return limit < q.From", nil},
		{"a comment and a line break", "return r. /* c */ From <=\n\tahead // c", "r.From <= ahead", "false", "return false // c", nil},
		{"parentheses", "return ((r).From) <= ahead", "r.From <= ahead", "false", "return false", nil},
		{"a field is not a local", "return r.From <= r.ahead", "r.From <= ahead", "false", "", errNotFound},
		{"another field", "return r.To <= ahead", "r.From <= ahead", "false", "", errNotFound},
		{"another operator", "return r.From < ahead", "r.From <= ahead", "false", "", errNotFound},
		{"a name of the package", "return r.From <= limitOfAll", "r.From <= ahead", "false", "", errNotFound},
		{"one local for two", "return r.From <= ahead && s.To == 1", "r.From <= ahead && r.To == 1", "false", "", errNotFound},
		{"found twice", "return r.From <= ahead || s.From <= behind", "r.From <= ahead", "false", "", errAmbiguous},
		{"any expression", "return max(r.From+1, r.To) > 1", "max(_, _b)", "_b", "return r.To > 1", nil},
		{"fewer arguments", "return max(r.From, r.To, 1) > 1", "max(_, _)", "0", "", errNotFound},
		{"an assignment", "r.From = 1\n\treturn true", "r.From = _", "", "{\n\t\n\treturn true", nil},
		{"one of several assignments", "r.From, r.To = 1, 2\n\treturn true", "r.To = _x", "r.To = -_x", "r.From, r.To = 1, -2", nil},
		{"without one of several", "r.From, r.To = 1, 2\n\treturn true", "r.From = _", "", "{\n\tr.To = 2", nil},
		{"a field in what is put", "return r.From <= ahead", "r.From <= ahead", "r.ahead <= ahead", "return r.ahead <= ahead", nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			source := "package p\n\nvar limitOfAll int\n\nfunc (r *T) f(ahead int) bool {\n\t" + c.body + "\n}\n"
			if err := os.WriteFile(filepath.Join(dir, "p.go"), []byte(source), 0o600); err != nil {
				t.Fatal(err)
			}
			pkg, err := parsePackage(dir)
			if err != nil {
				t.Fatal(err)
			}
			fn, err := pkg.function("T", "f")
			if err != nil {
				t.Fatal(err)
			}
			m, err := pkg.find(fn, c.find, map[string]string{})
			if !errors.Is(err, c.err) {
				t.Fatalf("the error is %v, want %v", err, c.err)
			}
			if err != nil {
				return
			}
			got, err := m.replace(c.put)
			if err != nil {
				t.Fatal(err)
			}
			if after := source[:got.from] + got.text + source[got.to:]; !strings.Contains(after, c.want) {
				t.Errorf("the source is now\n%s\nwant %q in it", after, c.want)
			}
		})
	}
}

// An edit of a function that does not exist is an error. So are two edits of the same code.
func TestEditsThatCannotBeMade(t *testing.T) {
	for name, c := range map[string]struct {
		edits []edit
		want  error
	}{
		"not an address":       {[]edit{{"Resume", "e.clock = _", ""}}, errNotFound},
		"no such function":     {[]edit{{"windows.Renew()", "e.clock = _", ""}}, errNotFound},
		"a method is not one":  {[]edit{{"windows.Commit()", "return _, _", ""}}, errNotFound},
		"no such parameter":    {[]edit{{"(e *windows.Engine) Commit(c)", "c", ""}}, errNotFound},
		"two of the same code": {[]edit{{"(e *windows.Engine) bucket()", "e.clock.Now", "1"}, {"(e *windows.Engine) bucket()", "int64(_)", "1"}}, errAmbiguous},
	} {
		if _, err := mutate(c.edits); !errors.Is(err, c.want) {
			t.Errorf("%s: the error is %v, want %v", name, err, c.want)
		}
	}
}
