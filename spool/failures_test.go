package spool_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"syscall"
	"testing"

	"github.com/morphogenetic/oona/spool"
)

// errGone is what every call returns after the system has crashed.
var errGone = errors.New("the system has crashed")

// play takes a spool through a fixed sequence of appends, reads, a record that is set aside, and a
// restart. It returns the records that were acknowledged, and those that are done.
func play(t *testing.T, fs *memory) (acknowledged, done []int) {
	t.Helper()
	var s *spool.Spool
	reopen := func() bool {
		for range 3 {
			var err error
			if s, err = spool.Open(fs, options()); err == nil {
				return true
			}
		}
		return false
	}
	appendSome := func(from, end int) {
		for i := from; i < end; i++ {
			if s.Append(t.Context(), keysOf(body(i)), body(i)) == nil {
				acknowledged = append(acknowledged, i)
			}
		}
	}
	read := func(n int, aside bool) {
		now, cancel := context.WithCancel(t.Context())
		cancel()
		for range n {
			r, err := s.Next(now)
			if err != nil {
				r, err = s.Next(now) // a failed read is repeated once
			}
			if err != nil {
				return
			}
			if aside && s.SetAside(r) != nil {
				return
			}
			done = append(done, numberOf(t, r.Body))
			_ = s.Done(r.Sequence) // if the number cannot be saved, records only come again
		}
	}
	if !reopen() {
		return nil, nil
	}
	appendSome(0, 12)
	read(4, false)
	appendSome(12, 16)
	read(1, true)
	_ = s.Close() // after an error, records only come again
	if !reopen() {
		return acknowledged, done
	}
	appendSome(16, 20)
	read(9, false) // to the end of a file, which is removed
	_ = s.Close()
	return acknowledged, done
}

func numberOf(t *testing.T, b []byte) (i int) {
	t.Helper()
	if _, err := fmt.Sscanf(string(b[2:]), "record %d", &i); err != nil || !bytes.Equal(b, body(i)) {
		t.Fatalf("a record is %q", b)
	}
	return i
}

