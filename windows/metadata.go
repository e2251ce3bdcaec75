package windows

import (
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"math"
	"slices"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/logtime"
)

// The version is the first byte of a commit's metadata. Any change of the content is
// a new version, and the old ones stay readable.
const (
	metadataVersion         = 1
	metadataVersionRecovery = 2 // has the state of recovery; otherwise as 1
	// metadataVersionLog is written once the log has an incarnation, or a
	// configuration that names a catalogue or a later reducer than the first.
	metadataVersionLog = 3
)

// version returns the oldest version in which the snapshot can be written.
func (s *snapshot) version() byte {
	later := func(c *configEpoch) bool { return c.cfg.Reducer > 1 || c.cfg.Catalogue != oona.CatalogueHash{} }
	switch {
	case s.incarnation != 0 || slices.ContainsFunc(s.configEpochs, later):
		return metadataVersionLog
	case s.recovery != nil:
		return metadataVersionRecovery
	}
	return metadataVersion
}

// limit returns the maximum length of the text.
func (s *snapshot) limit() int {
	if s.version() < metadataVersionLog {
		return maxMetadataEarlier
	}
	return MaxMetadata
}

// metadataCoding is plain ASCII, so tools that show the offsets of a group can show the metadata,
// too.
var metadataCoding = base64.RawStdEncoding

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// text returns the snapshot as metadata: the version, the content and a checksum. The
// checksum covers the commit's offset, too.
//
// In the content, numbers are varints. Numbers that may be negative and differences
// of instants are zigzag varints; differences are taken modulo 2^64. Offsets are
// relative to the safe offset, and instants to the greatest append time. The instants of
// a seal are relative to the first window that its timeline's watermark has not closed.
func (s *snapshot) text() string {
	version := s.version()
	b := []byte{version}
	b = binary.AppendUvarint(b, uint64(s.processedTo-s.safe.Offset))
	b = binary.AppendVarint(b, int64(s.maxAppendedAt))
	if version == metadataVersionLog {
		b[0] |= byte(bit(s.recovery != nil)*logInRecovery | bit(s.lastAppendedAt != unset)*logHasLast | bit(s.incarnation != 0)*logHasIncarnation)
		if s.incarnation != 0 {
			b = appendFrom(b, s.maxAppendedAt, oona.Micros(s.incarnation))
		}
		if s.lastAppendedAt != unset {
			b = appendFrom(b, s.maxAppendedAt, s.lastAppendedAt)
		}
	}
	if s.recovery != nil {
		b = appendRecovery(b, s)
	}
	b = appendConfigEpochs(b, s)
	b = appendFrom(b, s.maxAppendedAt, s.floor)
	b = binary.AppendUvarint(b, uint64(s.safe.Clock.Now)<<1|bit(s.safe.Clock.Started))
	b = appendFrom(b, s.maxAppendedAt, s.safe.Clock.Previous)
	b = binary.AppendUvarint(b, uint64(len(s.timelines)))
	for i := range s.timelines {
		b = appendTimeline(b, s, &s.timelines[i])
	}
	b = binary.BigEndian.AppendUint32(b, checksum(s.safe.Offset, b))
	return metadataCoding.EncodeToString(b)
}

// The bits in the first byte of the content of version 3. They say which parts follow.
const (
	logInRecovery = 1 << (7 - iota)
	logHasLast
	logHasIncarnation

	versionBits = logHasIncarnation - 1
)

func checksum(offset int64, content []byte) uint32 {
	at := binary.BigEndian.AppendUint64(nil, uint64(offset))
	return crc32.Update(crc32.Checksum(at, castagnoli), castagnoli, content)
}

func bit(set bool) uint64 {
	if set {
		return 1
	}
	return 0
}

func appendFrom(b []byte, from, t oona.Micros) []byte { return binary.AppendVarint(b, int64(t-from)) }

