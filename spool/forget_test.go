package spool

import (
	"errors"
	"fmt"
	"log/slog"
	"testing"
)

// A spool that is never empty does not keep the keys of all records that were ever in it.
func TestKeysAreForgotten(t *testing.T) {
	fs, err := OpenDirectory(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	s, err := Open(fs, Options{MaxBytes: 1 << 20, SegmentBytes: 400, RecordBytes: 1 << 10, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	add := func(i int) {
		if err := s.Append(t.Context(), []string{fmt.Sprint(i)}, make([]byte, 100)); err != nil {
			t.Fatal(err)
		}
	}
	add(0)
	for i := range 200 {
		add(i + 1)
		r, err := s.Next(t.Context())
		if err := errors.Join(err, s.Done(r.Sequence)); err != nil {
			t.Fatal(err)
		}
		if s.Empty() || !s.Holds(fmt.Sprint(i+1)) || s.Holds(fmt.Sprint(i)) {
			t.Fatalf("after %d records: empty %t", i, s.Empty())
		}
	}
	if n := len(s.last); n > 20 {
		t.Errorf("the spool has %d keys for one record", n)
	}
}
