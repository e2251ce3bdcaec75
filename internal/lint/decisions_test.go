package lint

import (
	"fmt"
	"io/fs"
	"os"
	"regexp"
	"strings"
	"testing"
	"testing/fstest"
)

var (
	decisionFile   = regexp.MustCompile(`^(\d{4})-[a-z0-9-]+\.md$`)
	decisionRow    = regexp.MustCompile(`(?m)^\| \[(\d{4})\]\(([^)]*)\) \| (.*) \| (.*) \|$`)
	decisionTitle  = regexp.MustCompile(`^# (\d{4})\. (.+)\n`)
	decisionStatus = regexp.MustCompile(`(?m)^Status: (accepted|replaced by \[?(\d{4}))`)
)

// decisionViolations compares the pages of decisions with the list of them in README.md:
// each page has one row, with its number, title and status, in the order of the numbers.
func decisionViolations(pages fs.FS) (violations []string, err error) {
	list, err := fs.ReadFile(pages, "README.md")
	if err != nil {
		return nil, err
	}
	bad := func(format string, args ...any) { violations = append(violations, fmt.Sprintf(format, args...)) }
	type row struct{ number, title, status string }
	rows := make(map[string]row)
	before := ""
	for _, r := range decisionRow.FindAllStringSubmatch(string(list), -1) {
		if _, twice := rows[r[2]]; twice {
			bad("%s has two rows", r[2])
		}
		if r[1] <= before {
			bad("%s comes after %s", r[1], before)
		}
		before = r[1]
		rows[r[2]] = row{r[1], r[3], r[4]}
	}
	names, err := fs.Glob(pages, "*.md")
	if err != nil {
		return nil, err
	}
	for _, name := range names {
		if name == "README.md" {
			continue
		}
		text, err := fs.ReadFile(pages, name)
		if err != nil {
			return nil, err
		}
		r, listed := rows[name]
		delete(rows, name)
		file, title, status := decisionFile.FindStringSubmatch(name), decisionTitle.FindStringSubmatch(string(text)), decisionStatus.FindStringSubmatch(string(text))
		plain := func(title string) string { return strings.ReplaceAll(title, "`", "") }
		switch {
		case file == nil || title == nil || status == nil || title[1] != file[1]:
			bad("%s: its name, number, title or status is not in the form that README.md shows", name)
		case !listed:
			bad("%s: it has no row in README.md", name)
		case r.number != file[1] || plain(r.title) != plain(title[2]):
			bad("%s: it is %s. %s, and its row says %s. %s", name, file[1], title[2], r.number, r.title)
		case r.status != strings.TrimSpace(strings.Replace(status[1], "[", "", 1)):
			bad("%s: its status is %q, and its row says %q", name, status[1], r.status)
		}
	}
	for name := range rows {
		bad("the row of %s leads to no page", name)
	}
	return violations, nil
}

func TestDecisions(t *testing.T) {
	violations, err := decisionViolations(os.DirFS("../../docs/decisions"))
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range violations {
		t.Errorf("docs/decisions: %s", v)
	}

	page := func(text string) *fstest.MapFile { return &fstest.MapFile{Data: []byte(text)} }
	const good = "# 0001. A `title`\n\nStatus: accepted; replaces 0000. 2026.\n"
	for name, pages := range map[string]fstest.MapFS{
		"":               {"README.md": page("| [0001](0001-a.md) | A title | accepted |\n"), "0001-a.md": page(good)},
		"no row":         {"README.md": page("none\n"), "0001-a.md": page(good)},
		"no page":        {"README.md": page("| [0001](0001-a.md) | A title | accepted |\n")},
		"two rows":       {"README.md": page("| [0001](0001-a.md) | A title | accepted |\n| [0001](0001-a.md) | A title | accepted |\n"), "0001-a.md": page(good)},
		"another title":  {"README.md": page("| [0001](0001-a.md) | Another | accepted |\n"), "0001-a.md": page(good)},
		"another number": {"README.md": page("| [0002](0001-a.md) | A title | accepted |\n"), "0001-a.md": page(good)},
		"another status": {"README.md": page("| [0001](0001-a.md) | A title | replaced by 0002 |\n"), "0001-a.md": page(good)},
		"no status":      {"README.md": page("| [0001](0001-a.md) | A title | accepted |\n"), "0001-a.md": page("# 0001. A title\n")},
		"in disorder": {
			"README.md": page("| [0002](0002-b.md) | B | accepted |\n| [0001](0001-a.md) | A title | accepted |\n"), "0001-a.md": page(good),
			"0002-b.md": page("# 0002. B\n\nStatus: accepted. 2026.\n"),
		},
	} {
		found, err := decisionViolations(pages)
		if err != nil || (len(found) == 0) != (name == "") {
			t.Errorf("%q: %v, %v", name, found, err)
		}
	}
}
