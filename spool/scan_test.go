package spool

import (
	"errors"
	"io"
	"testing"
)

// growing is a file that is written while it is read. The first read finds zeros where a record is
// written later.
type growing struct {
	File
	data  []byte
	reads int
	from  int64 // offset of the record that is written later
}

func (g *growing) Size() (int64, error) { return int64(len(g.data)), nil }

func (g *growing) ReadAt(p []byte, at int64) (int, error) {
	g.reads++
	n := copy(p, g.data[at:])
	if g.reads == 1 && at < g.from {
		clear(p[g.from-at : n])
	}
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

// Bytes that were read ahead before a record was written are read again before they count as damage.
func TestReadAheadOfAWrite(t *testing.T) {
	h := newHeader(1, 0)
	data := h.appendRecord(h.append(nil), 0, []byte("first"))
	from := int64(len(data))
	data = h.appendRecord(data, 1, []byte("second"))
	file := &growing{data: data, from: from}
	s := newScanner(file, h, mostRecord)
	for _, want := range []string{"first", "second"} {
		if r, bad, err := s.read(2); err != nil || bad != nil || string(r.Body) != want {
			t.Fatalf("%q, %+v, %v; want %q", r.Body, bad, err, want)
		}
	}
	if file.reads < 2 {
		t.Error("the record was not written after it was read")
	}
	if _, _, err := s.read(2); !errors.Is(err, io.EOF) {
		t.Errorf("after the last record: %v", err)
	}
}
