package spool_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/morphogenetic/oona/spool"
)

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

// The last segment may be cut anywhere. All records before the cut are returned, and no damage is
// reported, because a record without its end was never acknowledged. Its bytes are counted.
func TestCutAtEveryByte(t *testing.T) {
	const records = 20
	whole := files(t, records)
	names := whole.segments()
	last := names[len(names)-1]
	data := whole.names[last].data
	first := len(names) - 1
	if first < 1 {
		t.Fatal("there is only one segment")
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
			t.Fatalf("cut at %d, %d bytes after the last record: %+v", cut, torn, n)
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

// Bytes after the last record are logged, because damage to an acknowledged record would look the same.
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

// A log line about damage has an error only if there was one.
func TestDamageIsLoggedWithoutAnError(t *testing.T) {
	whole := files(t, 20)
	names := whole.segments()
	for _, name := range []string{names[0], names[len(names)-1]} {
		data := bytes.Clone(whole.names[name].data)
		data[len(data)-1] ^= 1
		var log bytes.Buffer
		opts := options()
		opts.Logger = slog.New(slog.NewTextHandler(&log, nil))
		s, err := spool.Open(whole.replace(name, data), opts)
		if err != nil {
			t.Fatal(err)
		}
		drain(t, s, true)
		if text := log.String(); !strings.Contains(text, "copy=") || strings.Contains(text, "err=") {
			t.Errorf("damage of %s is logged as %s", name, text)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// If a bit is flipped, at most the record that has it is lost. The loss is counted, and the bytes are
// kept so that people can examine them.
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
			// The last record of the last segment could be an unfinished write. It has its whole length, so it is not.
			torn := last && len(got) == records-1 && stats.Lost == 0
			if torn && (stats.DamagedEnds != 1 || stats.Torn == 0 || stats.Torn != stats.Quarantined) {
				t.Fatalf("byte %d of %s: the end is not kept: %+v", at, name, stats)
			}
			if !torn && int64(len(got))+stats.Lost != records || stats.Lost > 1 || len(got) < records-1 {
				t.Fatalf("byte %d of %s: %d records, %+v", at, name, len(got), stats)
			}
			if stats.Lost == 1 && stats.Quarantined == 0 {
				t.Fatalf("byte %d of %s: the bytes of a lost record are not kept", at, name)
			}
			if stats.Kept != stats.Quarantined || stats.Bytes != stats.Kept { // all other records are done
				t.Fatalf("byte %d of %s: the bytes that were set aside are not counted: %+v", at, name, stats)
			}
			for _, b := range got {
				var i int
				if _, err := fmt.Sscanf(string(b[2:]), "record %d", &i); err != nil || !bytes.Equal(b, body(i)) {
					t.Fatalf("byte %d of %s: a record is %q", at, name, b)
				}
			}
			if !s.Empty() {
				t.Fatalf("byte %d of %s: the spool is not empty after all records were read: %+v", at, name, stats)
			}
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// A file that cannot be read does not block the records after it.
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
