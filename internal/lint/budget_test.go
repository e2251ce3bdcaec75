package lint

import (
	"bytes"
	"errors"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// mostSeconds is the limit for the budgets of all packages: the tests of two run at
// the same time, in four minutes.
const mostSeconds = 2 * 4 * 60

// budgetViolations says what is wrong with the file of budgets, given the packages
// that have tests.
func budgetViolations(file string, tested []string) (violations []string) {
	budgets, others := map[string]int{}, 0
	for line := range strings.Lines(file) {
		fields := strings.Fields(line)
		if len(fields) == 0 || strings.HasPrefix(fields[0], "#") {
			continue
		}
		if len(fields) != 2 {
			return []string{"not a package and its seconds: " + line}
		}
		seconds, err := strconv.Atoi(fields[1])
		switch {
		case err != nil || seconds <= 0:
			violations = append(violations, "not a number of seconds: "+line)
		case fields[0] == "others":
			others = seconds
		case !slices.Contains(tested, fields[0]):
			violations = append(violations, fields[0]+" has no tests")
		}
		budgets[fields[0]] = seconds
	}
	total := 0
	for _, name := range tested {
		if seconds, ok := budgets[name]; ok {
			total += seconds
		} else {
			total += others
		}
	}
	if others == 0 || total > mostSeconds {
		violations = append(violations, "the budgets add up to "+strconv.Itoa(total)+" s, and must not exceed "+strconv.Itoa(mostSeconds))
	}
	return violations
}

func TestBudgets(t *testing.T) {
	for file, want := range map[string]string{
		"others 5\nwindows 40\n# note": "",
		"others 5\nwindows":            "not a package",
		"others 5\nwindows fast":       "not a number",
		"others 5\ngone 4":             "gone has no tests",
		"others 5\nwindows 476":        "add up to 481 s",
		"windows 40":                   "add up to 40 s",
	} {
		got := budgetViolations(file, []string{"windows", "rollups"})
		if want == "" && len(got) > 0 || want != "" && (len(got) != 1 || !strings.Contains(got[0], want)) {
			t.Errorf("%q: violations %q, want %q", file, got, want)
		}
	}
	list := exec.CommandContext(t.Context(), "go", "list", "-f", "{{if or .TestGoFiles .XTestGoFiles}}{{.ImportPath}}{{end}}", "./...")
	list.Dir = moduleRoot(t)
	out, err := list.Output()
	if err != nil {
		t.Fatal(err)
	}
	var tested []string
	for _, name := range strings.Fields(string(out)) {
		path, _ := ours(name)
		tested = append(tested, path)
	}
	for _, v := range budgetViolations(page(t, "../../.ci/budget"), tested) {
		t.Errorf(".ci/budget: %s", v)
	}
}

// What `make test` says of packages that took too long.
func TestBudgetIsCompared(t *testing.T) {
	awk, err := exec.LookPath("awk")
	if err != nil {
		t.Skip("SKIPPED: there is no awk")
	}
	root := moduleRoot(t)
	dir := t.TempDir()
	budget, output := filepath.Join(dir, "budget"), filepath.Join(dir, "output")
	write(t, budget, "# seconds\nothers 5\nwindows 40\ninternal/demo 60\n")
	const passed = "ok  \t" + module + "/"
	for _, tt := range []struct {
		name, output, kafka, load string
		over                      int // packages
		fails                     bool
	}{
		{"in time", passed + "windows\t39.9s\n" + passed + "rollups\t5.0s\nok  \t" + module + "\t0.1s\n", "", "1", 0, false},
		{"over", passed + "windows\t40.5s\n" + passed + "internal/demo\t179s\n", "", "1", 2, false},
		{"far over", passed + "windows\t121s\n", "", "1", 1, true},
		{"far over, of the others", passed + "rollups\t15.1s\n", "", "1", 1, true},
		{"far over on a busy machine", passed + "windows\t121s\n", "", "25.3", 1, false},
		{"far over with real Kafka", passed + "windows\t121s\n", "h:1", "1", 1, false},
		{"not run", passed + "windows\t(cached)\n?   \t" + module + "/bus\t[no test files]\n", "", "1", 0, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			compare := exec.CommandContext(t.Context(), awk, "-f", filepath.Join(root, ".ci", "budget.awk"), budget, output)
			compare.Env = []string{"OONA_KAFKA=" + tt.kafka, "LOAD=" + tt.load, "CORES=2"}
			write(t, output, tt.output)
			says, err := compare.Output()
			if _, exited := errors.AsType[*exec.ExitError](err); err != nil && !exited {
				t.Fatal(err)
			}
			if (err != nil) != tt.fails || bytes.Count(says, []byte(" took ")) != tt.over {
				t.Errorf("error %v, output %q", err, says)
			}
		})
	}
}
