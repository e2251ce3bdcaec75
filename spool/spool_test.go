package spool_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"

	"github.com/morphogenetic/oona/spool"
)

func keysOf(body []byte) []string { return []string{string(body[:1])} }

func options() spool.Options {
	return spool.Options{
		MaxBytes: 1 << 20, SegmentBytes: 400, RecordBytes: 1 << 12, Keys: keysOf,
		Logger: slog.New(slog.NewTextHandler(io.Discard, nil)),
	}
}

func open(t testing.TB, fs spool.FileSystem) *spool.Spool {
	t.Helper()
	s, err := spool.Open(fs, options())
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func body(i int) []byte {
	return fmt.Appendf(nil, "%c record %d %s", 'a'+i%3, i, strings.Repeat(".", i%200))
}

func put(t testing.TB, s *spool.Spool, from, end int) {
	t.Helper()
	for i := from; i < end; i++ {
		if err := s.Append(t.Context(), keysOf(body(i)), body(i)); err != nil {
			t.Fatal(err)
		}
	}
}

// drain returns all records of a spool, and calls Done for them if done is true.
func drain(t testing.TB, s *spool.Spool, done bool) (bodies [][]byte) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	cancel() // Next does not wait
	var last spool.Record
	for {
		r, err := s.Next(ctx)
		if errors.Is(err, context.Canceled) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if len(bodies) > 0 && r.Sequence <= last.Sequence {
			t.Fatalf("record %d follows %d", r.Sequence, last.Sequence)
		}
		last = r
		bodies = append(bodies, bytes.Clone(r.Body))
	}
	if done && len(bodies) > 0 {
		if err := s.Done(last.Sequence); err != nil {
			t.Fatal(err)
		}
	}
	return bodies
}

func wantBodies(t testing.TB, got [][]byte, from, end int) {
	t.Helper()
	if len(got) != end-from {
		t.Fatalf("%d records, want %d", len(got), end-from)
	}
	for i, b := range got {
		if !bytes.Equal(b, body(from+i)) {
			t.Fatalf("record %d is %.30q", from+i, b)
		}
	}
}

// Records stay in the spool, in order, until they are done, also after a restart.
func TestRestart(t *testing.T) {
	for name, fs := range map[string]spool.FileSystem{"memory": newMemory(), "disk": disk(t)} {
		t.Run(name, func(t *testing.T) {
			s := open(t, fs)
			put(t, s, 0, 100)
			var r spool.Record
			for range 40 {
				var err error
				if r, err = s.Next(t.Context()); err != nil {
					t.Fatal(err)
				}
			}
			if err := errors.Join(s.Done(r.Sequence), s.Close()); err != nil {
				t.Fatal(err)
			}
			s = open(t, fs)
			if !s.Holds("a") || s.Holds("z") {
				t.Errorf("Holds is %t for a key of the spool, %t for another", s.Holds("a"), s.Holds("z"))
			}
			wantBodies(t, drain(t, s, false), 40, 100)
			put(t, s, 100, 120)
			wantBodies(t, drain(t, s, true), 100, 120)
			if !s.Empty() || s.Holds("a") {
				t.Errorf("the spool is not empty: %+v", s.Stats())
			}
			if n := s.Stats(); n.Bytes != 0 || n.Segments != 0 {
				t.Errorf("an empty spool has files: %+v", n)
			}
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			s = open(t, fs)
			put(t, s, 120, 121)
			wantBodies(t, drain(t, s, true), 120, 121)
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
		})
	}
}

