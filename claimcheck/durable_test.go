package claimcheck

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// A tensor's bytes are durable before it has its name, and the name before the
// check-in returns.
func TestDirectoryIsDurable(t *testing.T) {
	dir := t.TempDir()
	store, err := OpenDirectory(dir, "tensors", 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	content := []byte("tensor")
	key := store.Claim(content).Key
	named := func() bool {
		_, err := os.Stat(filepath.Join(dir, filepath.FromSlash(key)))
		return !errors.Is(err, fs.ErrNotExist)
	}
	broken := errors.New("disk on fire")
	var synced []string
	var fails string
	store.objects.(*directory).fsync = func(f *os.File) error {
		name := strings.TrimPrefix(f.Name(), dir+string(filepath.Separator))
		what := "folder"
		if filepath.Dir(name) == incoming {
			what = "file"
			if held, err := os.ReadFile(f.Name()); err != nil || !bytes.Equal(held, content) {
				t.Errorf("%s is synced with %q, error %v", name, held, err)
			}
		} else if filepath.ToSlash(name) != filepath.ToSlash(filepath.Dir(filepath.FromSlash(key))) {
			t.Errorf("%s is synced", name)
		}
		if named() != (what == "folder") {
			t.Errorf("when the %s is synced, that the tensor has its name is %v", what, named())
		}
		synced = append(synced, what)
		if fails == what {
			return broken
		}
		return nil
	}
	for _, c := range []struct{ fails, synced string }{{"file", "file"}, {"folder", "file folder"}, {"", "folder"}} {
		synced, fails = nil, c.fails
		_, _, err := store.CheckIn(t.Context(), bytes.NewReader(content))
		if errors.Is(err, broken) != (fails != "") || strings.Join(synced, " ") != c.synced {
			t.Errorf("where the sync of the %q fails, %q were synced, error %v", fails, synced, err)
		}
	}
}
