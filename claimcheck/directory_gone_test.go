package claimcheck_test

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/morphogenetic/oona/claimcheck"
	"github.com/morphogenetic/oona/claimcheck/claimchecktest"
)

// A store whose directory or subdirectories were removed or replaced works again
// without a restart.
func TestDirectoryIsGone(t *testing.T) {
	t.Parallel()
	must := func(t *testing.T, err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	for name, remove := range map[string]func(t *testing.T, dir, prefix string){
		"removed":  func(t *testing.T, dir, _ string) { must(t, os.RemoveAll(dir)) },
		"prefixes": func(t *testing.T, _, prefix string) { must(t, os.RemoveAll(prefix)) },
		"incoming": func(t *testing.T, dir, prefix string) {
			must(t, os.RemoveAll(filepath.Join(dir, "incoming")))
			must(t, os.RemoveAll(prefix))
		},
		"replaced": func(t *testing.T, dir, _ string) {
			must(t, os.RemoveAll(dir))
			must(t, os.Mkdir(dir, 0o750))
		},
		"moved away": func(t *testing.T, dir, _ string) {
			must(t, os.Rename(dir, dir+".old"))
			must(t, os.Mkdir(dir, 0o750))
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "store")
			store := openDirectory(t, dir, limit)
			content := claimchecktest.Content(1, small)
			claim, _, err := store.CheckIn(t.Context(), bytes.NewReader(content))
			must(t, err)
			remove(t, dir, filepath.Join(dir, "tensors", "sha256"))
			if err := store.Confirm(t.Context(), claim); !errors.Is(err, claimcheck.ErrNotFound) {
				t.Errorf("the fault did not happen: confirm returns %v", err)
			}
			if _, fresh, err := store.CheckIn(t.Context(), bytes.NewReader(content)); err != nil || !fresh {
				t.Fatalf("fresh is %v, error %v", fresh, err)
			}
			if got, err := os.ReadFile(filepath.Join(dir, filepath.FromSlash(claim.Key))); err != nil || !bytes.Equal(got, content) {
				t.Errorf("where the directory is, %d bytes are, error %v", len(got), err)
			}
			if left := filesBelow(t, filepath.Join(dir, "incoming"), ""); len(left) != 0 {
				t.Errorf("left are %q", left)
			}
		})
	}
}
