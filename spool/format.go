package spool

import (
	"crypto/rand"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"hash/crc32"
	"strconv"
	"strings"
)

const (
	magic       = "oonaspl1"
	headerBytes = len(magic) + 8 + 8 + 16 + 4
	frameBytes  = 4 + 4 + 8 // number of bytes before the body of a record
	suffix      = ".seg"
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// header is the beginning of a segment.
type header struct {
	number uint64 // number of the segment
	first  uint64 // sequence number of its first record
	salt   [16]byte
}

func newHeader(number, first uint64) header {
	h := header{number: number, first: first}
	_, _ = rand.Read(h.salt[:]) // never fails
	return h
}

func (h header) append(dst []byte) []byte {
	begin := len(dst)
	dst = append(dst, magic...)
	dst = binary.LittleEndian.AppendUint64(dst, h.number)
	dst = binary.LittleEndian.AppendUint64(dst, h.first)
	dst = append(dst, h.salt[:]...)
	return binary.LittleEndian.AppendUint32(dst, crc32.Checksum(dst[begin:], castagnoli))
}

// name returns the name of the segment's file. It contains the whole header, so that nothing is
// lost if the first bytes of a file are damaged.
func (h header) name() string {
	return fmt.Sprintf("%020d-%020d-%x%s", h.number, h.first, h.salt, suffix)
}

// parseName returns the header in the name of a segment's file.
func parseName(name string) (h header, ok bool) {
	parts := strings.Split(strings.TrimSuffix(name, suffix), "-")
	if len(parts) != 3 || !strings.HasSuffix(name, suffix) {
		return h, false
	}
	number, errNumber := strconv.ParseUint(parts[0], 10, 64)
	first, errFirst := strconv.ParseUint(parts[1], 10, 64)
	salt, errSalt := hex.DecodeString(parts[2])
	if errors.Join(errNumber, errFirst, errSalt) != nil || len(salt) != len(h.salt) {
		return h, false
	}
	h.number, h.first = number, first
	copy(h.salt[:], salt)
	return h, h.name() == name
}

// appendRecord appends a record of the segment.
func (h header) appendRecord(dst []byte, sequence uint64, body []byte) []byte {
	var frame [frameBytes]byte
	binary.LittleEndian.PutUint32(frame[:], uint32(len(body)))
	binary.LittleEndian.PutUint64(frame[8:], sequence)
	binary.LittleEndian.PutUint32(frame[4:], h.checksum(frame[:], body))
	return append(append(dst, frame[:]...), body...)
}

// checksum returns the checksum of a record. The frame must have the length and the sequence.
func (h header) checksum(frame, body []byte) uint32 {
	sum := crc32.Update(0, castagnoli, h.salt[:])
	sum = crc32.Update(sum, castagnoli, frame[8:frameBytes])
	sum = crc32.Update(sum, castagnoli, frame[:4])
	return crc32.Update(sum, castagnoli, body)
}
