package archive

import (
	"encoding/binary"
	"maps"
	"slices"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/morphogenetic/oona/bus"
)

// encodeHead appends a record of kasmina.archive.Record in Avro's binary form, without the bytes of
// the value, which come last. The bytes are the same as goavro makes from native. goavro is not used
// because it copies the value several times, and would take half of the time of an archive without
// compression (docs/decisions/0028-archives.md).
func encodeHead(dst []byte, msg *message.Message, at bus.Position) []byte {
	dst = appendText(dst, at.Topic)
	dst = binary.AppendVarint(dst, int64(at.Partition))
	dst = binary.AppendVarint(dst, int64(at.Incarnation))
	dst = binary.AppendVarint(dst, at.Offset)
	dst = binary.AppendVarint(dst, int64(at.Appended))
	dst = appendOptional(dst, at.Key)
	if len(msg.Metadata) > 0 {
		dst = binary.AppendVarint(dst, int64(len(msg.Metadata)))
		for _, name := range slices.Sorted(maps.Keys(msg.Metadata)) {
			dst = appendText(appendText(dst, name), msg.Metadata[name])
		}
	}
	dst = append(dst, 0)
	if msg.Payload == nil {
		return append(dst, 0)
	}
	return binary.AppendVarint(binary.AppendVarint(dst, 1), int64(len(msg.Payload)))
}

// appendText appends bytes with their length.
func appendText[T string | []byte](dst []byte, text T) []byte {
	return append(binary.AppendVarint(dst, int64(len(text))), text...)
}

// appendOptional appends bytes or null.
func appendOptional(dst, b []byte) []byte {
	if b == nil {
		return append(dst, 0)
	}
	return appendText(binary.AppendVarint(dst, 1), b)
}
