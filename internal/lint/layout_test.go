package lint

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// quoted finds code in a page.
var quoted = regexp.MustCompile("`([^`]+)`")

// remark finds text in parentheses.
var remark = regexp.MustCompile(` *\([^)]*\)`)

// layoutRow is a row of the layout of DESIGN.md.
type layoutRow struct {
	packages []string // as in layers, without "..."
	files    []string // where to begin, in the folder of the first package
	may      []string // as in layers
}

// layout returns the rows of the table in the section Layout of a page. Its columns are
// packages, what they are, files to begin with, and what may be imported.
func layout(page string) (rows []layoutRow) {
	_, section, _ := strings.Cut(page, "\n## Layout\n")
	section, _, _ = strings.Cut(section, "\n## ")
	for line := range strings.Lines(section) {
		cells := strings.Split(strings.Trim(line, "| \n"), " | ")
		if len(cells) != 4 || !quoted.MatchString(cells[0]) {
			continue
		}
		row := layoutRow{packages: code(cells[0]), files: code(cells[2])}
		for i, name := range row.packages {
			row.packages[i] = strings.TrimPrefix(name, ".")
		}
		for _, name := range strings.Split(remark.ReplaceAllString(cells[3], ""), ", ") {
			switch name {
			case "nothing":
			case "oona":
				row.may = append(row.may, "")
			default:
				row.may = append(row.may, name)
			}
		}
		slices.Sort(row.may)
		rows = append(rows, row)
	}
	return rows
}

func code(cell string) (found []string) {
	for _, c := range quoted.FindAllStringSubmatch(cell, -1) {
		found = append(found, c[1])
	}
	return found
}

// layoutViolations says where rows of the layout differ from layers. exists reports
// whether the module has a file.
func layoutViolations(rows []layoutRow, exists func(file string) bool) (violations []string) {
	documented := make(map[string][]string)
	for _, row := range rows {
		for _, p := range row.packages {
			if _, twice := documented[p]; twice {
				violations = append(violations, fmt.Sprintf("%q has two rows", p))
			}
			documented[p] = row.may
		}
		if len(row.files) == 0 {
			violations = append(violations, fmt.Sprintf("%q: no file to begin with", row.packages))
		}
		for _, file := range row.files {
			if path := filepath.Join(row.packages[0], file); !exists(path) {
				violations = append(violations, fmt.Sprintf("%q: %s does not exist", row.packages, path))
			}
		}
	}
	for _, l := range layers {
		self := strings.TrimSuffix(l.pkg, "...")
		may := slices.DeleteFunc(slices.Clone(l.may), func(other string) bool { return other == l.pkg })
		slices.Sort(may)
		switch said, ok := documented[self]; {
		case !ok:
			violations = append(violations, fmt.Sprintf("%q has no row; layers allows %q", self, may))
		case !slices.Equal(said, may):
			violations = append(violations, fmt.Sprintf("%q may import %q, and layers allows %q", self, said, may))
		}
		delete(documented, self)
	}
	for p := range documented {
		violations = append(violations, fmt.Sprintf("%q has no row in layers", p))
	}
	return violations
}

// The table of DESIGN.md has the packages of layers and what they may import.
func TestLayout(t *testing.T) {
	exists := func(file string) bool {
		_, err := os.Stat(filepath.Join("..", "..", file))
		return err == nil
	}
	for _, v := range layoutViolations(layout(page(t, "../../DESIGN.md")), exists) {
		t.Errorf("DESIGN.md, Layout: %s", v)
	}
}

// TestLayoutRules changes one row at a time of a table that is right.
func TestLayoutRules(t *testing.T) {
	right := func() (rows []layoutRow) {
		for _, l := range layers {
			may := slices.DeleteFunc(slices.Clone(l.may), func(other string) bool { return other == l.pkg })
			slices.Sort(may)
			rows = append(rows, layoutRow{packages: []string{strings.TrimSuffix(l.pkg, "...")}, files: []string{"doc.go"}, may: may})
		}
		return rows
	}
	for _, tt := range []struct {
		name   string
		change func(rows []layoutRow) []layoutRow
		want   int
	}{
		{"nothing", func(rows []layoutRow) []layoutRow { return rows }, 0},
		{"a row is missing", func(rows []layoutRow) []layoutRow { return rows[1:] }, 1},
		{"a row too many", func(rows []layoutRow) []layoutRow {
			return append(rows, layoutRow{packages: []string{"garden"}, files: []string{"doc.go"}})
		}, 1},
		{"a row twice", func(rows []layoutRow) []layoutRow { return append(rows, rows[0]) }, 1},
		{"an import too many", func(rows []layoutRow) []layoutRow { rows[1].may = append(rows[1].may, "windows"); return rows }, 1},
		{"an import is missing", func(rows []layoutRow) []layoutRow { rows[1].may = nil; return rows }, 1},
		{"no file", func(rows []layoutRow) []layoutRow { rows[1].files = nil; return rows }, 1},
		{"a file that does not exist", func(rows []layoutRow) []layoutRow { rows[1].files = []string{"gone.go"}; return rows }, 1},
	} {
		exists := func(file string) bool { return filepath.Base(file) == "doc.go" }
		if got := layoutViolations(tt.change(right()), exists); len(got) != tt.want {
			t.Errorf("%s: %q; want %d", tt.name, got, tt.want)
		}
	}
}

func TestLayoutIsRead(t *testing.T) {
	rows := layout("# D\n## Layout\n\n| package | what | begin with | may import |\n|---|---|---|---|\n" +
		"| `.` (oona) | words | `doc.go`, `frame.go` | nothing |\n| `a` `b` | two | `a.go` | oona, c (types only), d... |\n\n## Next\n| `x` | y | `z.go` | nothing |\n")
	want := []layoutRow{
		{packages: []string{""}, files: []string{"doc.go", "frame.go"}},
		{packages: []string{"a", "b"}, files: []string{"a.go"}, may: []string{"", "c", "d..."}},
	}
	if got := fmt.Sprintf("%q", rows); got != fmt.Sprintf("%q", want) {
		t.Errorf("read %s, want %q", got, want)
	}
}
