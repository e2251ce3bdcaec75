package spool_test

import (
	"bytes"
	"errors"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/morphogenetic/oona/spool"
)

// quarantine returns the files that were set aside.
func (m *memory) quarantine() (names []string) {
	for name := range m.names {
		if strings.HasPrefix(name, "quarantine-") {
			names = append(names, name)
		}
	}
	return names
}

// When a spool is opened, it keeps a copy of all bytes at the damaged end of the last segment, because
// their sequence numbers are used again and the file is removed. Another start does not count them
// again.
func TestDamagedEnd(t *testing.T) {
	whole := files(t, 20)
	names := whole.segments()
	last := names[len(names)-1]
	data := bytes.Clone(whole.names[last].data)
	end := len(data) - len(body(19)) - 16 // where the last record begins
	data[len(data)-1] ^= 1
	fs := whole.replace(last, data)
	for _, ends := range []int64{1, 0} {
		s := open(t, fs)
		if n := s.Stats(); n.DamagedEnds != ends || n.Torn != int64(len(data)-end) || n.Kept != n.Torn {
			t.Errorf("%+v, want %d damaged ends of %d bytes", n, ends, len(data)-end)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
	s := open(t, fs)
	put(t, s, 19, 21)
	wantBodies(t, drain(t, s, true), 0, 21)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if kept := fs.quarantine(); len(kept) != 1 || !bytes.Equal(fs.names[kept[0]].data, data[end:]) || len(fs.segments()) != 0 {
		t.Errorf("the files %v are kept", kept)
	}
}

// A spool opens even if its damaged end cannot be copied. The next start tries the copy again.
func TestDamagedEndThatCannotBeCopied(t *testing.T) {
	whole := files(t, 20)
	names := whole.segments()
	last := names[len(names)-1]
	data := bytes.Clone(whole.names[last].data)
	data[len(data)-1] ^= 1
	for _, call := range []string{"create", "write", "sync", "rename"} {
		fs := whole.replace(last, data)
		fs.fail = func(c, name string) error {
			if c == call && strings.HasPrefix(name, "quarantine-") {
				return syscall.ENOSPC
			}
			return nil
		}
		s := open(t, fs)
		if n := s.Stats(); n.DamagedEnds != 1 || n.Kept != 0 || len(fs.quarantine()) != 0 {
			t.Errorf("%s: %+v, %v", call, n, fs.quarantine())
		}
		fs.fail = nil
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		s = open(t, fs)
		if n := s.Stats(); n.DamagedEnds != 1 || n.Kept == 0 || len(fs.quarantine()) != 1 {
			t.Errorf("after %s has failed: %+v, %v", call, n, fs.quarantine())
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// Files that were set aside count towards the size of the spool, also after a restart, until people
// delete them. The error of a full spool says how large they are.
func TestKeptFilesCount(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fs := newMemory()
		opts := options()
		opts.MaxBytes = 8 << 10
		begin := func() *spool.Spool {
			s, err := spool.Open(fs, opts)
			if err != nil {
				t.Fatal(err)
			}
			return s
		}
		s := begin()
		for i := range uint64(3) {
			if err := s.SetAside(spool.Record{Sequence: i, Body: make([]byte, 2<<10)}); err != nil {
				t.Fatal(err)
			}
		}
		if err := s.SetAside(spool.Record{Sequence: 2, Body: make([]byte, 2<<10)}); err != nil { // once more
			t.Fatal(err)
		}
		for _, when := range []string{"now", "after a restart"} {
			time.Sleep(time.Minute)
			if n := s.Stats(); n.Kept != 6<<10 || n.Bytes != n.Kept {
				t.Errorf("%s: %+v", when, n)
			}
			large := make([]byte, 3<<10)
			if err := s.Append(t.Context(), nil, large); !errors.Is(err, spool.ErrFull) || !strings.Contains(err.Error(), "6144 are files quarantine-") {
				t.Errorf("%s: %v", when, err)
			}
			if n := s.Stats(); n.Refused != 1 {
				t.Errorf("%s: %+v", when, n)
			}
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			s = begin()
		}
		for _, name := range fs.quarantine() {
			if err := fs.Remove(name); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(time.Minute)
		if err := s.Append(t.Context(), nil, make([]byte, 3<<10)); err != nil {
			t.Errorf("when the files are deleted: %v", err)
		}
		if n := s.Stats(); n.Kept != 0 || n.Refused != 0 {
			t.Errorf("%+v", n)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	})
}

// The files that one queue has set aside count towards the limit of all queues. When they are deleted,
// all queues have the room again.
func TestKeptFilesOfAnotherQueue(t *testing.T) {
	opts := options()
	opts.MaxBytes = 8 << 10
	q, err := spool.OpenQueues(t.TempDir(), opts)
	if err != nil {
		t.Fatal(err)
	}
	defer q.Close()
	one, err := q.Queue("one")
	if err != nil {
		t.Fatal(err)
	}
	other, err := q.Queue("other")
	if err != nil {
		t.Fatal(err)
	}
	if err := one.SetAside(spool.Record{Body: make([]byte, 7<<10)}); err != nil {
		t.Fatal(err)
	}
	if err := other.Append(t.Context(), nil, make([]byte, 2<<10)); !errors.Is(err, spool.ErrFull) {
		t.Errorf("another queue: %v", err)
	}
	if n := q.Stats(); n.Kept != 7<<10 || n.Bytes != n.Kept {
		t.Errorf("%+v", n)
	}
	if err := other.AppendMoved(t.Context(), nil, make([]byte, 2<<10)); err != nil {
		t.Errorf("a record that is moved: %v", err)
	}
	wantHeld := int64(7<<10 + 2<<10 + 16 + 44)
	if n := q.Stats(); n.Bytes != wantHeld {
		t.Errorf("%+v, want %d bytes", n, wantHeld)
	}
}
