package kubelet

import (
	"os"
	"path/filepath"
	"testing"

	corev1 "k8s.io/api/core/v1"
)

// The files of a volume change together, as all of them are behind one link.
func TestWriteFilesReplacesAllAtOnce(t *testing.T) {
	p := &pod{is: &corev1.Pod{}}
	dir := t.TempDir()
	write := func(text string) string {
		t.Helper()
		if err := p.writeFiles(dir, map[string]file{"a": {text, 0o644}, "sub/b": {text, 0o600}}); err != nil {
			t.Fatal(err)
		}
		version, err := os.Readlink(filepath.Join(dir, dataLink))
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range []string{"a", "sub/b"} {
			if got, err := os.ReadFile(filepath.Join(dir, name)); err != nil || string(got) != text {
				t.Errorf("%s is %q, %v; want %q", name, got, err, text)
			}
		}
		return version
	}
	first := write("first")
	before, err := os.Open(filepath.Join(dir, "a"))
	if err != nil {
		t.Fatal(err)
	}
	defer before.Close()
	second := write("second")
	if first == second {
		t.Error("both contents are in one directory")
	}
	if _, err := os.Stat(filepath.Join(dir, first)); !os.IsNotExist(err) {
		t.Errorf("the first content is still there: %v", err)
	}
	info, err := os.Stat(filepath.Join(dir, "sub", "b"))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
}
