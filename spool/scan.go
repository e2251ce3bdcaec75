package spool

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"
)

// Record is a record of a spool.
type Record struct {
	Sequence uint64
	Body     []byte
}

// damage is a part of a segment without a valid record.
type damage struct {
	from, to    int64
	first, next uint64 // the sequence numbers from first to next-1 are missing
}

// scanner reads the records of a segment, in order. It holds about one record in memory.
type scanner struct {
	file   File
	header header
	at     int64  // offset of the next record
	next   uint64 // the sequence number that the next record must have
	most   int    // maximum length of a body

	window []byte // bytes that were read ahead
	begin  int64  // offset of the window in the file
}

// mostRecord is larger than every limit that a spool may have had. A record that was accepted
// under a higher limit than the current one is not damaged.
const mostRecord = 1 << 30

// readAhead is the size of the scanner's reads, in bytes.
const readAhead = 256 << 10

func newScanner(file File, h header, most int) *scanner {
	return &scanner{file: file, header: h, at: int64(headerBytes), next: h.first, most: most}
}

// bytes returns n bytes of the file from an offset. It returns fewer at the end of the file.
func (s *scanner) bytes(from int64, n int) ([]byte, error) {
	if from >= s.begin && from+int64(n) <= s.begin+int64(len(s.window)) {
		return s.window[from-s.begin:][:n], nil
	}
	size := max(n, readAhead)
	if n > readAhead { // a damaged length must not allocate more memory than the file has bytes
		whole, err := s.file.Size()
		if err != nil {
			return nil, fmt.Errorf("spool: size of segment %d: %w", s.header.number, err)
		}
		if from+int64(n) > whole {
			return nil, nil
		}
	}
	if cap(s.window) < size {
		s.window = make([]byte, size)
	}
	s.window = s.window[:size]
	read, err := s.file.ReadAt(s.window, from)
	if errors.Is(err, io.EOF) {
		err = nil
	}
	s.begin, s.window = from, s.window[:max(read, 0)]
	if err != nil {
		s.window = s.window[:0]
		return nil, fmt.Errorf("spool: read segment %d at %d: %w", s.header.number, from, err)
	}
	return s.window[:min(n, len(s.window))], nil
}

// record returns the record at an offset, and whether it is valid. Its sequence number must be
// at least least and below limit. The body is valid until the next call.
func (s *scanner) record(at int64, least, limit uint64) (r Record, ok bool, err error) {
	frame, err := s.bytes(at, frameBytes)
	if err != nil || len(frame) < frameBytes {
		return r, false, err
	}
	length := binary.LittleEndian.Uint32(frame)
	r.Sequence = binary.LittleEndian.Uint64(frame[8:])
	if uint64(length) > uint64(s.most) || r.Sequence < least || r.Sequence >= limit {
		return r, false, nil
	}
	whole, err := s.bytes(at, frameBytes+int(length))
	if err != nil || len(whole) < frameBytes+int(length) {
		return r, false, err
	}
	r.Body = whole[frameBytes:]
	return r, binary.LittleEndian.Uint32(whole[4:]) == s.header.checksum(whole[:frameBytes], r.Body), nil
}

// read returns the next valid record below limit. If there is damage before it, read returns the damage
// first. After the last valid record it returns io.EOF. If bytes follow that record, they are an
// unfinished write or damage. If sequence numbers below limit are missing, the caller knows that it was
// damage.
func (s *scanner) read(limit uint64) (Record, *damage, error) {
	if s.next >= limit {
		return Record{}, nil, io.EOF
	}
	r, ok, err := s.record(s.at, s.next, s.next+1)
	if err == nil && !ok {
		// The record may have been written after the window was read.
		s.window = s.window[:0]
		r, ok, err = s.record(s.at, s.next, s.next+1)
	}
	if err != nil {
		return Record{}, nil, err
	}
	if ok {
		s.at, s.next = s.at+int64(frameBytes+len(r.Body)), s.next+1
		return r, nil, nil
	}
	return s.resume(limit)
}

// resume searches for the next valid record after damage.
func (s *scanner) resume(limit uint64) (Record, *damage, error) {
	for at := s.at + 1; ; at++ {
		frame, err := s.bytes(at, frameBytes)
		if err != nil {
			return Record{}, nil, err
		}
		if len(frame) < frameBytes {
			return Record{}, nil, io.EOF
		}
		// The skipped bytes cannot have contained more records than this.
		most := min(limit, s.next+1+uint64(at-s.at)/uint64(frameBytes))
		r, ok, err := s.record(at, s.next, most)
		if err != nil {
			return Record{}, nil, err
		}
		if ok {
			bad := &damage{from: s.at, to: at, first: s.next, next: r.Sequence}
			s.at, s.next = at, r.Sequence
			return Record{}, bad, nil
		}
	}
}

// unfinished reports whether the bytes after the last valid record can only be an unfinished write:
// fewer bytes than a record has, only zeros, or the beginning of the next record without its end.
// An acknowledged record was in the file with all its bytes. After damage it is still complete, but
// its checksum, number or length is wrong. An unfinished write may look the same after a crash of the
// system. Then unfinished returns false, because it is not certain.
func (s *scanner) unfinished(size int64) (bool, error) {
	rest := size - s.at
	if rest < int64(frameBytes) {
		return true, nil
	}
	if zeros, err := s.zeros(size); zeros || err != nil {
		return zeros, err
	}
	frame, err := s.bytes(s.at, frameBytes)
	if err != nil || len(frame) < frameBytes {
		return false, err
	}
	length, body := int64(binary.LittleEndian.Uint32(frame)), rest-int64(frameBytes)
	if binary.LittleEndian.Uint64(frame[8:]) != s.next || length <= body || body > int64(s.most) {
		return false, nil
	}
	// Perhaps only the length is wrong. Check whether the record is valid if its body has the remaining length.
	whole, err := s.bytes(s.at, int(rest))
	if err != nil || int64(len(whole)) < rest {
		return false, err
	}
	var other [frameBytes]byte
	copy(other[:], whole)
	binary.LittleEndian.PutUint32(other[:], uint32(body)) //nolint:gosec // at most mostRecord
	return binary.LittleEndian.Uint32(other[4:]) != s.header.checksum(other[:], whole[frameBytes:]), nil
}

// zeros reports whether all bytes after the last valid record are zeros.
func (s *scanner) zeros(size int64) (bool, error) {
	for at := s.at; at < size; {
		chunk, err := s.bytes(at, int(min(readAhead, size-at)))
		if err != nil || len(chunk) == 0 {
			return false, err
		}
		if slices.ContainsFunc(chunk, func(b byte) bool { return b != 0 }) {
			return false, nil
		}
		at += int64(len(chunk))
	}
	return true, nil
}
