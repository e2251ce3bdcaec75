package spool_test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/morphogenetic/oona/spool"
)

func openQueues(t *testing.T, dir string, opts spool.Options) *spool.Queues {
	t.Helper()
	q, err := spool.OpenQueues(dir, opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = q.Close() })
	return q
}

func queue(t *testing.T, q *spool.Queues, name string) *spool.Spool {
	t.Helper()
	s, err := q.Queue(name)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// fillUp appends records of one size to a queue until there is no room, and returns how many there are.
func fillUp(t *testing.T, s *spool.Spool) (n int) {
	t.Helper()
	for ; ; n++ {
		switch err := s.Append(t.Context(), keysOf(body(90)), body(90)); {
		case errors.Is(err, spool.ErrFull):
			return n
		case err != nil:
			t.Fatal(err)
		}
	}
}

// Queues share one bound, also after a restart. Records of one queue do not wait for another.
func TestQueues(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "not", "there", "yet")
	opts := options()
	opts.MaxBytes = 8 << 10
	q := openQueues(t, dir, opts)
	if _, err := spool.OpenQueues(dir, opts); !errors.Is(err, spool.ErrLocked) {
		t.Errorf("a second process gets %v", err)
	}
	for _, name := range []string{"../a", "a/b", "/a", "a/"} {
		if s, err := q.Queue(name); err == nil {
			t.Errorf("there is a queue %q: %v", name, s.Stats())
		}
	}
	put(t, queue(t, q, "one"), 0, 10)
	two := fillUp(t, queue(t, q, "two"))
	if two < 10 || fillUp(t, queue(t, q, "one")) > 0 || fillUp(t, queue(t, q, "three")) > 0 {
		t.Fatalf("%d records fit: %+v", two, q.Stats())
	}
	if n := q.Stats(); n.Records != int64(10+two) || n.Bytes > opts.MaxBytes+1<<10 {
		t.Errorf("%+v", n)
	}
	if err := q.Close(); err != nil {
		t.Fatal(err)
	}
	q = openQueues(t, dir, opts)
	if names := q.Names(); !slices.Equal(names, []string{"", "one", "three", "two"}) {
		t.Errorf("the queues are %q", names)
	}
	if n := fillUp(t, queue(t, q, "three")); n > 0 {
		t.Errorf("%d records fit into a full directory after a restart", n)
	}
	if got := drain(t, queue(t, q, "two"), true); len(got) != two {
		t.Errorf("%d records of the second queue are there, want %d", len(got), two)
	}
	if n := fillUp(t, queue(t, q, "three")); n < two/2 {
		t.Errorf("%d records fit after %d were done", n, two)
	}
	wantBodies(t, drain(t, queue(t, q, "one"), true), 0, 10)
	drain(t, queue(t, q, "three"), true)
	if n := q.Stats(); !q.Empty() || n.Bytes != 0 || n.Records != 0 {
		t.Errorf("%+v", n)
	}
	if n := fillUp(t, queue(t, q, "one")); n < two {
		t.Errorf("%d records fit into empty queues, and %d did before: the bound counts wrong bytes", n, two)
	}
}

// LookQueues finds the records of all queues, and the files in their directories.
func TestLookQueues(t *testing.T) {
	dir := t.TempDir()
	q := openQueues(t, dir, options())
	put(t, queue(t, q, ""), 0, 3)
	put(t, queue(t, q, "one"), 3, 9)
	r, err := queue(t, q, "one").Next(t.Context())
	if err := errors.Join(err, queue(t, q, "one").SetAside(r)); err != nil {
		t.Fatal(err)
	}
	var got [][]byte
	v, err := spool.LookQueues(dir, 1<<12, func(segment string, r spool.Record) error {
		got = append(got, bytes.Clone(r.Body))
		_, err := os.Stat(filepath.Join(dir, segment))
		return err
	})
	if err != nil || len(v.Kept) != 1 {
		t.Fatalf("%v, %+v", err, v)
	}
	wantBodies(t, got, 0, 9)
	from, err := spool.OpenExisting(dir)
	if err != nil {
		t.Fatal(err)
	}
	if aside, err := spool.ReadAside(from, v.Kept[0]); err != nil || !bytes.Equal(aside.Body, body(3)) {
		t.Errorf("%v, %v", aside, err)
	}
}

