package avro

import (
	"encoding/binary"
	"math"
	"slices"
	"unsafe"

	"github.com/morphogenetic/oona"
)

// littleEndian reports whether floats have the same bytes in memory as on the wire.
var littleEndian = binary.NativeEndian.Uint16([]byte{1, 0}) == 1

// decodeFloats appends the floats in raw, four bytes each. It keeps the payloads of NaNs.
func decodeFloats(dst []float32, raw []byte) []float32 {
	n := len(raw) / 4
	if n == 0 {
		return dst
	}
	if !littleEndian {
		return decodeFloatsPortable(dst, raw)
	}
	start := len(dst)
	dst = slices.Grow(dst, n)[:start+n]
	copy(unsafe.Slice((*byte)(unsafe.Pointer(&dst[start])), 4*n), raw)
	return dst
}

func decodeFloatsPortable(dst []float32, raw []byte) []float32 {
	for ; len(raw) >= 4; raw = raw[4:] {
		dst = append(dst, math.Float32frombits(binary.LittleEndian.Uint32(raw)))
	}
	return dst
}

// encodeFloats appends the bytes of values.
func encodeFloats(dst []byte, values []float32) []byte {
	if len(values) == 0 {
		return dst
	}
	if !littleEndian {
		return encodeFloatsPortable(dst, values)
	}
	return append(dst, unsafe.Slice((*byte)(unsafe.Pointer(&values[0])), 4*len(values))...)
}

func encodeFloatsPortable(dst []byte, values []float32) []byte {
	for _, v := range values {
		dst = binary.LittleEndian.AppendUint32(dst, math.Float32bits(v))
	}
	return dst
}

// encodeStates appends the ordinals of states.
func encodeStates(dst []byte, states []oona.State) []byte {
	if len(states) == 0 {
		return dst
	}
	return append(dst, unsafe.Slice((*byte)(unsafe.Pointer(&states[0])), len(states))...)
}

// decodeStates appends the states whose ordinals are raw.
func decodeStates(dst []oona.State, raw []byte) []oona.State {
	if len(raw) == 0 {
		return dst
	}
	return append(dst, unsafe.Slice((*oona.State)(unsafe.Pointer(&raw[0])), len(raw))...)
}
