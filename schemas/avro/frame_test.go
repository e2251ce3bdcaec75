package avro

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"reflect"
	"runtime"
	"testing"

	"pgregory.net/rapid"

	"github.com/morphogenetic/oona"
)

// equalFrames compares bit by bit; nil and empty are the same.
func equalFrames(t testing.TB, got, want *oona.Frame) {
	t.Helper()
	if !bytes.Equal(AppendFrame(nil, got), AppendFrame(nil, want)) {
		t.Errorf("frame is %+v\nwant %+v", got, want)
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

// anyFloat32 is any bit pattern, with NaN payloads and infinities often.
func anyFloat32() *rapid.Generator[float32] {
	return rapid.OneOf(
		rapid.Map(rapid.Uint32(), math.Float32frombits),
		rapid.Map(rapid.Uint32Range(1, 1<<22-1), func(payload uint32) float32 { return math.Float32frombits(0x7fc00000 | payload) }),
		rapid.SampledFrom([]float32{0, float32(math.Copysign(0, -1)), float32(math.Inf(1)), float32(math.Inf(-1))}),
	)
}

func anyID() *rapid.Generator[string] { return rapid.StringMatching(`[A-Za-z0-9._:-]{1,128}`) }

func anyFrame(t *rapid.T) *oona.Frame {
	f := &oona.Frame{
		Run: oona.RunID(anyID().Draw(t, "run")), Layer: oona.LayerID(anyID().Draw(t, "layer")),
		Timeline: oona.TimelineID(rapid.OneOf(rapid.Just(""), anyID()).Draw(t, "timeline")),
		Producer: oona.ProducerID(anyID().Draw(t, "producer")),
		Epoch:    oona.Micros(rapid.Int64().Draw(t, "epoch")), Sequence: rapid.Int64().Draw(t, "sequence"),
		ObservedAt: oona.Micros(rapid.Int64().Draw(t, "observed")), Step: rapid.Int64().Draw(t, "step"),
	}
	// Short runs of ids of any width, so that the paths of seedIDs alternate.
	for range rapid.IntRange(0, 6).Draw(t, "runs") {
		from := rapid.OneOf(rapid.Int32Range(0, 300), rapid.Int32Range(8_000, 8_300), rapid.Int32()).Draw(t, "from")
		for i := range rapid.Int32Range(1, 40).Draw(t, "length") {
			f.Seeds = append(f.Seeds, oona.SeedID(from+i))
		}
	}
	for range f.Seeds {
		f.States = append(f.States, oona.State(rapid.Byte().Draw(t, "state")))
	}
	for range rapid.IntRange(0, 4).Draw(t, "metrics") {
		f.Metrics = append(f.Metrics, oona.Column{
			Name:   anyID().Draw(t, "metric"),
			Values: rapid.SliceOfN(anyFloat32(), 0, 20).Draw(t, "values"),
		})
	}
	for range rapid.IntRange(0, 3).Draw(t, "tensors") {
		f.Tensors = append(f.Tensors, anyTensor(t))
	}
	return f
}

func anyTensor(t *rapid.T) oona.Tensor {
	out := oona.Tensor{
		Name: anyID().Draw(t, "tensor"), Seed: oona.SeedID(rapid.Int32().Draw(t, "seed")), DType: "float16",
		Shape: rapid.SliceOfN(rapid.Int64(), 0, 4).Draw(t, "shape"),
	}
	if rapid.Bool().Draw(t, "inline") {
		out.Data = rapid.SliceOfN(rapid.Byte(), 0, 40).Draw(t, "data")
		return out
	}
	out.Claim = &oona.TensorClaim{
		Bucket: anyID().Draw(t, "bucket"), Key: anyID().Draw(t, "key"), Size: rapid.Int64().Draw(t, "size"),
		SHA256: [32]byte(rapid.SliceOfN(rapid.Byte(), 32, 32).Draw(t, "sha256")),
	}
	return out
}

// One decoder reads frame after frame: what an earlier one left in its buffers
// must not show.
func TestFramesRoundTripThroughOneDecoder(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		frames := rapid.SliceOfN(rapid.Custom(anyFrame), 1, 3).Draw(t, "frames")
		var data []byte
		for _, f := range frames {
			data = AppendFrame(data, f)
		}
		var d FrameDecoder
		for i, want := range frames {
			var got oona.Frame
			var err error
			if data, err = d.Decode(data, &got); err != nil {
				t.Fatalf("frame %d: %v", i, err)
			}
			equalValues(t, &got, want)
		}
		if len(data) > 0 {
			t.Fatalf("%d bytes are left", len(data))
		}
	})
}

// equalValues compares field by field, without the encoder.
func equalValues(t *rapid.T, got, want *oona.Frame) {
	if g, w := fmt.Sprint(nativeFrame(got)), fmt.Sprint(nativeFrame(want)); g != w {
		t.Fatalf("frame is %s\nwant %s", g, w)
	}
	for i := range want.Metrics {
		for j, w := range want.Metrics[i].Values {
			if g := got.Metrics[i].Values[j]; math.Float32bits(g) != math.Float32bits(w) {
				t.Fatalf("metrics[%d].values[%d] has the bits %08x, want %08x", i, j, math.Float32bits(g), math.Float32bits(w))
			}
		}
	}
}

