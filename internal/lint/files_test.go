package lint

import (
	"bytes"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"testing/fstest"
)

// privatePaths finds paths of one machine. Use a relative path, $HOME or a temporary
// directory that a program makes.
var privatePaths = regexp.MustCompile(`(^|[^\w./~-])/(work|root|tmp|home|Users)/[\w.]+`)

// windowsSuffix finds files that the go command builds only for Windows.
var windowsSuffix = regexp.MustCompile(`_windows(_test)?\.go$`)

// markdownLink finds links of a page to files of the project.
var markdownLink = regexp.MustCompile(`\]\(([^()\s#:]+)(#[^()\s]*)?\)`)

// sourceFile finds paths of source files in a page. Decisions are history and may name
// files that have moved since.
var sourceFile = regexp.MustCompile("(?:^|[ `])((?:bus|claimcheck|cmd|internal|pipeline|rollups|schemas|windows)/[a-z0-9_/]+\\.go)\\b")

func fileViolations(fsys fs.FS, names []string) (violations []string, err error) {
	for _, name := range names {
		if windowsSuffix.MatchString(name) {
			violations = append(violations, fmt.Sprintf("%s: the go command builds it only for Windows; give it another name", name))
		}
		content, err := fs.ReadFile(fsys, name)
		if err != nil {
			return nil, err
		}
		if bytes.IndexByte(content, 0) >= 0 {
			continue // not text
		}
		for i, line := range bytes.Split(content, []byte{'\n'}) {
			for _, fault := range lineFaults(fsys, name, line) {
				violations = append(violations, fmt.Sprintf("%s:%d: %s", name, i+1, fault))
			}
		}
	}
	return violations, nil
}

func lineFaults(fsys fs.FS, name string, line []byte) (faults []string) {
	if found := privatePaths.Find(line); found != nil {
		faults = append(faults, fmt.Sprintf("names %s, a path of one machine", found))
	}
	if path.Ext(name) != ".md" {
		return faults
	}
	for _, link := range markdownLink.FindAllSubmatch(line, -1) {
		if _, err := fs.Stat(fsys, path.Join(path.Dir(name), string(link[1]))); err != nil {
			faults = append(faults, fmt.Sprintf("links to %s, which does not exist", link[1]))
		}
	}
	if strings.HasPrefix(name, "docs/decisions/") {
		return faults
	}
	for _, file := range sourceFile.FindAllSubmatch(line, -1) {
		if _, err := fs.Stat(fsys, string(file[1])); err != nil {
			faults = append(faults, fmt.Sprintf("names %s, which does not exist", file[1]))
		}
	}
	return faults
}

func TestFiles(t *testing.T) {
	root := moduleRoot(t)
	cmd := exec.CommandContext(t.Context(), "git", "ls-files", "-z")
	cmd.Dir = root
	out, err := cmd.Output()
	if err != nil {
		t.Skipf("SKIPPED: git does not say which files are the project's (%v), so their contents were not looked at", err)
	}
	var names []string
	for name := range strings.SplitSeq(strings.TrimSuffix(string(out), "\x00"), "\x00") {
		info, err := os.Lstat(filepath.Join(root, name))
		if err == nil && info.Mode().IsRegular() { // not a link, and not deleted since
			names = append(names, name)
		}
	}
	violations, err := fileViolations(os.DirFS(root), names)
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range violations {
		t.Error(v)
	}
}

func moduleRoot(t *testing.T) string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "go", "list", "-m", "-f", "{{.Dir}}", module).Output()
	if err != nil {
		t.Fatalf("go list -m: %v", err)
	}
	return strings.TrimSpace(string(out))
}

func TestFileRules(t *testing.T) {
	private := path.Join("/", "home", "ada", "oona") // in pieces, as this file is looked at too
	for _, tt := range []struct{ name, file, content, want string }{
		{"for Windows only", "windows/close_windows.go", "package windows", "builds it only for Windows"},
		{"test for Windows only", "windows/close_windows_test.go", "package windows", "builds it only for Windows"},
		{"about windows", "windows/windows_test.go", "package windows", ""},
		{"private path", "README.md", "first\ncd " + private + " && make", "README.md:2: names"},
		{"private path in quotes", "a.go", `const dir = "` + private + `"`, "a.go:1: names"},
		{"checkout", "Makefile", "DIR=" + path.Join("/", "work", "main"), "names =" + path.Join("/", "work", "main")},
		{"temporary file", ".ci/run", "cat " + path.Join("/", "tmp", "out.txt"), "names"},
		{"address", "README.md", "https://example.org" + path.Join("/", "root", "x"), ""},
		{"relative path", "README.md", "see docs/" + "work/x and ../" + "home/x", ""},
		{"the home directory", "README.md", "~" + path.Join("/", "work", "x"), ""},
		{"link to nothing", "docs/a.md", "see [b](b.md)", "docs/a.md:1: links to b.md"},
		{"link to a part of nothing", "docs/a.md", "see [b](../b.md#part)", "docs/a.md:1: links to ../b.md"},
		{"links", "docs/a.md", "[a](a.md), [docs](../docs), [part](#part), [site](https://example.org/b.md)", ""},
		{"file that has moved", "docs/a.md", "see `windows/gone.go`", "docs/a.md:1: names windows/gone.go"},
		{"file of then", "docs/decisions/0001-a.md", "see `windows/gone.go`", ""},
		{"not text", "testdata/digits.avro", "Obj\x01\x00 " + private, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := fileViolations(fstest.MapFS{tt.file: {Data: []byte(tt.content)}}, []string{tt.file})
			if err != nil {
				t.Fatal(err)
			}
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