// appendRecovery appends the start of the first window that is emitted. If none is emitted yet, it
// appends how much of the log must be read first, and when the recovery began.
func appendRecovery(b []byte, s *snapshot) []byte {
	if s.recovery.from != unset {
		return appendFrom(binary.AppendUvarint(b, 1), s.maxAppendedAt, s.recovery.from)
	}
	b = binary.AppendUvarint(b, uint64(s.recovery.end-s.processedTo)<<1)
	return appendFrom(b, s.maxAppendedAt, s.recovery.begun)
}

func appendTimeline(b []byte, s *snapshot, t *frozen) []byte {
	b = binary.BigEndian.AppendUint64(b, t.hash)
	b = appendFrom(b, s.maxAppendedAt, t.watermark)
	b = binary.AppendUvarint(b, uint64(len(t.seals))<<1|bit(t.admitted != unknown))
	if t.admitted != unknown {
		b = binary.AppendUvarint(b, uint64(t.admitted-s.safe.Offset))
	}
	return appendSeals(b, s.configEpochs, t)
}

// appendSeals appends for each seal its layers and configuration epoch, how many
// windows it is after the first one of that epoch that is open, and how many windows
// it has.
func appendSeals(b []byte, epochs configEpochs, t *frozen) []byte {
	for i := range t.seals {
		e := &t.seals[i]
		a := slices.IndexFunc(epochs, func(c *configEpoch) bool { return c.from == e.configEpoch.from })
		length := uint64(e.configEpoch.spans.length)
		b = binary.AppendUvarint(b, uint64(e.layers)*uint64(len(epochs))+uint64(a))
		b = binary.AppendUvarint(b, uint64(e.start-e.configEpoch.firstOpen(t.watermark))/length)
		b = binary.AppendUvarint(b, uint64(e.end-e.start)/length)
	}
	return b
}

// parseSnapshot is the inverse of text. It accepts only what text would write.
func parseSnapshot(c Commit) (*snapshot, error) {
	if len(c.Metadata) > MaxMetadata {
		return nil, fmt.Errorf("the metadata has %d bytes, and at most %d are ever written", len(c.Metadata), MaxMetadata)
	}
	b, err := metadataCoding.DecodeString(c.Metadata)
	if err != nil {
		return nil, fmt.Errorf("the metadata: %w", err)
	}
	const least = 1 + 4
	if len(b) < least {
		return nil, errors.New("the metadata is empty or cut off")
	}
	content, sum := b[:len(b)-4], binary.BigEndian.Uint32(b[len(b)-4:])
	version := content[0] & versionBits
	if version < metadataVersion || version > metadataVersionLog {
		return nil, fmt.Errorf("the metadata has version %d; this program reads versions %d to %d", version, metadataVersion, metadataVersionLog)
	}
	if checksum(c.Offset, content) != sum {
		return nil, errors.New("the metadata's checksum is wrong for this offset: the offset or the metadata was changed or reset by hand, or is damaged. Restore both as they were committed (oona group import), or delete the group's offset of the partition. Then the aggregator reads the log from its beginning; if the beginning is lost, start it with --from-here")
	}
	r := metadataReader{rest: content[1:]}
	s, err := r.snapshot(c.Offset, content[0])
	if err != nil {
		return nil, fmt.Errorf("the metadata: %w", err)
	}
	if s.text() != c.Metadata {
		return nil, errors.New("the metadata is not in the form in which it is written")
	}
	return s, nil
}

// metadataReader reads varints. After an error it reads zeros.
type metadataReader struct {
	rest []byte
	err  error
}

var errCutOff = errors.New("a number is cut off or too great")

// number reads a number of at most limit.
func (r *metadataReader) number(limit uint64) uint64 {
	n, width := binary.Uvarint(r.rest)
	if r.err != nil || width <= 0 || n > limit {
		r.fail(errCutOff)
		return 0
	}
	r.rest = r.rest[width:]
	return n
}

func (r *metadataReader) after(from oona.Micros) oona.Micros {
	n, width := binary.Varint(r.rest)
	if r.err != nil || width <= 0 {
		r.fail(errCutOff)
		return 0
	}
	r.rest = r.rest[width:]
	return from + oona.Micros(n)
}

