package spool

import (
	"errors"
	"fmt"
	"log/slog"
	"testing"
)

// Clients choose the keys, so the memory for them is limited. Until the records with more keys are done,
// the spool seems to hold every key. It does so after a restart, too.
func TestManyKeys(t *testing.T) {
	keys := func(body []byte) (all []string) { // each record has a third of the keys
		for i := range mostKeys / 3 {
			all = append(all, fmt.Sprintf("%s/%d", body, i))
		}
		return all
	}
	fs, err := OpenDirectory(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	opts := Options{MaxBytes: 1 << 20, SegmentBytes: 1 << 20, RecordBytes: 1 << 10, Keys: keys, Logger: slog.New(slog.DiscardHandler)}
	s, err := Open(fs, opts)
	if err != nil {
		t.Fatal(err)
	}
	for i := range 5 {
		name := fmt.Sprint(i)
		if err := s.Append(t.Context(), keys([]byte(name)), []byte(name)); err != nil {
			t.Fatal(err)
		}
		if got, want := s.Holds("another"), i >= 3; got != want {
			t.Errorf("after %d records, the spool holds another key: %t, want %t", i+1, got, want)
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if s, err = Open(fs, opts); err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if len(s.last) > mostKeys {
		t.Errorf("the spool has %d keys, the limit is %d", len(s.last), mostKeys)
	}
	for i := range 5 {
		for n := i; n < 5; n++ {
			if key := fmt.Sprintf("%d/0", n); !s.Holds(key) {
				t.Errorf("before record %d is done, the spool does not hold the key %s", i, key)
			}
		}
		if !s.Holds("another") {
			t.Errorf("before record %d is done, the spool does not hold another key", i)
		}
		r, err := s.Next(t.Context())
		if err := errors.Join(err, s.Done(r.Sequence)); err != nil {
			t.Fatal(err)
		}
	}
	if s.Holds("another", "4/0") {
		t.Error("an empty spool holds a key")
	}
}

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
