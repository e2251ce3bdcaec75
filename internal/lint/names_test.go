package lint

import (
	"flag"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// namesFile lists the public names, one a line: what it is the name of, where it
// is used, the name, and what belongs to it. The packages that use it are not in the
// list, as they may change. A line that is gone from the code or
// is not in the file fails TestNames.
const namesFile = "testdata/names.txt"

var update = flag.Bool("update", false, "rewrite "+namesFile+"; a name that is gone must be in a row of CHANGELOG.md")

// nameKinds are the kinds of names. Each has at least this many, or they were
// not looked at.
var nameKinds = map[string]int{
	"address": 3, "exit": 3, "flag": 150, "header": 10, "key": 40, "metric": 80, "path": 8, "reason": 30, "topic": 10,
}

// namesChanged says how the names of the code differ from those of the file, and
// what to do. The rows of the changelog explain names that are gone.
func namesChanged(file, code []string, changelog string) (violations []string) {
	for _, line := range file {
		if slices.Contains(code, line) {
			continue
		}
		todo := "run `go test ./internal/lint -run TestNames -update`"
		if !explained(line, changelog) {
			todo = "keep it, or give it a row in CHANGELOG.md and " + todo
		}
		violations = append(violations, "- "+line+"\n\tthe code has no such name: "+todo)
	}
	for _, line := range code {
		if !slices.Contains(file, line) {
			violations = append(violations, "+ "+line+"\n\tis new: if it is to stay, run `go test ./internal/lint -run TestNames -update`")
		}
	}
	return violations
}

// explained reports whether the changelog has the name of a line, or what belongs to
// the name.
func explained(line, changelog string) bool {
	for i, field := range strings.Fields(line) {
		name, _, _ := strings.Cut(field, "{")
		if i >= 2 && regexp.MustCompile("`"+regexp.QuoteMeta(name)+"[`{= ]").MatchString(changelog) {
			return true
		}
	}
	return false
}

func TestNames(t *testing.T) {
	code := publicNames(t)
	changelog := page(t, "../../CHANGELOG.md")
	file := strings.Split(strings.TrimSpace(page(t, namesFile)), "\n")
	if *update {
		for _, line := range file {
			if !slices.Contains(code, line) && !explained(line, changelog) {
				t.Errorf("- %s\n\tis gone and stays in %s: CHANGELOG.md has no row with this name", line, namesFile)
			}
		}
		if t.Failed() {
			return
		}
		write(t, namesFile, strings.Join(code, "\n")+"\n")
		return
	}
	for _, v := range namesChanged(file, code, changelog) {
		t.Error(v)
	}
}

// publicNames returns the lines that namesFile should have.
func publicNames(t *testing.T) (names []string) {
	t.Helper()
	names = slices.Concat(flagsOfPrograms(t), metricsOfWorkers(t), topicNames(t), namesInSource(t))
	slices.Sort(names)
	names = slices.Compact(names)
	count := map[string]int{}
	for _, name := range names {
		kind, _, _ := strings.Cut(name, " ")
		count[kind]++
	}
	for kind, least := range nameKinds {
		if count[kind] < least {
			t.Errorf("there are %d names of the kind %s, and must be %d or more: they were not all found", count[kind], kind, least)
		}
	}
	for kind := range count {
		if nameKinds[kind] == 0 {
			t.Errorf("nameKinds has no row for %s", kind)
		}
	}
	return names
}

// A name of any kind that changes is noticed, and what to do depends on the
// changelog.
func TestNamesThatChange(t *testing.T) {
	file := strings.Split(strings.TrimSpace(page(t, namesFile)), "\n")
	for kind := range nameKinds {
		at := slices.IndexFunc(file, func(line string) bool { return strings.HasPrefix(line, kind+" ") })
		if at < 0 {
			t.Errorf("%s has no %s", namesFile, kind)
			continue
		}
		fields := strings.Fields(file[at])
		name, _, _ := strings.Cut(fields[2], "{")
		fields[2] = "renamed-" + fields[2]
		code := slices.Clone(file)
		code[at] = strings.Join(fields, " ")
		for changelog, want := range map[string]string{
			"":                          "keep it, or give it a row in CHANGELOG.md",
			"| `" + name + "x` | `y` |": "keep it, or give it a row in CHANGELOG.md",
			"| `" + name + "` | `y` |":  "the code has no such name: run",
		} {
			got := namesChanged(file, code, changelog)
			if len(got) != 2 || !strings.HasPrefix(got[0], "- "+file[at]) || !strings.Contains(got[0], want) || !strings.HasPrefix(got[1], "+ "+code[at]) {
				t.Errorf("%s, changelog %q: violations %q", file[at], changelog, got)
			}
		}
	}
	if got := namesChanged(file, file, ""); len(got) > 0 {
		t.Errorf("nothing has changed: %q", got)
	}
	labels := fmt.Sprintf("metric aggregate oona_aggregate_lag_records{%s}", "partition")
	if got := namesChanged([]string{labels}, []string{strings.Replace(labels, "partition", "part", 1)}, ""); len(got) != 2 {
		t.Errorf("a label is renamed: %q", got)
	}
}
