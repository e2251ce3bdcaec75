package spool_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"syscall"
	"testing"

	"github.com/morphogenetic/oona/spool"
)

// failing makes calls of the file system fail, by name of the call and of the file.
func (m *memory) failing(fail func(call, name string) error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.fail = fail
}

// When an empty spool is opened, it numbers its files from the beginning. A damaged end is counted and
// kept even if an earlier file with the same number had a damaged end, too.
func TestDamagedEndsOfFilesWithOneNumber(t *testing.T) {
	fs := newMemory()
	var ends [][]byte
	for life := 1; life <= 2; life++ {
		s := open(t, fs)
		put(t, s, 0, 1)
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		name := fs.segments()[0]
		data := bytes.Clone(fs.names[name].data)
		data[len(data)-1] ^= byte(life)
		ends = append(ends, data[44:])
		fs = fs.replace(name, data)
		s = open(t, fs)
		if n := s.Stats(); n.DamagedEnds != 1 || n.Kept != int64(life*len(ends[0])) {
			t.Errorf("life %d: %+v", life, n)
		}
		put(t, s, 0, 1)
		wantBodies(t, drain(t, s, true), 0, 1)
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
	var kept [][]byte
	for _, name := range fs.quarantine() {
		kept = append(kept, fs.names[name].data)
	}
	for _, end := range ends {
		if !contentsHave(kept, end) {
			t.Errorf("%d files are kept, and none has %q", len(kept), end)
		}
	}
}

func contentsHave(all [][]byte, want []byte) bool {
	for _, data := range all {
		if bytes.Contains(data, want) {
			return true
		}
	}
	return false
}

// If the disk has no room for a copy, the whole file is kept instead. This holds for damage in the
// middle, for a damaged end, and for a record that cannot be sent.
func TestKeptWithoutRoomForACopy(t *testing.T) {
	noCopies := func(call, name string) error {
		if call == "create" && strings.HasPrefix(name, "quarantine-") {
			return syscall.ENOSPC
		}
		return nil
	}
	whole := files(t, 20)
	names := whole.segments()
	for what, at := range map[string]struct {
		file int
		flip bool
	}{"damage": {0, true}, "damaged end": {len(names) - 1, true}, "record": {0, false}} {
		name := names[at.file]
		data := bytes.Clone(whole.names[name].data)
		if at.flip {
			data[len(data)-1] ^= 1
		}
		fs := whole.replace(name, data)
		fs.fail = noCopies
		s := open(t, fs)
		if what == "record" {
			r, err := s.Next(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if err := s.SetAside(r); !errors.Is(err, syscall.ENOSPC) {
				t.Errorf("%s: %v", what, err)
			}
		}
		drain(t, s, true)
		if n := s.Stats(); n.Kept != int64(len(data)) || n.Bytes != n.Kept || !s.Empty() {
			t.Errorf("%s: %+v, want %d bytes kept", what, n, len(data))
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		if kept := fs.quarantine(); len(kept) != 1 || !bytes.Equal(fs.names[kept[0]].data, data) || len(fs.segments()) > 1 {
			t.Errorf("%s: the files %v are kept, and there are %v", what, kept, fs.segments())
		}
	}
}

// A file that can be neither read nor renamed is not removed.
func TestUnreadableFileThatCannotBeRenamed(t *testing.T) {
	fs := files(t, 60)
	names := fs.segments()
	s := open(t, fs)
	fs.failing(func(call, name string) error {
		if name == names[1] && (call == "read" || call == "rename") {
			return syscall.EIO
		}
		return nil
	})
	now, cancel := context.WithCancel(t.Context())
	cancel()
	var last spool.Record
	for {
		r, err := s.Next(now)
		if errors.Is(err, context.Canceled) {
			break
		}
		if err == nil {
			last = r
		}
	}
	if err := s.Done(last.Sequence); !errors.Is(err, syscall.EIO) {
		t.Errorf("Done returns %v", err)
	}
	if n := s.Stats(); n.Lost == 0 || !s.Empty() {
		t.Errorf("%+v", n)
	}
	fs.failing(nil)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if fs.names[names[1]] == nil {
		t.Errorf("the file is gone; there are %v", fs.segments())
	}
}

// Records that are skipped after the last valid one become done with it. Otherwise the spool would
// not be empty until another record comes.
func TestDamageBehindTheLastRecord(t *testing.T) {
	for _, good := range []int{0, 2} {
		fs := newMemory()
		s := open(t, fs)
		put(t, s, 0, good+1)
		fs.mu.Lock()
		data := fs.names[fs.segments()[0]].data
		data[len(data)-1] ^= 1
		fs.mu.Unlock()
		wantBodies(t, drain(t, s, true), 0, good)
		if n := s.Stats(); n.Lost != 1 || n.Records != 0 || !s.Empty() || len(fs.segments()) > 0 {
			t.Errorf("%d records before the damage: %+v, %v", good, n, fs.segments())
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// If the oldest files are missing, Open and Look count their records as lost, also if no record was
// done before.
func TestOldestFilesAreMissing(t *testing.T) {
	for _, done := range []int{0, 1} {
		t.Run(fmt.Sprint(done), func(t *testing.T) { oldestFilesAreMissing(t, done) })
	}
}

func oldestFilesAreMissing(t *testing.T, done int) {
	fs := newMemory()
	s := open(t, fs)
	put(t, s, 0, 60)
	for range done {
		r, err := s.Next(t.Context())
		if err := errors.Join(err, s.Done(r.Sequence)); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	names := fs.segments()
	for _, name := range names[:2] {
		if err := fs.Remove(name); err != nil {
			t.Fatal(err)
		}
	}
	v, err := spool.Look(fs, 1<<12, func(string, spool.Record) error { return nil })
	if err != nil {
		t.Fatal(err)
	}
	s = open(t, fs)
	missing := s.Stats().Lost
	got := drain(t, s, true)
	if missing == 0 || int64(len(got))+missing != int64(60-done) || v.Segments[0].Lost != missing {
		t.Errorf("%d records are there, %d are counted as lost, and Look finds %+v", len(got), missing, v.Segments[0])
	}
	if n := s.Stats(); n.Lost != missing || n.Damaged != 1 {
		t.Errorf("%+v", n)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

// Requests leave no files on a disk that accepts no data.
func TestFailedWritesLeaveNoFiles(t *testing.T) {
	for _, call := range []string{"write", "sync"} {
		fs := newMemory()
		s := open(t, fs)
		begun, broken := make(map[string]bool), false // begun are the files that have their header
		fs.failing(func(c, name string) error {
			if c == call && broken && begun[name] {
				return errShort
			}
			begun[name] = begun[name] || c == call
			return nil
		})
		put(t, s, 0, 3)
		before := len(fs.segments())
		fs.mu.Lock()
		broken = true
		fs.mu.Unlock()
		for range 50 {
			if err := s.Append(t.Context(), nil, body(100)); !errors.Is(err, errShort) {
				t.Fatalf("%s: %v", call, err)
			}
		}
		fs.failing(nil)
		if n := s.Stats(); len(fs.segments()) > before || n.Segments > before || n.Failed != 50 {
			t.Errorf("%s: %d files, %+v", call, len(fs.segments()), n)
		}
		put(t, s, 3, 6)
		wantBodies(t, drain(t, s, true), 0, 6)
		if n := s.Stats(); n.Bytes != 0 {
			t.Errorf("%s: %+v", call, n)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
}