// A full spool with small files accepts records again while it is read. With one large file it would be
// full until all records are done.
func TestFullSpoolTakesRecordsBeforeItIsEmpty(t *testing.T) {
	for _, test := range []struct {
		segment int64
		takes   bool
	}{{400, true}, {1 << 20, false}} {
		opts := options()
		opts.MaxBytes, opts.SegmentBytes = 8<<10, test.segment
		s, err := spool.Open(newMemory(), opts)
		if err != nil {
			t.Fatal(err)
		}
		n := fillUp(t, s)
		for range n / 4 {
			r, err := s.Next(t.Context())
			if err := errors.Join(err, s.Done(r.Sequence)); err != nil {
				t.Fatal(err)
			}
		}
		more := 0
		if err := s.Append(t.Context(), keysOf(body(50)), body(50)); err == nil {
			more = 1 + fillUp(t, s)
		} else if !errors.Is(err, spool.ErrFull) {
			t.Fatal(err)
		}
		if test.takes && more < n/8 || !test.takes && more > 0 {
			t.Errorf("files of %d bytes: %d of %d records are done, and %d more fit: %+v", test.segment, n/4, n, more, s.Stats())
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// A record may be larger than SegmentBytes, and larger than what is read at once. If it is damaged,
// no other record is lost.
func TestRecordLargerThanASegment(t *testing.T) {
	const size = 600 << 10
	large := bytes.Repeat([]byte("large "), size/6)
	opts := options()
	opts.MaxBytes, opts.RecordBytes = 8<<20, size
	fs := newMemory()
	s, err := spool.Open(fs, opts)
	if err != nil {
		t.Fatal(err)
	}
	for i := range 9 {
		b := body(i)
		if i%3 == 1 {
			b = large
		}
		if err := s.Append(t.Context(), keysOf(b), b); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Append(t.Context(), nil, make([]byte, size+1)); !errors.Is(err, spool.ErrTooLarge) {
		t.Errorf("a record above the limit: %v", err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	for _, name := range fs.segments() {
		data := fs.names[name].data
		damaged := len(data) > size
		if damaged {
			data = bytes.Clone(data)
			data[len(data)/2] ^= 1
		}
		s, err := spool.Open(fs.replace(name, data), opts)
		if err != nil {
			t.Fatal(err)
		}
		got := drain(t, s, true)
		if n := s.Stats(); damaged != (n.Lost == 1) || int64(len(got))+n.Lost != 9 {
			t.Errorf("%s: %d records, %+v", name, len(got), n)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// If the directory of a queue cannot be made, Queue returns an error. The other queues still work.
func TestQueueWithoutDirectory(t *testing.T) {
	dir := t.TempDir()
	q := openQueues(t, dir, options())
	put(t, queue(t, q, "one"), 0, 3)
	if err := os.WriteFile(filepath.Join(dir, "queue-two"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if s, err := q.Queue("two"); err == nil {
		t.Errorf("there is a queue: %+v", s.Stats())
	}
	wantBodies(t, drain(t, queue(t, q, "one"), true), 0, 3)
	if got := fmt.Sprint(q.Names()); got != "[ one]" {
		t.Errorf("the queues are %s", got)
	}
}

// Limit returns how large the files may become: at most MaxBytes, and not more than the file system
// can hold while the headroom stays free.
func TestLimit(t *testing.T) {
	dir := t.TempDir()
	for _, test := range []struct{ headroom, more int64 }{{0, 1<<20 - 1}, {1 << 62, 0}} {
		opts := options()
		opts.Headroom = 0
		q := openQueues(t, dir, opts)
		if q.Empty() {
			put(t, queue(t, q, "one"), 0, 5)
		}
		used := q.Stats().Bytes
		if err := q.Close(); err != nil {
			t.Fatal(err)
		}
		opts.Headroom, opts.MaxBytes = test.headroom, used+1<<20-1
		q = openQueues(t, dir, opts)
		if got := q.Limit(); used == 0 || got != used+test.more {
			t.Errorf("the limit is %d with a headroom of %d and %d bytes in use", got, test.headroom, used)
		}
		if err := q.Close(); err != nil {
			t.Fatal(err)
		}
	}
}