// wantLeft checks that a spool returns, in order, all records that were acknowledged and are not
// done. The spool may count at most lost records as lost.
func wantLeft(t *testing.T, fs *memory, acknowledged, done []int, lost int) {
	t.Helper()
	s := open(t, fs)
	var got []int
	for _, b := range drain(t, s, false) {
		got = append(got, numberOf(t, b))
	}
	if n := s.Stats(); n.Lost > int64(lost) || n.Damaged > int64(lost) {
		t.Errorf("%+v", n)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if !slices.IsSorted(got) {
		t.Errorf("the records are %v", got)
	}
	for _, i := range acknowledged {
		if !slices.Contains(done, i) && !slices.Contains(got, i) {
			t.Errorf("record %d was acknowledged, but is not in the spool: %v", i, got)
		}
	}
}

// calls returns how many calls of the file system play makes.
func calls(t *testing.T) (n int) {
	t.Helper()
	fs := newMemory()
	acknowledged, done := play(t, fs)
	if len(acknowledged) != 20 || len(done) != 14 {
		t.Fatalf("without failures %v are acknowledged, and %v are done", acknowledged, done)
	}
	for _, count := range fs.calls {
		n += count
	}
	return n
}

// Acknowledged records are kept, whichever call of the file system fails and in whichever way.
func TestEveryFailure(t *testing.T) {
	kinds := make(map[string]bool)
	for n := range calls(t) {
		for _, failure := range []error{syscall.EIO, syscall.ENOSPC, errShort} {
			fs := newMemory()
			count, failed := 0, ""
			fs.fail = func(call, _ string) error {
				count++
				if count-1 == n {
					failed = call
					return failure
				}
				return nil
			}
			acknowledged, done := play(t, fs)
			kinds[failed] = true
			fs.fail = nil
			for name, after := range map[string]*memory{"restarted": fs, "crashed": fs.crash(rand.New(rand.NewPCG(uint64(n), 3)))} {
				after.locked = false
				// A refused record that was written and not synced may be in the file, and may be
				// missing after a crash. It is then counted as lost, although it was never acknowledged.
				wantLeft(t, after, acknowledged, done, 20-len(acknowledged))
				if t.Failed() {
					t.Fatalf("%s after call %d, %s, has failed with %v", name, n, failed, failure)
				}
			}
		}
	}
	for _, call := range []string{"list", "create", "open", "rename", "remove", "syncdir", "free", "write", "read", "sync", "size"} {
		if !kinds[call] {
			t.Errorf("no call of %s has failed", call)
		}
	}
}

// Acknowledged records survive a crash of the system at any call.
func TestCrashAtEveryCall(t *testing.T) {
	for n := range calls(t) {
		for seed := range uint64(3) {
			fs := newMemory()
			count := 0
			fs.fail = func(string, string) error {
				if count++; count > n {
					return errGone
				}
				return nil
			}
			acknowledged, done := play(t, fs)
			wantLeft(t, fs.crash(rand.New(rand.NewPCG(uint64(n), seed))), acknowledged, done, 0)
			if t.Failed() {
				t.Fatalf("after a crash at call %d, seed %d", n, seed)
			}
		}
	}
}

// Zeros after the last record are not damage. Some file systems leave them after a crash.
func TestZerosBehindTheLastRecord(t *testing.T) {
	whole := files(t, 20)
	names := whole.segments()
	last := names[len(names)-1]
	for _, zeros := range []int{1, 15, 16, 17, 4096, 1 << 19} {
		s := open(t, whole.replace(last, append(bytes.Clone(whole.names[last].data), make([]byte, zeros)...)))
		wantBodies(t, drain(t, s, false), 0, 20)
		if n := s.Stats(); n.Lost != 0 || n.Damaged != 0 || n.DamagedEnds != 0 || n.Torn != int64(zeros) {
			t.Errorf("%d zeros: %+v", zeros, n)
		}
		put(t, s, 20, 22)
		wantBodies(t, drain(t, s, true), 20, 22)
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// If the last file cannot be read, it is not treated as empty. Otherwise new records would get the
// sequence numbers of its records.
func TestUnreadableLastFile(t *testing.T) {
	fs := files(t, 20)
	names := fs.segments()
	fs.fail = func(call, name string) error {
		if call == "read" && name == names[len(names)-1] {
			return syscall.EIO
		}
		return nil
	}
	if s, err := spool.Open(fs, options()); !errors.Is(err, syscall.EIO) {
		t.Errorf("Open returns %v, %v", s, err)
	}
	fs.fail = nil
	s := open(t, fs)
	wantBodies(t, drain(t, s, true), 0, 20)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

// If the file system has no space, the error says that the spool is full, even if only the write fails.
func TestNoRoom(t *testing.T) {
	for _, call := range []string{"write", "sync", "create"} {
		for _, failure := range []error{syscall.ENOSPC, syscall.EDQUOT} {
			fs := newMemory()
			s := open(t, fs)
			put(t, s, 0, 5)
			fs.mu.Lock()
			fs.fail = func(c, _ string) error {
				if c == call {
					return failure
				}
				return nil
			}
			fs.mu.Unlock()
			var err error
			for i := 5; err == nil; i++ {
				err = s.Append(t.Context(), keysOf(body(100)), body(100))
			}
			if n := s.Stats(); !errors.Is(err, spool.ErrFull) || !errors.Is(err, failure) || n.Refused != 1 || n.Failed != 0 {
				t.Errorf("%s: %v; %+v", call, err, n)
			}
			fs.mu.Lock()
			fs.fail = nil
			fs.mu.Unlock()
			put(t, s, 5, 10)
			if err := s.Close(); err != nil {
				t.Error(err)
			}
		}
	}
}
