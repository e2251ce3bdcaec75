package spool_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/morphogenetic/oona/spool"
)

// Files of a spool that somebody removes or replaces while it is in use can still be written to and
// synced, but what is written is lost when the process ends. So Append must not acknowledge it.
func TestReplacedFiles(t *testing.T) {
	for name, tt := range map[string]struct {
		replace func(t *testing.T, dir, segment string)
		want    error // of the second Append after that
	}{
		"the segment is removed": {func(t *testing.T, _, segment string) {
			check(t, os.Remove(segment))
		}, nil},
		"the segment is replaced": {func(t *testing.T, _, segment string) {
			content, err := os.ReadFile(segment)
			check(t, err)
			check(t, os.Remove(segment))
			check(t, os.WriteFile(segment, content, 0o600))
		}, nil},
		"the directory is made again": {func(t *testing.T, dir, _ string) {
			check(t, os.RemoveAll(dir))
			check(t, os.Mkdir(dir, 0o700))
		}, spool.ErrReplaced},
		"the directory is moved": {func(t *testing.T, dir, _ string) {
			check(t, os.Rename(dir, dir+".old"))
			check(t, os.Mkdir(dir, 0o700))
		}, spool.ErrReplaced},
		"another process could lock the directory": {func(t *testing.T, dir, segment string) {
			check(t, os.Remove(filepath.Join(dir, "LOCK")))
			check(t, os.Remove(segment))
		}, spool.ErrReplaced},
	} {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "spool")
			files, err := spool.OpenDirectory(dir)
			check(t, err)
			s := open(t, files)
			put(t, s, 0, 1)
			segments, err := filepath.Glob(filepath.Join(dir, "*.seg"))
			if err != nil || len(segments) != 1 {
				t.Fatalf("the files are %q, %v", segments, err)
			}
			tt.replace(t, dir, segments[0])
			if err := s.Append(t.Context(), nil, body(1)); !errors.Is(err, spool.ErrReplaced) {
				t.Errorf("the first Append returns %v", err)
			}
			if err := s.Append(t.Context(), nil, body(2)); !errors.Is(err, tt.want) {
				t.Errorf("the second Append returns %v, want %v", err, tt.want)
			}
			if n := s.Stats(); tt.want == nil && n.Failed != 1 || tt.want != nil && n.Failed != 2 {
				t.Errorf("%+v", n)
			}
			check(t, s.Close())
		})
	}
}

// The error for a directory that was removed names it.
func TestRemovedDirectory(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "spool")
	files, err := spool.OpenDirectory(dir)
	check(t, err)
	s := open(t, files)
	put(t, s, 0, 1)
	check(t, os.RemoveAll(dir))
	err = s.Append(t.Context(), nil, body(1))
	if at, is := errors.AsType[*fs.PathError](err); !is || at.Path != dir {
		t.Errorf("Append returns %v", err)
	}
	check(t, s.Close())
}

// A broken disk does not fill the log: the failure is logged when it begins, when its cause becomes
// another, and its end is logged.
func TestFailedWritesAreLoggedOnce(t *testing.T) {
	var log bytes.Buffer
	fs, opts := newMemory(), options()
	opts.Logger = slog.New(slog.NewJSONHandler(&log, nil))
	s, err := spool.Open(fs, opts)
	check(t, err)
	fs.failing(func(call, _ string) error {
		if call == "write" {
			return unix.EIO
		}
		return nil
	})
	for range 20 {
		if err := s.Append(t.Context(), nil, body(0)); !errors.Is(err, unix.EIO) {
			t.Fatal(err)
		}
	}
	fs.failing(nil)
	fs.mu.Lock()
	fs.locked = false // as if the directory had been replaced
	fs.mu.Unlock()
	for range 20 {
		if err := s.Append(t.Context(), nil, body(0)); !errors.Is(err, spool.ErrReplaced) {
			t.Fatal(err)
		}
	}
	fs.mu.Lock()
	fs.locked = true
	fs.mu.Unlock()
	put(t, s, 0, 2)
	check(t, s.Close())
	lines := map[string]int{}
	for line := range bytes.Lines(log.Bytes()) {
		var of struct{ Level string }
		check(t, json.Unmarshal(line, &of))
		lines[of.Level]++
	}
	if lines["ERROR"] != 2 || lines["INFO"] != 1 {
		t.Errorf("the log is\n%s", log.Bytes())
	}
}

func TestFileInPlaceOfADirectory(t *testing.T) {
	name := filepath.Join(t.TempDir(), "file")
	check(t, os.WriteFile(name, nil, 0o600))
	if _, err := spool.OpenDirectory(name); !errors.Is(err, unix.ENOTDIR) {
		t.Errorf("OpenDirectory returns %v", err)
	}
}

// If the file "done" is lost, records that are set aside later do not replace earlier ones.
func TestNumbersAfterRecordsThatWereSetAside(t *testing.T) {
	fs := newMemory()
	var want [][]byte
	for life := range 2 {
		s := open(t, fs)
		put(t, s, 10*life, 10*life+1)
		r, err := s.Next(t.Context())
		check(t, err)
		want = append(want, body(10*life))
		check(t, errors.Join(s.SetAside(r), s.Done(r.Sequence)))
		if n := s.Stats(); n.Lost > 0 {
			t.Errorf("%+v", n)
		}
		check(t, s.Close())
		check(t, fs.Remove("done"))
	}
	var kept [][]byte
	for _, name := range fs.quarantine() {
		kept = append(kept, fs.names[name].data)
	}
	if len(kept) != len(want) {
		t.Errorf("the records %q are kept, want %q", kept, want)
	}
	// The first file begins after the records that were set aside. Nothing is missing.
	s := open(t, fs)
	put(t, s, 30, 31)
	check(t, s.Close())
	s = open(t, fs)
	if n := s.Stats(); n.Lost > 0 || n.Records != 1 {
		t.Errorf("%+v", n)
	}
	check(t, s.Close())
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
