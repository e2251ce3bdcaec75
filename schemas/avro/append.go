package avro

import (
	"encoding/binary"
	"math"
)

// In Avro's binary encoding, numbers are zigzag varints. Strings and bytes have their
// length in front. An array is one block with its count in front, and a 0 at the end; an
// empty array is only the 0.

func appendLong[T ~int | ~int32 | ~int64 | ~uint64](dst []byte, v T) []byte {
	return binary.AppendVarint(dst, int64(v))
}

func appendDouble(dst []byte, v float64) []byte {
	return binary.LittleEndian.AppendUint64(dst, math.Float64bits(v))
}

func appendText[T ~string | ~[]byte](dst []byte, s T) []byte {
	return append(appendLong(dst, len(s)), s...)
}

func appendArray[T any](dst []byte, items []T, one func([]byte, T) []byte) []byte {
	if len(items) == 0 {
		return append(dst, 0)
	}
	dst = appendLong(dst, len(items))
	for _, item := range items {
		dst = one(dst, item)
	}
	return append(dst, 0)
}
