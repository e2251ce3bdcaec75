package avro

import (
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"

	"github.com/twmb/avro"

	"github.com/morphogenetic/oona"
)

// SchemaID identifies a schema in a schema registry: by a number that is unique in that
// registry or, if Global is set, by a GUID.
type SchemaID struct {
	Number int32
	GUID   [16]byte
	Global bool
}

func (id SchemaID) String() string {
	if !id.Global {
		return fmt.Sprint(id.Number)
	}
	return id.UUID()
}

// UUID returns the GUID in its text form.
func (id SchemaID) UUID() string {
	h := hex.EncodeToString(id.GUID[:])
	return h[:8] + "-" + h[8:12] + "-" + h[12:16] + "-" + h[16:20] + "-" + h[20:]
}

// The framing of Confluent's serializers. A value begins with a byte 0 and the number of
// its schema, big-endian. Or a header of the record has one of two forms: such five bytes,
// or a byte 1 and a GUID.
const (
	numberMark     = 0
	guidMark       = 1
	registeredSize = 5
)

// IsRegistered reports whether a value begins with the framing of a schema registry.
func IsRegistered(value []byte) bool { return len(value) > 0 && value[0] == numberMark }

// CutSchemaID returns the id at the start of a value, and the rest of the value.
func CutSchemaID(value []byte) (id SchemaID, body []byte, err error) {
	switch {
	case !IsRegistered(value):
		return id, nil, &DecodeError{"framing", 0, fmt.Errorf("%w: it begins with % x, not with 00", ErrRegistered, value[:min(2, len(value))])}
	case len(value) < registeredSize:
		return id, nil, &DecodeError{"framing", len(value), fmt.Errorf("%w: the framing of a schema registry has %d bytes, %d are there", ErrTruncated, registeredSize, len(value))}
	}
	id.Number = int32(binary.BigEndian.Uint32(value[1:])) //nolint:gosec // registries write an int32
	return id, value[registeredSize:], nil
}

// AppendSchemaID appends the framing of a value whose schema has this number.
func AppendSchemaID(dst []byte, number int32) []byte {
	return binary.BigEndian.AppendUint32(append(dst, numberMark), uint32(number)) //nolint:gosec // the same bits
}

// ParseSchemaID returns the id in a header of a record.
func ParseSchemaID(header string) (id SchemaID, err error) {
	switch {
	case len(header) == registeredSize && header[0] == numberMark:
		id, _, err = CutSchemaID([]byte(header))
		return id, err
	case len(header) == 1+len(id.GUID) && header[0] == guidMark:
		id.Global = true
		copy(id.GUID[:], header[1:])
		return id, nil
	}
	return id, &DecodeError{"framing", -1, fmt.Errorf("%w: the header has %d bytes, beginning with % x; it needs 00 and a number of 4 bytes, or 01 and a GUID of 16", ErrRegistered, len(header), header[:min(2, len(header))])}
}

// ErrRegistered is wrapped by a *DecodeError.
var ErrRegistered = errors.New("not the framing of a schema registry")

// ErrUnreadable is returned for a schema whose records cannot be read as frames.
var ErrUnreadable = errors.New("records of this schema cannot be read as frames")

// FrameSchema is a schema with which another program has written frames. It is a published
// version of SeedMetrics, or a schema whose records can be read as SeedMetrics by Avro's
// rules of schema resolution.
type FrameSchema struct {
	version   *version
	published bool
}

// ParseFrameSchema returns the schema with this text. references are the texts of the
// schemas that it refers to, those first that others refer to. Errors wrap ErrUnreadable.
func ParseFrameSchema(text string, references ...string) (*FrameSchema, error) {
	parsed, err := parseWith(text, references)
	if err != nil {
		return nil, fmt.Errorf("%w: it is not a valid Avro schema: %w", ErrUnreadable, err)
	}
	name := fullName(parsed.Root())
	if err := checkTime(parsed.Root()); err != nil {
		return nil, fmt.Errorf("%w: %.100s: %w", ErrUnreadable, name, err)
	}
	fp := fingerprint(parsed)
	if v, ok := published.byFingerprint[fp]; ok && v.Name == seedMetrics {
		return &FrameSchema{v, true}, nil
	}
	resolved, err := avro.Resolve(parsed, published.latest[seedMetrics].parsed)
	if err != nil {
		return nil, fmt.Errorf("%w: %.100s does not resolve to %s: %w", ErrUnreadable, name, seedMetrics, err)
	}
	return &FrameSchema{version: &version{Schema: Schema{Name: name, Fingerprint: fp, Text: text}, parsed: parsed, resolved: resolved}}, nil
}

func parseWith(text string, references []string) (*avro.Schema, error) {
	if len(references) == 0 {
		return avro.Parse(text)
	}
	var cache avro.SchemaCache
	for _, reference := range references {
		if _, err := cache.Parse(reference); err != nil {
			return nil, err
		}
	}
	return cache.Parse(text)
}

// checkTime returns an error if the event time is not in microseconds. Schema resolution
// ignores units: it would read milliseconds as microseconds.
func checkTime(root *avro.SchemaNode) error {
	const micros = "timestamp-micros"
	for i := range root.Fields {
		field := &root.Fields[i]
		if unit := field.Type.LogicalType; field.Name == "observed_at" && unit != "" && unit != micros {
			return fmt.Errorf("its observed_at is a %.50s, a frame's is a %s", unit, micros)
		}
	}
	return nil
}

// Published reports whether the schema is a published version.
func (s *FrameSchema) Published() bool { return s.published }

// SingleSize returns the size of the single-object encoding of a value of this size.
func SingleSize(value int) int { return framingSize + value }

// Single returns the single-object encoding of a value that has no framing.
func (s *FrameSchema) Single(value []byte) []byte {
	return append(appendFraming(make([]byte, 0, SingleSize(len(value))), s.version.Fingerprint), value...)
}

// DecodeWith is like Decode, for a frame that was written with the schema and has no
// framing.
func (d *FrameDecoder) DecodeWith(s *FrameSchema, data []byte, f *oona.Frame) (rest []byte, err error) {
	if s.published && s.version.Fingerprint == seedMetricsV1 {
		return d.decodeV1(data, 0, f)
	}
	return d.decodeResolved(s.version, data, f)
}

// Fingerprint returns the fingerprint of a schema's parsing canonical form.
func Fingerprint(text string, references ...string) (uint64, error) {
	parsed, err := parseWith(text, references)
	if err != nil {
		return 0, err
	}
	return fingerprint(parsed), nil
}

// Cut returns the fingerprint of the schema of a record, and the rest of data after the
// framing.
func Cut(data []byte) (fingerprint uint64, body []byte, err error) {
	if fingerprint, err = readFraming(data); err != nil {
		return 0, nil, err
	}
	return fingerprint, data[framingSize:], nil
}

// Compatible returns an error unless records that were written with either of the schemas can
// be read with the other.
func Compatible(one, other string) error {
	a, err := avro.Parse(one)
	if err != nil {
		return err
	}
	b, err := avro.Parse(other)
	if err != nil {
		return err
	}
	if err := avro.CheckCompatibility(a, b); err != nil {
		return fmt.Errorf("records of the former cannot be read with the latter: %w", err)
	}
	if err := avro.CheckCompatibility(b, a); err != nil {
		return fmt.Errorf("records of the latter cannot be read with the former: %w", err)
	}
	return nil
}
