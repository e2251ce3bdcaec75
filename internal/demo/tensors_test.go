package demo

import (
	"context"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// The recording's large tensors go into the store and come out again. A store
// whose bytes have changed since makes the sums disagree: ingest takes what is
// there by its size, and the audit looks at all of it.
func TestTensorsAreReadBack(t *testing.T) {
	cfg := testConfig(nil)
	cfg.Data = t.TempDir()
	run := func() *Report {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
		defer cancel()
		report, err := Run(ctx, cfg, Screen{Out: io.Discard}, discard())
		if err != nil {
			t.Fatal(err)
		}
		return report
	}
	first := run()
	if want := (TensorCounts{Inline: 124, Claimed: 28, Verified: 28}); first.Tensors != want || first.TensorsSent != 152 || first.ClaimsAccepted != 28 || !first.Agree {
		t.Errorf("tensors are %+v, want %+v; sent %d, claims accepted %d; %+v", first.Tensors, want, first.TensorsSent, first.ClaimsAccepted, first.Checks)
	}
	spoilOne(t, filepath.Join(cfg.Data, "tensors"))
	second := run()
	if second.Tensors.Claimed != 28 || second.Tensors.Verified >= 28 || second.Agree {
		t.Errorf("with a tensor spoiled, tensors are %+v and the sums agree: %v", second.Tensors, second.Agree)
	}
}

// spoilOne changes a bit of some tensor.
func spoilOne(t *testing.T, dir string) {
	t.Helper()
	var files []string
	err := fs.WalkDir(os.DirFS(dir), ".", func(name string, entry fs.DirEntry, err error) error {
		if err == nil && !entry.IsDir() {
			files = append(files, name)
		}
		return err
	})
	if err != nil || len(files) == 0 {
		t.Fatalf("%d tensors are kept, error %v", len(files), err)
	}
	name := filepath.Join(dir, filepath.FromSlash(files[0]))
	content, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	content[0] ^= 1
	if err := os.WriteFile(name, content, 0o600); err != nil {
		t.Fatal(err)
	}
}
