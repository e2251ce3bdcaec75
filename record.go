package oona

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// Headers of bus records.
const (
	// HeaderPath is the way that a frame took into the bus: an ingest
	// instance, or a raw topic and partition. It is part of the key of a
	// producer's frontier.
	HeaderPath = "oona-path"
	// HeaderRecord marks Oona's own records in an input topic, with their
	// kind and version ("tick/1"). Ingest lets none through from outside.
	HeaderRecord = "oona-record"
)

// TickRecord is the value of HeaderRecord for a Tick.
const TickRecord = "tick/1"

// Tick is written into a quiet partition by its owner, so that time goes on
// there and open windows close.
type Tick struct {
	Worker    string // who wrote it
	WrittenAt Micros // by its clock; informative: the append time counts
}

// Headers of records in side topics and dead-letter topics, after KIP-1034.
// The rest of the record is unchanged: to redrive it is to copy it.
const (
	HeaderErrorException = "oona-error-exception" // the reason, one word: a Reason
	HeaderErrorMessage   = "oona-error-message"
	HeaderErrorTopic     = "oona-error-topic"
	HeaderErrorPartition = "oona-error-partition"
	HeaderErrorOffset    = "oona-error-offset"
	// HeaderErrorIncarnation is the log's incarnation at that offset, in
	// decimal. It is left out where that is 0.
	HeaderErrorIncarnation = "oona-error-incarnation"
	HeaderErrorStage       = "oona-error-stage"
	HeaderErrorAttempts    = "oona-error-attempts"
)

// NoOffset stands for an offset that is not known, or that there is none of.
const NoOffset = -1

// Key returns the key of records about a layer: uvarint length and run,
// uvarint length and layer, so that no two pairs meet.
func Key(run RunID, layer LayerID) []byte {
	key := make([]byte, 0, 4+len(run)+len(layer))
	key = binary.AppendUvarint(key, uint64(len(run)))
	key = append(key, run...)
	key = binary.AppendUvarint(key, uint64(len(layer)))
	return append(key, layer...)
}

// ErrKey says that a key was not made by Key.
var ErrKey = errors.New("not a run and layer key")

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
