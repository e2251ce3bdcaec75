package lint

import (
	"fmt"
	"os"
	"testing"

	"golang.org/x/mod/modfile"
	"golang.org/x/mod/semver"
)

// nestedModules are the modules of the project that use its main module from the directory
// that contains them.
var nestedModules = []string{"bench/peers", "deploy/compose", "deploy/grafana", "deploy/helm/e2e", "deploy/helm/proof", "scenarios"}

// olderThan returns the modules that a go.mod requires in an older version than the main
// module does. The go command refuses such a go.mod.
func olderThan(main, nested *modfile.File) (older []string) {
	versions := make(map[string]string)
	for _, r := range main.Require {
		versions[r.Mod.Path] = r.Mod.Version
	}
	for _, r := range nested.Require {
		if needed := versions[r.Mod.Path]; semver.Compare(r.Mod.Version, needed) < 0 {
			older = append(older, fmt.Sprintf("%s %s, and the main module needs %s; run go mod tidy", r.Mod.Path, r.Mod.Version, needed))
		}
	}
	return older
}

func parseModule(t *testing.T, name, text string) *modfile.File {
	t.Helper()
	file, err := modfile.Parse(name, []byte(text), nil)
	if err != nil {
		t.Fatal(err)
	}
	return file
}

// When the main module gets a newer dependency, the modules that are not built every day
// need it, too.
func TestNestedModules(t *testing.T) {
	read := func(dir string) *modfile.File {
		name := "../../" + dir + "/go.mod"
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		return parseModule(t, name, string(text))
	}
	for _, dir := range nestedModules {
		for _, older := range olderThan(read("."), read(dir)) {
			t.Errorf("%s/go.mod has %s", dir, older)
		}
	}
	main := parseModule(t, "go.mod", "module a\nrequire (\n\tx.org/b v1.10.0\n\tx.org/c v1.0.0 // indirect\n)\n")
	nested := parseModule(t, "go.mod", "module d\nrequire (\n\tx.org/b v1.9.0\n\tx.org/c v1.1.0\n\tx.org/e v0.1.0\n)\n")
	if older := olderThan(main, nested); len(older) != 1 {
		t.Errorf("%q", older)
	}
}
