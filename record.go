package oona

import (
	"encoding/binary"
	"errors"
	"fmt"
	"strconv"
)

// Headers of bus records.
const (
	// HeaderPath is the way of a frame into the bus: an ingest instance, or a
	// raw topic and partition. A producer has one frontier per path.
	HeaderPath = "oona-path"
	// HeaderRecord marks Oona's own records in an input topic, with their
	// kind and version ("tick/1"). Ingest never copies it from records of trainers.
	HeaderRecord = "oona-record"
)

// Headers of events: CloudEvents 1.0 in the binary mode of its Kafka binding.
const (
	HeaderEventVersion = "ce_specversion" // EventVersion
	HeaderEventID      = "ce_id"          // run/layer/seed/incarnation/sequence
	HeaderEventSource  = "ce_source"      // urn:oona:run: and the run
	HeaderEventType    = "ce_type"        // SeedEvent.Type
	HeaderEventSubject = "ce_subject"     // layer/seed
	HeaderEventTime    = "ce_time"        // of the transition, RFC 3339
	HeaderContentType  = "content-type"
	EventVersion       = "1.0"
	EventContentType   = "application/avro" // in single-object encoding
)

// HeaderTraceparent has the trace context of a record (W3C Trace Context). In a frame it
// is of the span that published the frame, or what a client of the raw topic gave. In a
// rollup it is of the window's span.
const HeaderTraceparent = "traceparent"

// TickRecord is the value of HeaderRecord for a Tick.
const TickRecord = "tick/1"

// Tick is written into a quiet partition by its owner, so that time advances
// there and open windows close.
type Tick struct {
	Worker    string // the writer
	WrittenAt Micros // time of writing by the writer's clock, for people only; the append time is what counts
}

// Headers of records in side topics and dead-letter topics, after KIP-1034.
// The rest of the record is unchanged, so a copy of it can be sent in again.
const (
	HeaderErrorException = "oona-error-exception" // the reason, one word
	HeaderErrorMessage   = "oona-error-message"
	HeaderErrorTopic     = "oona-error-topic"
	HeaderErrorPartition = "oona-error-partition"
	HeaderErrorOffset    = "oona-error-offset"
	// HeaderErrorIncarnation is the incarnation of the log at that offset, in
	// decimal. It is omitted if it is 0.
	HeaderErrorIncarnation = "oona-error-incarnation"
	HeaderErrorStage       = "oona-error-stage"
	HeaderErrorAttempts    = "oona-error-attempts"
)

// Headers of records that were in a side topic and have been sent again.
const (
	// HeaderRedrivenFrom is where the record was before it went to the side topic:
	// TOPIC/PARTITION/INCARNATION/OFFSET.
	HeaderRedrivenFrom = "oona-redriven-from"
	HeaderRedrivenBy   = "oona-redriven-by" // who sent it again
)

// HeaderMirroredFrom is where a record was copied from, as TOPIC/PARTITION/OFFSET. Only
// copies for other programs have it: see package pipeline/mirror.
const HeaderMirroredFrom = "oona-mirrored-from"

// NoOffset is the value of an offset that is unknown or does not exist.
const NoOffset = -1

// Key returns the key of a layer's records: the length of run as a uvarint, run,
// and the same of layer. Different pairs have different keys.
func Key(run RunID, layer LayerID) []byte {
	key := make([]byte, 0, 4+len(run)+len(layer))
	key = binary.AppendUvarint(key, uint64(len(run)))
	key = append(key, run...)
	key = binary.AppendUvarint(key, uint64(len(layer)))
	return append(key, layer...)
}

// SeedKey returns the key of a seed's events: that of its layer, the length of the seed's
// decimal number as a uvarint, and the number.
func SeedKey(run RunID, layer LayerID, seed SeedID) []byte {
	number := strconv.Itoa(int(seed))
	key := append(Key(run, layer), byte(len(number)))
	return append(key, number...)
}

// ParseSeedKey is the inverse of SeedKey. Its errors wrap ErrKey.
func ParseSeedKey(key []byte) (RunID, LayerID, SeedID, error) {
	run, rest, err := keyPart(key)
	if err != nil {
		return "", "", 0, err
	}
	layer, rest, err := keyPart(rest)
	if err != nil {
		return "", "", 0, err
	}
	number, rest, err := keyPart(rest)
	if err != nil {
		return "", "", 0, err
	}
	seed, err := strconv.ParseInt(number, 10, 32)
	if err != nil || len(rest) > 0 || strconv.FormatInt(seed, 10) != number {
		return "", "", 0, fmt.Errorf("%w: %q is not the number of a seed", ErrKey, number)
	}
	return RunID(run), LayerID(layer), SeedID(seed), nil
}

// KeyRun returns the run of a key of Key or SeedKey. Its errors wrap ErrKey.
func KeyRun(key []byte) (RunID, error) {
	run, _, err := keyPart(key)
	return RunID(run), err
}

// ErrKey is wrapped by errors of ParseKey and ParseSeedKey for other keys.
var ErrKey = errors.New("not a key of a run and a layer")

// ParseKey is the inverse of Key. Its errors wrap ErrKey.
func ParseKey(key []byte) (RunID, LayerID, error) {
	run, rest, err := keyPart(key)
	if err != nil {
		return "", "", err
	}
	layer, rest, err := keyPart(rest)
	if err != nil {
		return "", "", err
	}
	if len(rest) > 0 {
		return "", "", fmt.Errorf("%w: %d bytes follow the layer", ErrKey, len(rest))
	}
	return RunID(run), LayerID(layer), nil
}

func keyPart(key []byte) (part string, rest []byte, err error) {
	n, width := binary.Uvarint(key)
	if width <= 0 || n > uint64(len(key)-width) {
		return "", nil, fmt.Errorf("%w: a length is cut off or too great", ErrKey)
	}
	if width > 1 && key[width-1] == 0 {
		return "", nil, fmt.Errorf("%w: a length has more bytes than it needs", ErrKey) // or one pair would have many keys
	}
	end := width + int(n)
	return string(key[width:end]), key[end:], nil
}
