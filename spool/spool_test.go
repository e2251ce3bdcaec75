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

// drain returns all that a spool holds, and calls Done for it if asked to.
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

// Records are kept over a restart until they are done, in order.
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

// A process that looks whether a spool is in use, and so has the lock for a moment, does not
// keep another one from opening it.
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

// A record that was accepted stays, also if the limit for records is lower at the next start.
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

// files returns the segments of a closed spool with the given records.
func files(t *testing.T, records int) *memory {
	t.Helper()
	fs := newMemory()
	s := open(t, fs)
	put(t, s, 0, records)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	return fs
}

func (m *memory) segments() (names []string) {
	for name := range m.names {
		if strings.HasSuffix(name, ".seg") {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

func (m *memory) replace(name string, data []byte) *memory {
	after := newMemory()
	for n, c := range m.names {
		after.names[n] = &content{data: bytes.Clone(c.data)}
	}
	after.names[name] = &content{data: data}
	return after
}

// The last segment may be cut anywhere: all records before the cut are returned, and no
// damage is reported, as a record that is torn was never acknowledged. The bytes are counted.
func TestCutAtEveryByte(t *testing.T) {
	const records = 20
	whole := files(t, records)
	names := whole.segments()
	last := names[len(names)-1]
	data := whole.names[last].data
	first := len(names) - 1
	if first < 1 {
		t.Fatal("one segment only")
	}
	const header, frame = 44, 16
	before := 0 // records of the other segments
	for before < records && !bytes.Contains(data, body(before)) {
		before++
	}
	returned := make(map[int]bool)
	for cut := range data {
		fs := whole.replace(last, data[:cut])
		s := open(t, fs)
		got := drain(t, s, false)
		for i, b := range got {
			if !bytes.Equal(b, body(i)) {
				t.Fatalf("cut at %d: record %d is %q", cut, i, b)
			}
		}
		returned[len(got)] = true
		torn := int64(cut - header)
		for _, b := range got[before:] {
			torn -= int64(frame + len(b))
		}
		if n := s.Stats(); n.Lost != 0 || n.Damaged != 0 || n.DamagedEnds != 0 || n.Kept != 0 || n.Torn != max(0, torn) {
			t.Fatalf("cut at %d, %d bytes behind the last record: %+v", cut, torn, n)
		}
		put(t, s, 50, 52) // it can be written to again
		if again := drain(t, s, true); len(again) != 2 || !s.Empty() {
			t.Fatalf("cut at %d: %d records after two were appended", cut, len(again))
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if len(returned) < 3 || returned[records] {
		t.Errorf("the cuts left %v records", returned)
	}
}

// Bytes behind the last record are logged, as damage to that record would look the same.
func TestCutIsLogged(t *testing.T) {
	whole := files(t, 20)
	names := whole.segments()
	last := names[len(names)-1]
	data := whole.names[last].data
	for cut, lines := range map[int]int{0: 0, 1: 1} {
		var log bytes.Buffer
		opts := options()
		opts.Logger = slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelWarn}))
		s, err := spool.Open(whole.replace(last, data[:len(data)-cut]), opts)
		if err != nil {
			t.Fatal(err)
		}
		if n := strings.Count(log.String(), "file="+last+" bytes="); n != lines {
			t.Errorf("cut by %d bytes: %d lines are logged, want %d: %s", cut, n, lines, &log)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// A flipped bit costs at most the record that it is in. What is lost is counted, and kept
// for people to look at.
func TestFlipEveryByte(t *testing.T) {
	const records = 20
	whole := files(t, records)
	for n, name := range whole.segments() {
		data := whole.names[name].data
		for at := range data {
			flipped := bytes.Clone(data)
			flipped[at] ^= 1 << (at % 8)
			fs := whole.replace(name, flipped)
			s := open(t, fs)
			got := drain(t, s, true)
			stats := s.Stats()
			last := n == len(whole.segments())-1
			// The last record of the last segment may have been torn. It was not, as it has its length.
			torn := last && len(got) == records-1 && stats.Lost == 0
			if torn && (stats.DamagedEnds != 1 || stats.Torn == 0 || stats.Torn != stats.Quarantined) {
				t.Fatalf("byte %d of %s: the end is not kept: %+v", at, name, stats)
			}
			if !torn && int64(len(got))+stats.Lost != records || stats.Lost > 1 || len(got) < records-1 {
				t.Fatalf("byte %d of %s: %d records, %+v", at, name, len(got), stats)
			}
			if stats.Lost == 1 && stats.Quarantined == 0 {
				t.Fatalf("byte %d of %s: nothing was kept of what is lost", at, name)
			}
			if stats.Kept != stats.Quarantined || stats.Bytes != stats.Kept { // all else is done
				t.Fatalf("byte %d of %s: what was set aside is not counted: %+v", at, name, stats)
			}
			for _, b := range got {
				var i int
				if _, err := fmt.Sscanf(string(b[2:]), "record %d", &i); err != nil || !bytes.Equal(b, body(i)) {
					t.Fatalf("byte %d of %s: a record is %q", at, name, b)
				}
			}
			if !s.Empty() {
				t.Fatalf("byte %d of %s: the spool is not empty after all was read: %+v", at, name, stats)
			}
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// A write or a sync that fails refuses the records, and the segment is not written to
// again. What was acknowledged before stays, also over a crash.
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

// A full spool refuses records and keeps what it has. It has room again after records
// are done.
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
			if !errors.Is(err, spool.ErrFull) || n < 10 || s.Stats().Refused != 1 {
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

// What waits during a sync is written together.
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

// A file that cannot be read does not block the records behind it.
func TestUnreadableFile(t *testing.T) {
	fs := files(t, 60)
	names := fs.segments()
	s := open(t, fs)
	defer s.Close()
	fs.mu.Lock()
	fs.fail = func(call, name string) error {
		if call == "read" && name == names[1] {
			return syscall.EIO
		}
		return nil
	}
	fs.mu.Unlock()
	failures := 0
	var got int64
	for {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		_, err := s.Next(ctx)
		if errors.Is(err, context.Canceled) {
			break
		}
		if err != nil {
			failures++
			continue
		}
		got++
	}
	if n := s.Stats(); failures == 0 || n.Lost == 0 || got+n.Lost != 60 {
		t.Errorf("%d records, %d failures, %+v", got, failures, n)
	}
}
