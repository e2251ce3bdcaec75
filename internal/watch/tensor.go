package watch

import (
	"context"
	"encoding/binary"
	"fmt"
	"math"

	"github.com/morphogenetic/oona"
)

// Tensors reads the tensors of claims, and verifies them, as claimcheck.Store
// does.
type Tensors interface {
	Bytes(ctx context.Context, claim oona.TensorClaim) ([]byte, error)
}

// summary has statistics of the elements of a tensor. NaN and infinities are only counted, and are
// not part of the other statistics.
type summary struct {
	Elements  int64  `json:"elements"`
	NaN       int64  `json:"nan,omitempty"`
	Infinite  int64  `json:"infinite,omitempty"`
	Min       number `json:"min"`
	Max       number `json:"max"`
	Mean      number `json:"mean"`
	FromStore bool   `json:"from_store"` // whether the tensor was read by its claim, and verified
}

// resolve adds a summary to each tensor of the frame, or an error if the tensor cannot be read.
func (f *frame) resolve(ctx context.Context, store Tensors) {
	for i := range f.Tensors {
		t := &f.Tensors[i]
		data := t.of.Data
		var err error
		if t.of.Claim != nil {
			data, err = store.Bytes(ctx, *t.of.Claim)
		}
		if err == nil {
			t.Summary, err = summarise(t.DType, data)
		}
		if err != nil {
			t.Problem = err.Error()
			continue
		}
		t.Summary.FromStore = t.of.Claim != nil
	}
}

// summarise reads little-endian elements of a NumPy type.
func summarise(dtype string, data []byte) (*summary, error) {
	size, known := oona.ElementSize(dtype)
	element := elements[dtype]
	if !known || element == nil {
		return nil, fmt.Errorf("the type %q is not known", dtype)
	}
	if len(data)%int(size) != 0 {
		return nil, fmt.Errorf("%d bytes are no whole number of %s", len(data), dtype)
	}
	s := &summary{Elements: int64(len(data)) / size, Min: number(math.NaN()), Max: number(math.NaN()), Mean: number(math.NaN())}
	var finite int64
	low, high, mean := math.Inf(1), math.Inf(-1), 0.0
	for ; len(data) > 0; data = data[size:] {
		switch v := element(data); {
		case math.IsNaN(v):
			s.NaN++
		case math.IsInf(v, 0):
			s.Infinite++
		default:
			finite++
			low, high = min(low, v), max(high, v)
			mean += (v - mean) / float64(finite)
		}
	}
	if finite > 0 {
		s.Min, s.Max, s.Mean = number(low), number(high), number(mean)
	}
	return s, nil
}

var little = binary.LittleEndian

// elements read the first element of data, by its type.
var elements = map[string]func(data []byte) float64{
	"bool":     func(b []byte) float64 { return float64(b[0]) },
	"int8":     func(b []byte) float64 { return float64(int8(b[0])) },
	"uint8":    func(b []byte) float64 { return float64(b[0]) },
	"int16":    func(b []byte) float64 { return float64(int16(little.Uint16(b))) },
	"uint16":   func(b []byte) float64 { return float64(little.Uint16(b)) },
	"int32":    func(b []byte) float64 { return float64(int32(little.Uint32(b))) },
	"uint32":   func(b []byte) float64 { return float64(little.Uint32(b)) },
	"int64":    func(b []byte) float64 { return float64(int64(little.Uint64(b))) },
	"uint64":   func(b []byte) float64 { return float64(little.Uint64(b)) },
	"float16":  func(b []byte) float64 { return half(little.Uint16(b)) },
	"bfloat16": func(b []byte) float64 { return float64(math.Float32frombits(uint32(little.Uint16(b)) << 16)) },
	"float32":  func(b []byte) float64 { return float64(math.Float32frombits(little.Uint32(b))) },
	"float64":  func(b []byte) float64 { return math.Float64frombits(little.Uint64(b)) },
}

// half is an IEEE 754 binary16.
func half(bits uint16) float64 {
	sign := 1 - 2*float64(bits>>15)
	exponent, fraction := int(bits>>10&0x1f), float64(bits&0x3ff)
	switch exponent {
	case 0:
		return sign * math.Ldexp(fraction, -24)
	case 0x1f:
		if fraction != 0 {
			return math.NaN()
		}
		return sign * math.Inf(1)
	}
	return sign * math.Ldexp(1024+fraction, exponent-25)
}
