package tensors

import (
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"strconv"
	"strings"

	"github.com/morphogenetic/oona"
)

// descriptions are NumPy's descriptions of the element types, little-endian. NumPy has no
// bfloat16: the two bytes of an element are a void type, as numpy.save writes the bfloat16
// of ml_dtypes.
var descriptions = map[string]string{
	"bool": "|b1", "int8": "|i1", "uint8": "|u1",
	"float16": "<f2", "bfloat16": "|V2", "int16": "<i2", "uint16": "<u2",
	"float32": "<f4", "int32": "<i4", "uint32": "<u4",
	"float64": "<f8", "int64": "<i8", "uint64": "<u8",
}

// npyAlignment divides the size of a header.
const npyAlignment = 64

// Header returns the header of a .npy file, format 1.0 of NumPy. After it come the
// elements, in C order. It returns an *oona.FieldError for a type or shape that has none.
//
// https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html
func Header(dtype string, shape []int64) ([]byte, error) {
	description, known := descriptions[dtype]
	if !known {
		return nil, &oona.FieldError{Field: "dtype", Reason: fmt.Sprintf("is %.64q; use a NumPy name such as float32", dtype)}
	}
	var dimensions strings.Builder
	for _, n := range shape {
		if n < 0 {
			return nil, &oona.FieldError{Field: "shape", Reason: fmt.Sprintf("has the dimension %d", n)}
		}
		fmt.Fprintf(&dimensions, "%d, ", n)
	}
	text := strings.TrimSuffix(dimensions.String(), " ") // (3,) is a shape, (3) a number
	if len(shape) != 1 {
		text = strings.TrimSuffix(text, ",")
	}
	text = fmt.Sprintf("{'descr': '%s', 'fortran_order': False, 'shape': (%s), }", description, text)
	const before = 10 // bytes before the text: magic, version, size
	size := len(text) + 1
	size += (npyAlignment - (before+size)%npyAlignment) % npyAlignment
	if size > 1<<16-1 {
		return nil, &oona.FieldError{Field: "shape", Reason: fmt.Sprintf("has %d dimensions, more than a .npy file can have", len(shape))}
	}
	header := binary.LittleEndian.AppendUint16([]byte("\x93NUMPY\x01\x00"), uint16(size))
	header = append(header, text...)
	header = append(header, strings.Repeat(" ", size-len(text)-1)...)
	return append(header, '\n'), nil
}

// mostDimensions is the greatest length of a shape in the name of a file.
const mostDimensions = 100

// FileName returns the name of the file of a tensor: the SHA-256 of its elements, and its
// type and shape, as the same bytes can be two arrays. A scalar has no shape.
//
//	HASH-float32-64x64.npy
func FileName(digest [32]byte, dtype string, shape []int64) string {
	parts := []string{hex.EncodeToString(digest[:]), dtype}
	if len(shape) > 0 {
		var dimensions []string
		for _, n := range shape {
			dimensions = append(dimensions, strconv.FormatInt(n, 10))
		}
		text := strings.Join(dimensions, "x")
		if len(text) > mostDimensions { // of an array without elements, or with many dimensions of 1
			text = fmt.Sprintf("%s-%d-dimensions-%s", text[:mostDimensions/2], len(shape), shortHash(text))
		}
		parts = append(parts, text)
	}
	return strings.Join(parts, "-") + ".npy"
}
