package spool_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"testing/synctest"

	"golang.org/x/sys/unix"

	"github.com/morphogenetic/oona/spool"
)

// A disk may have bytes of an older file after the last record. They are not records of this
// file, even if they have the next sequence numbers.
func TestBytesOfAnOlderFile(t *testing.T) {
	older, fs := files(t, 5), files(t, 3)
	begin := 44
	for i := range 3 {
		begin += 16 + len(body(i))
	}
	name := fs.segments()[0]
	stale := older.names[older.segments()[0]].data[begin:]
	s := open(t, fs.replace(name, append(bytes.Clone(fs.names[name].data), stale...)))
	wantBodies(t, drain(t, s, true), 0, 3)
	if n := s.Stats(); n.Torn != int64(len(stale)) {
		t.Errorf("%+v, want %d bytes after the last record", n, len(stale))
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

// A record is damaged if its sequence number has changed, even if a record with the new number is
// missing.
func TestWrongNumber(t *testing.T) {
	fs := files(t, 6)
	name := fs.segments()[0]
	data := bytes.Clone(fs.names[name].data)
	second := 44 + 16 + len(body(0))
	third := second + 16 + len(body(1))
	data[third-1] ^= 1                               // record 1 is damaged
	binary.LittleEndian.PutUint64(data[third+8:], 1) // record 2 now has the number of record 1
	s := open(t, fs.replace(name, data))
	got := drain(t, s, true)
	if n := s.Stats(); n.Lost != 2 || len(got) != 4 || !bytes.Equal(got[1], body(3)) {
		t.Errorf("%d records, %+v", len(got), n)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

// If the file "done" is damaged, records come again, and none is skipped.
func TestDamagedDone(t *testing.T) {
	fs := newMemory()
	s := open(t, fs)
	put(t, s, 0, 20)
	r, err := s.Next(t.Context())
	if err := errors.Join(err, s.Done(r.Sequence), s.Close()); err != nil {
		t.Fatal(err)
	}
	data := fs.names["done"].data
	for at := range data {
		flipped := bytes.Clone(data)
		flipped[at] ^= 1 << (at % 8)
		s := open(t, fs.replace("done", flipped))
		wantBodies(t, drain(t, s, false), 0, 20)
		if n := s.Stats(); n.Lost+n.Damaged != 0 {
			t.Errorf("byte %d: %+v", at, n)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// After a crash, the file "done" and a record that was set aside are complete.
func TestCrashAfterDoneAndSetAside(t *testing.T) {
	for seed := range uint64(20) {
		fs := newMemory()
		s := open(t, fs)
		put(t, s, 0, 3)
		r, err := s.Next(t.Context())
		if err := errors.Join(err, s.SetAside(r), s.Done(r.Sequence)); err != nil {
			t.Fatal(err)
		}
		after := fs.crash(rand.New(rand.NewPCG(seed, 5)))
		v, err := spool.Look(after, 1<<12, func(string, spool.Record) error { return nil })
		if err != nil || v.Unsaved != nil || v.Done != 1 || len(v.Kept) != 1 {
			t.Fatalf("seed %d: %v, %+v", seed, err, v)
		}
		if aside, err := spool.ReadAside(after, v.Kept[0]); err != nil || !bytes.Equal(aside.Body, body(0)) {
			t.Fatalf("seed %d: %v, %q", seed, err, aside.Body)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// holdWrite makes the next write wait until the returned function is called.
func (m *memory) holdWrite() (release func()) {
	held := make(chan struct{})
	var once sync.Once
	m.failing(func(call, _ string) error {
		if call == "write" {
			once.Do(func() { m.mu.Unlock(); <-held; m.mu.Lock() })
		}
		return nil
	})
	return func() { close(held) }
}

// Holds is true for the key of a record that was appended during a write of another, until the record
// is done. If Holds became false earlier, a later record of the key could be sent before it.
func TestHoldsWhatWaitsDuringAWrite(t *testing.T) { synctest.Test(t, testHoldsWhatWaits) }

func testHoldsWhatWaits(t *testing.T) {
	fs := newMemory()
	s := open(t, fs)
	defer s.Close()
	release := fs.holdWrite()
	var writers sync.WaitGroup
	for i := range 2 {
		writers.Go(func() {
			if err := s.Append(t.Context(), keysOf(body(i)), body(i)); err != nil {
				t.Error(err)
			}
		})
		synctest.Wait()
	}
	release()
	writers.Wait()
	for i := range 2 {
		if key := keysOf(body(i))[0]; !s.Holds(key) {
			t.Errorf("record %d is waiting, but Holds is false for its key", i)
		}
		r, err := s.Next(t.Context())
		if err := errors.Join(err, s.Done(r.Sequence)); err != nil {
			t.Fatal(err)
		}
	}
}

// Close keeps the directory locked until the waiting records are on disk.
func TestCloseWaits(t *testing.T) { synctest.Test(t, testCloseWaits) }

func testCloseWaits(t *testing.T) {
	fs := newMemory()
	s := open(t, fs)
	release := fs.holdWrite()
	appended, closed := make(chan error, 1), make(chan error, 1)
	go func() { appended <- s.Append(t.Context(), nil, body(0)) }()
	synctest.Wait()
	go func() { closed <- s.Close() }()
	synctest.Wait()
	if _, err := spool.Open(fs, options()); !errors.Is(err, spool.ErrLocked) {
		t.Errorf("while a record is being written, another process gets %v", err)
	}
	release()
	if err := errors.Join(<-appended, <-closed); err != nil {
		t.Error(err)
	}
	after := open(t, fs)
	wantBodies(t, drain(t, after, true), 0, 1)
	if err := after.Close(); err != nil {
		t.Error(err)
	}
}

// InUse ignores another process that is only looking at the spool.
func TestLookingIsNotUse(t *testing.T) {
	dir := t.TempDir()
	fs, err := spool.OpenDirectory(dir)
	if err != nil {
		t.Fatal(err)
	}
	s := open(t, fs)
	if used, err := spool.InUse(dir); err != nil || !used {
		t.Errorf("a spool that is open: %t, %v", used, err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	look, err := os.Open(filepath.Join(dir, "LOCK"))
	if err != nil {
		t.Fatal(err)
	}
	defer look.Close()
	if err := unix.Flock(int(look.Fd()), unix.LOCK_SH|unix.LOCK_NB); err != nil {
		t.Fatal(err)
	}
	if used, err := spool.InUse(dir); err != nil || used {
		t.Errorf("a spool at which another process looks: %t, %v", used, err)
	}
}
