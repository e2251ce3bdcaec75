package spool_test

import (
	"bytes"
	"errors"
	"testing"

	"github.com/morphogenetic/oona/spool"
)

// look returns what Look finds, and fails if Look changes anything.
func look(t *testing.T, fs *memory) (*spool.View, [][]byte) {
	t.Helper()
	before := len(fs.names)
	fs.calls = map[string]int{}
	var bodies [][]byte
	v, err := spool.Look(fs, 1<<12, func(_ string, r spool.Record) error {
		bodies = append(bodies, bytes.Clone(r.Body))
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, call := range []string{"create", "rename", "remove", "write", "sync", "syncdir"} {
		if n := fs.calls[call]; n > 0 {
			t.Errorf("Look has called %s", call)
		}
	}
	if len(fs.names) != before {
		t.Error("Look has changed the directory")
	}
	return v, bodies
}

// Look finds what Open and Next find, with and without damage.
func TestLook(t *testing.T) {
	fs := newMemory()
	s := open(t, fs)
	put(t, s, 0, 20)
	var r spool.Record
	for range 7 {
		var err error
		if r, err = s.Next(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(s.Done(r.Sequence), s.SetAside(r)); err != nil {
		t.Fatal(err)
	}
	_, got := look(t, fs) // in use
	wantBodies(t, got, 7, 20)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	v, _ := look(t, fs)
	if len(v.Kept) != 1 || !v.Kept[0].Record {
		t.Fatalf("%+v", v.Kept)
	}
	if aside, err := spool.ReadAside(fs, v.Kept[0]); err != nil || aside.Sequence != 6 || !bytes.Equal(aside.Body, body(6)) {
		t.Errorf("%v, %v", aside, err)
	}
	for _, name := range fs.segments() {
		data := fs.names[name].data
		for at := range data {
			flipped := bytes.Clone(data)
			flipped[at] ^= 1 << (at % 8)
			for what, changed := range map[string][]byte{"flipped": flipped, "cut": data[:at]} {
				after := fs.replace(name, changed)
				v, got := look(t, after)
				opened := open(t, after)
				want := drain(t, opened, true)
				var lost, ends int64
				for _, seg := range v.Segments {
					lost += seg.Lost
					if seg.DamagedEnd {
						ends++
					}
				}
				if n := opened.Stats(); len(got) != len(want) || lost != n.Lost || ends != n.DamagedEnds {
					t.Fatalf("%s at %d of %s: Look finds %d records, %d lost ones and %d damaged ends, Next %d: %+v", what, at, name, len(got), lost, ends, len(want), n)
				}
				if err := opened.Close(); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
}
