package avro

import (
	"math"
	"reflect"
	"testing"

	"github.com/morphogenetic/oona"
)

// sampleFrame has one of everything.
func sampleFrame() *oona.Frame {
	return &oona.Frame{
		Run: "run-7", Layer: "enc.3", Timeline: "rank0", Producer: "trainer-0",
		Epoch: 1_700_000_000_000_000, Sequence: 41, ObservedAt: 1_700_000_001_000_000, Step: 900,
		Seeds:  []oona.SeedID{0, 63, 64, 8191, 8192, math.MaxInt32, math.MinInt32, -1, 5},
		States: []oona.State{0, 1, 2, 3, 4, 5, 6, 10, 9},
		Metrics: []oona.Column{
			{Name: "loss", Values: []float32{1, -0.5, float32(math.Inf(1)), float32(math.Inf(-1)), 0, math.Float32frombits(0x80000000), math.MaxFloat32, math.SmallestNonzeroFloat32, 2}},
			{Name: "empty", Values: []float32{}},
		},
		Tensors: []oona.Tensor{
			{Name: "weight", Seed: 63, DType: "float32", Shape: []int64{1, 2}, Data: []byte{0, 0, 128, 63, 0, 0, 0, 64}},
			{Name: "scalar", Seed: 64, DType: "int8", Shape: []int64{}, Data: []byte{1}},
			{Name: "big", Seed: 5, DType: "float64", Shape: []int64{1 << 40}, Claim: &oona.TensorClaim{Bucket: "tensors", Key: "sha256/ab", Size: 1 << 43, SHA256: [32]byte{0: 1, 31: 255}}},
		},
	}
}

func TestFrameRoundTrip(t *testing.T) {
	want := sampleFrame()
	data := AppendFrame([]byte("before"), want)
	var d FrameDecoder
	var got oona.Frame
	rest, err := d.Decode(append(data[len("before"):], "after"...), &got)
	if err != nil {
		t.Fatal(err)
	}
	if string(rest) != "after" {
		t.Errorf("rest is %q", rest)
	}
	if !reflect.DeepEqual(&got, want) {
		t.Errorf("got %+v\nwant %+v", &got, want)
	}
}