func TestAppendFrameGrowsOnce(t *testing.T) {
	for _, f := range []*oona.Frame{sampleFrame(), layerFrame(1_000), {}} {
		dst := make([]byte, 0, frameSize(f))
		if allocs := testing.AllocsPerRun(10, func() { AppendFrame(dst, f) }); allocs > 0 {
			t.Errorf("%v allocations in addition to the %d bytes for a frame of %d", allocs, cap(dst), len(AppendFrame(nil, f)))
		}
	}
}

func TestDecodeDoesNotAllocate(t *testing.T) {
	inline := layerFrame(1_000)
	inline.Tensors = sampleFrame().Tensors[:2]
	others := make([][]byte, 64) // layers in turn
	for i := range others {
		f := layerFrame(1_000 - i)
		f.Layer = oona.LayerID(fmt.Sprint("layer.", i))
		others[i] = AppendFrame(nil, f)
	}
	claim := layerFrame(10)
	claim.Tensors = sampleFrame().Tensors[2:]
	for name, c := range map[string]struct {
		frames [][]byte
		want   float64
	}{
		"one layer":      {[][]byte{AppendFrame(nil, layerFrame(1_000))}, 0},
		"inline tensors": {[][]byte{AppendFrame(nil, inline)}, 0},
		"many layers":    {others, 0},
		"a claim's key":  {[][]byte{AppendFrame(nil, claim)}, 1},
	} {
		var d FrameDecoder
		var f oona.Frame
		round := func() {
			for _, data := range c.frames {
				if _, err := d.Decode(data, &f); err != nil {
					t.Fatal(err)
				}
			}
		}
		round()
		if allocs := testing.AllocsPerRun(20, round); allocs != c.want {
			t.Errorf("%s: %v allocations, want %v", name, allocs, c.want)
		}
	}
}

func TestPortableFloats(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		values := rapid.SliceOf(anyFloat32()).Draw(t, "values")
		raw := encodeFloatsPortable(nil, values)
		if fast := encodeFloats(nil, values); !bytes.Equal(fast, raw) {
			t.Fatalf("encoded %x, portably %x", fast, raw)
		}
		fast, portable := decodeFloats(nil, raw), decodeFloatsPortable(nil, raw)
		if len(fast) != len(values) || len(portable) != len(values) {
			t.Fatalf("%d and %d values of %d", len(fast), len(portable), len(values))
		}
		for i := range values {
			if b := math.Float32bits(values[i]); math.Float32bits(fast[i]) != b || math.Float32bits(portable[i]) != b {
				t.Fatalf("values[%d] has the bits %08x and %08x, want %08x", i, math.Float32bits(fast[i]), math.Float32bits(portable[i]), b)
			}
		}
	})
}

func TestBody(t *testing.T) {
	data := AppendTick(nil, oona.Tick{Worker: "w"})
	body, err := Body(data)
	if err != nil || !bytes.Equal(body, data[10:]) {
		t.Errorf("body is %x, %v", body, err)
	}
	if _, err := Body([]byte("Obj\x01")); !errors.Is(err, ErrFraming) {
		t.Errorf("of another framing: %v", err)
	}
	if _, err := Body(data[:9]); !errors.Is(err, ErrTruncated) {
		t.Errorf("cut off: %v", err)
	}
}

// The ids of 10,000 layers cost nothing from their second frame on, and 100,000
// of the greatest length take no more memory than those that are kept.
func TestManyIDs(t *testing.T) {
	frames := framesOfLayers(10_000)
	var d FrameDecoder
	var f oona.Frame
	all := func() {
		for _, data := range frames {
			if _, err := d.Decode(data, &f); err != nil {
				t.Fatal(err)
			}
		}
	}
	all()
	if allocations := testing.AllocsPerRun(2, all); allocations > 0 {
		t.Errorf("%v allocations for another frame of each layer", allocations)
	}
	const most = internedTexts * (oona.MaxIDLength + 128) // and for each its header twice, and its share of the map
	heap := func() int64 {
		runtime.GC()
		var s runtime.MemStats
		runtime.ReadMemStats(&s)
		return int64(s.HeapAlloc)
	}
	f = *layerFrame(1)
	for before, i := heap(), 0; i < 100_000; i++ {
		f.Layer = oona.LayerID(fmt.Sprintf("%0*d", oona.MaxIDLength, i))
		if _, err := d.Decode(AppendFrame(nil, &f), &f); err != nil {
			t.Fatal(err)
		}
		if i%10_000 == internedTexts%10_000-1 { // as many are kept as may be, once
			if used := heap() - before; used > most {
				t.Fatalf("after %d ids %d bytes are in use, more than %d", i+1, used, most)
			}
		}
	}
	runtime.KeepAlive(&d)
}

func TestInternerIsBounded(t *testing.T) {
	var in interner
	for i := range 3 * internedTexts {
		in.text(fmt.Append(nil, "layer.", i))
		if len(in.seen) > internedTexts {
			t.Fatalf("%d texts are kept", len(in.seen))
		}
	}
	long := bytes.Repeat([]byte("x"), oona.MaxIDLength+1)
	before := len(in.seen)
	if got := in.text(long); got != string(long) || len(in.seen) != before {
		t.Errorf("a text of %d bytes came back with %d, %d texts are kept", len(long), len(got), len(in.seen))
	}
}