func disk(t testing.TB) spool.FileSystem {
	t.Helper()
	fs, err := spool.OpenDirectory(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	return fs
}

func TestSecondProcess(t *testing.T) {
	dir := t.TempDir()
	fs, err := spool.OpenDirectory(dir)
	if err != nil {
		t.Fatal(err)
	}
	s := open(t, fs)
	again, err := spool.OpenDirectory(dir)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := spool.Open(again, options()); !errors.Is(err, spool.ErrLocked) {
		t.Errorf("a second Open returns %v", err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if err := open(t, again).Close(); err != nil {
		t.Error(err)
	}
}

// A process that only checks whether a spool is in use has the lock for a moment. It does not keep
// another process from opening the spool.
func TestLookingDoesNotLock(t *testing.T) {
	dir := t.TempDir()
	fs, err := spool.OpenDirectory(dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := open(t, fs).Close(); err != nil {
		t.Fatal(err)
	}
	look, err := os.Open(filepath.Join(dir, "LOCK"))
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.Flock(int(look.Fd()), unix.LOCK_SH|unix.LOCK_NB); err != nil {
		t.Fatal(err)
	}
	time.AfterFunc(20*time.Millisecond, func() { _ = look.Close() })
	if err := open(t, fs).Close(); err != nil {
		t.Fatal(err)
	}
}

// A record that was accepted stays in the spool, even if the limit for records is lower at the next
// start.
func TestLowerLimitForRecords(t *testing.T) {
	fs := newMemory()
	s := open(t, fs)
	large := bytes.Repeat([]byte("x"), 3000)
	for _, b := range [][]byte{body(0), large, body(2), large} {
		if err := s.Append(t.Context(), nil, b); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	opts := options()
	opts.RecordBytes = 1000
	s, err := spool.Open(fs, opts)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if err := s.Append(t.Context(), nil, large); !errors.Is(err, spool.ErrTooLarge) {
		t.Errorf("the lower limit does not hold: %v", err)
	}
	got := drain(t, s, true)
	if n := s.Stats(); len(got) != 4 || !bytes.Equal(got[1], large) || !bytes.Equal(got[3], large) || n.Lost+n.Damaged != 0 {
		t.Errorf("%d records, %+v", len(got), n)
	}
}

// If a write or a sync fails, the records are refused, and the segment is not written to again.
// Records that were acknowledged before stay, even after a crash.
func TestFailedWrites(t *testing.T) {
	for _, call := range []string{"write", "sync", "create", "rename", "syncdir", "free"} {
		for _, failure := range []error{syscall.EIO, syscall.ENOSPC, errShort} {
			t.Run(fmt.Sprint(call, failure), func(t *testing.T) {
				fs := newMemory()
				s := open(t, fs)
				put(t, s, 0, 10)
				failed := 0
				fs.mu.Lock()
				fs.fail = func(c, _ string) error {
					if c == call {
						failed++
						return failure
					}
					return nil
				}
				fs.mu.Unlock()
				var refused int
				for i := 10; i < 40; i++ {
					if err := s.Append(t.Context(), keysOf(body(i)), body(i)); err != nil {
						refused++
					}
				}
				fs.mu.Lock()
				if failed == 0 || refused == 0 {
					t.Fatalf("%s failed %d times, and %d records were refused", call, failed, refused)
				}
				fs.fail = nil
				fs.mu.Unlock()
				acknowledged := 40 - refused
				put(t, s, 100, 110)
				after := open(t, fs.crash(rand.New(rand.NewPCG(1, 2))))
				for name, opened := range map[string]*spool.Spool{"running": s, "after a crash": after} {
					got := drain(t, opened, true)
					if !bytes.Equal(got[0], body(0)) || !contains(got, 100, 110) || !contains(got, 0, 10) || name == "running" && len(got) != acknowledged+10 {
						t.Errorf("%s: %d records, want %d", name, len(got), acknowledged+10)
					}
					if n := opened.Stats(); n.Lost != 0 {
						t.Errorf("%s: %+v", name, n)
					}
					if err := opened.Close(); err != nil {
						t.Error(err)
					}
				}
			})
		}
	}
}

func contains(got [][]byte, from, end int) bool {
	for i := from; i < end; i++ {
		if !slices.ContainsFunc(got, func(b []byte) bool { return bytes.Equal(b, body(i)) }) {
			return false
		}
	}
	return true
}

// A full spool refuses records and keeps those that it has. It accepts records again when some are
// done.
func TestFull(t *testing.T) {
	for name, limit := range map[string]func(*memory, *spool.Options){
		"bytes":    func(_ *memory, o *spool.Options) { o.MaxBytes = 4 << 10 },
		"headroom": func(m *memory, o *spool.Options) { m.free, o.Headroom = 8<<10, 6<<10 },
	} {
		t.Run(name, func(t *testing.T) {
			fs := newMemory()
			opts := options()
			limit(fs, &opts)
			s, err := spool.Open(fs, opts)
			if err != nil {
				t.Fatal(err)
			}
			defer s.Close()
			n := 0
			for ; err == nil; n++ {
				err = s.Append(t.Context(), keysOf(body(n)), body(n))
				fs.mu.Lock()
				fs.free -= int64(len(body(n)))
				fs.mu.Unlock()
			}
			if !errors.Is(err, spool.ErrFull) || n < 10 || s.Stats().Refused != 1 || s.Stats().Bytes > 4<<10 {
				t.Fatalf("after %d records: %v; %+v", n, err, s.Stats())
			}
			wantBodies(t, drain(t, s, true), 0, n-1)
			fs.mu.Lock()
			fs.free = 1 << 30
			fs.mu.Unlock()
			put(t, s, 0, 3)
		})
	}
}

// Records that wait during a sync are written together.
func TestGroupCommit(t *testing.T) { synctest.Test(t, testGroupCommit) }

func testGroupCommit(t *testing.T) {
	fs := newMemory()
	s := open(t, fs)
	defer s.Close()
	held := make(chan struct{})
	var once sync.Once
	fs.mu.Lock()
	fs.fail = func(call, _ string) error {
		if call == "write" {
			once.Do(func() { fs.mu.Unlock(); <-held; fs.mu.Lock() })
		}
		return nil
	}
	fs.mu.Unlock()
	var writers sync.WaitGroup
	for i := range 100 {
		writers.Go(func() {
			if err := s.Append(t.Context(), keysOf(body(0)), body(0)); err != nil {
				t.Error(err)
			}
		})
		if i == 0 {
			synctest.Wait()
		}
	}
	synctest.Wait()
	close(held)
	writers.Wait()
	if n := s.Stats(); n.Appended != 100 || n.Syncs > 20 {
		t.Errorf("%+v", n)
	}
}