func (r *metadataReader) hash() uint64 {
	if r.err != nil || len(r.rest) < 8 {
		r.fail(errCutOff)
		return 0
	}
	h := binary.BigEndian.Uint64(r.rest)
	r.rest = r.rest[8:]
	return h
}

func (r *metadataReader) fail(err error) {
	if r.err == nil {
		r.err = err
	}
}

// anyNumber is a limit so low that arithmetic with numbers below it does not overflow.
const anyNumber = 1<<62 - 1

func (r *metadataReader) snapshot(safe int64, first byte) (*snapshot, error) {
	if safe < 0 || safe > anyNumber {
		return nil, errors.New("the offset is out of range")
	}
	s := &snapshot{lastAppendedAt: unset}
	s.safe.Offset = safe
	s.processedTo = safe + int64(r.number(anyNumber))
	s.maxAppendedAt = r.after(0)
	version := first & versionBits
	lost := version == metadataVersionRecovery
	if version == metadataVersionLog {
		lost = first&logInRecovery != 0
		if first&logHasIncarnation != 0 {
			s.incarnation = oona.Incarnation(r.after(s.maxAppendedAt))
		}
		if first&logHasLast != 0 {
			s.lastAppendedAt = r.after(s.maxAppendedAt)
		}
	}
	if lost {
		s.recovery = r.recovery(s)
	}
	r.configEpochs(s, version)
	s.floor = r.after(s.maxAppendedAt)
	now := r.number(1<<63 - 1)
	s.safe.Clock = logtime.Clock{Started: now&1 != 0, Now: oona.Micros(now >> 1), Previous: r.after(s.maxAppendedAt)}
	n := r.number(MaxMetadata)
	for ; n > 0 && r.err == nil; n-- {
		s.timelines = append(s.timelines, r.timeline(s))
	}
	if r.err == nil && len(r.rest) > 0 {
		r.fail(fmt.Errorf("%d bytes follow", len(r.rest)))
	}
	return s, r.err
}

// recovery reads what appendRecovery wrote.
func (r *metadataReader) recovery(s *snapshot) *recovery {
	l := &recovery{end: s.processedTo, begun: unset, from: unset}
	n := r.number(uint64(math.MaxInt64-s.processedTo)<<1 | 1)
	if n&1 != 0 {
		l.from = r.after(s.maxAppendedAt)
	} else {
		l.end += int64(n >> 1)
		l.begun = r.after(s.maxAppendedAt)
	}
	return l
}

func (r *metadataReader) timeline(s *snapshot) frozen {
	t := frozen{hash: r.hash(), admitted: unknown}
	if n := len(s.timelines); n > 0 && t.hash <= s.timelines[n-1].hash {
		r.fail(errors.New("timelines are not in order"))
	}
	t.watermark = r.after(s.maxAppendedAt)
	count := r.number(MaxMetadata << 1)
	if count&1 != 0 {
		t.admitted = s.safe.Offset + int64(r.number(uint64(s.processedTo-s.safe.Offset)))
	}
	for ; count > 1 && r.err == nil; count -= 2 {
		t.seals = append(t.seals, r.seal(s.configEpochs, &t))
	}
	return t
}

func (r *metadataReader) seal(epochs configEpochs, t *frozen) seal {
	n := r.number(anyNumber)
	e := seal{configEpoch: epochs[n%uint64(len(epochs))], layers: int(n / uint64(len(epochs)))}
	length := uint64(e.configEpoch.spans.length)
	e.start = e.configEpoch.firstOpen(t.watermark) + oona.Micros(r.number(anyNumber/length)*length)
	e.end = e.start + oona.Micros(r.number(anyNumber/length)*length)
	if e.end <= e.start || len(t.seals) > 0 && e.start < t.seals[len(t.seals)-1].end {
		r.fail(errors.New("seals are not in order"))
	}
	return e
}
