package spool

import (
	"encoding/binary"
	"hash/crc32"
	"slices"
	"testing"
)

// The checksum of a record covers the salt of its file, its number, its length and its body. The
// format of a record is written out here, because spools on disks have it and it must not change.
func TestFormOfARecord(t *testing.T) {
	h := header{number: 1, first: 5, salt: [16]byte{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16}}
	body := []byte("the body")
	number, length := binary.LittleEndian.AppendUint64(nil, 7), binary.LittleEndian.AppendUint32(nil, uint32(len(body)))
	sum := crc32.Checksum(slices.Concat(h.salt[:], number, length, body), crc32.MakeTable(crc32.Castagnoli))
	want := slices.Concat(length, binary.LittleEndian.AppendUint32(nil, sum), number, body)
	if got := h.appendRecord([]byte("before"), 7, body); !slices.Equal(got, append([]byte("before"), want...)) {
		t.Errorf("a record is %x, want %x", got[len("before"):], want)
	}
	file := &growing{data: slices.Concat(h.append(nil), want)}
	if r, ok, err := newScanner(file, h, mostRecord).record(int64(headerBytes), 7, 8); err != nil || !ok || string(r.Body) != string(body) {
		t.Errorf("the record is read as %+v, valid: %t, %v", r, ok, err)
	}
	for name, spoil := range map[string]func(h *header, frame []byte){
		"another file":   func(h *header, _ []byte) { h.salt[3]++ },
		"another number": func(_ *header, frame []byte) { frame[8]++ },
		"another length": func(_ *header, frame []byte) { frame[0]++ },
	} {
		other, frame := h, slices.Clone(want[:frameBytes])
		spoil(&other, frame)
		if other.checksum(frame, body) == sum {
			t.Errorf("the checksum does not change with %s", name)
		}
	}
}
