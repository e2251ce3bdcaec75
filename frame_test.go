package oona

import (
	"errors"
	"fmt"
	"math"
	"strings"
	"testing"
	"time"
)

// validFrame is three seeds with two metrics, an inline tensor and a claim.
func validFrame() *Frame {
	return &Frame{
		Run: "run-1", Layer: "enc.3", Timeline: "rank:0", Producer: "trainer-0",
		Epoch: 1_764_000_000_000_000, Sequence: 7, ObservedAt: 1_764_000_010_000_000, Step: 42,
		Seeds:  []SeedID{0, 1, 5},
		States: []State{Dormant, Training, RolledBack},
		Metrics: []Column{
			{Name: "reconstruction_loss", Values: []float32{0.5, float32(math.NaN()), float32(math.Inf(1))}},
			{Name: "compute_seconds", Values: []float32{0, -1, 2}},
		},
		Tensors: []Tensor{
			{Name: "weights", Seed: 5, DType: "float32", Shape: []int64{2, 3}, Data: make([]byte, 24)},
			{Name: "gradients", Seed: 1, DType: "float64", Shape: []int64{1 << 20}, Claim: &TensorClaim{Bucket: "b", Key: "k", Size: 8 << 20}},
		},
	}
}

func year(y int) Micros { return MicrosOf(time.Date(y, 1, 1, 0, 0, 0, 0, time.UTC)) }

func TestFrameValidate(t *testing.T) {
	limits := FrameLimits{Seeds: 4, Metrics: 3, Tensors: 3}
	id := func(reason string) string { return reason + "; allowed are A-Z a-z 0-9 . _ : -" }
	for _, tt := range []struct {
		name string
		edit func(f *Frame)
		want string // the message; empty: accepted
	}{
		{"as it is", func(*Frame) {}, ""},

		{"no run", func(f *Frame) { f.Run = "" }, "run_id: is empty; give 1 to 128 of A-Z a-z 0-9 . _ : -"},
		{"run with newline", func(f *Frame) { f.Run = "run\n1" }, id(`run_id: has '\n' at position 3`)},
		{"run with quote", func(f *Frame) { f.Run = `run"1` }, id(`run_id: has '"' at position 3`)},
		{"run too long", func(f *Frame) { f.Run = RunID(strings.Repeat("r", 129)) }, "run_id: has 129 bytes; at most 128 are allowed"},
		{"no layer", func(f *Frame) { f.Layer = "" }, "layer_id: is empty; give 1 to 128 of A-Z a-z 0-9 . _ : -"},
		{"layer with newline", func(f *Frame) { f.Layer = "enc\r\n" }, id(`layer_id: has '\r' at position 3`)},
		{"no timeline", func(f *Frame) { f.Timeline = "" }, ""},
		{"timeline with quote", func(f *Frame) { f.Timeline = "'0'" }, id(`timeline: has '\'' at position 0`)},
		{"no producer", func(f *Frame) { f.Producer = "" }, "producer_id: is empty; give 1 to 128 of A-Z a-z 0-9 . _ : -"},
		{"producer with space", func(f *Frame) { f.Producer = "a b" }, id("producer_id: has ' ' at position 1")},

		{"observed in year 1", func(f *Frame) { f.ObservedAt = year(1) }, "observed_at: is -62135596800000000 microseconds since the Unix epoch, outside the years 2000 to 2199; is it in another unit?"},
		{"observed in year 9999", func(f *Frame) { f.ObservedAt = year(9999) }, "observed_at: is 253370764800000000 microseconds since the Unix epoch, outside the years 2000 to 2199; is it in another unit?"},
		{"observed in milliseconds", func(f *Frame) { f.ObservedAt /= 1000 }, "observed_at: is 1764000010000 microseconds since the Unix epoch, outside the years 2000 to 2199; is it in another unit?"},
		{"observed before 2000", func(f *Frame) { f.ObservedAt = year(2000) - 1 }, "observed_at: is 946684799999999 microseconds since the Unix epoch, outside the years 2000 to 2199; is it in another unit?"},
		{"observed first in 2000", func(f *Frame) { f.ObservedAt = year(2000) }, ""},
		{"observed last in 2199", func(f *Frame) { f.ObservedAt = year(2200) - 1 }, ""},
		{"observed first in 2200", func(f *Frame) { f.ObservedAt = year(2200) }, "observed_at: is 7258118400000000 microseconds since the Unix epoch, outside the years 2000 to 2199; is it in another unit?"},
		{"negative epoch", func(f *Frame) { f.Epoch = -1 }, "producer_epoch: is -1; it is the producer's start time in microseconds since the Unix epoch"},
		{"negative sequence", func(f *Frame) { f.Sequence = -1 }, "sequence: is -1; it counts from 0"},
		{"negative step", func(f *Frame) { f.Step = -3 }, "step: is -3; it counts from 0"},
		{"zero epoch, sequence, step", func(f *Frame) { f.Epoch, f.Sequence, f.Step = 0, 0, 0 }, ""},

		{"no seeds", func(f *Frame) { f.Seeds, f.States = nil, nil }, "seed_ids: is empty; a frame has at least one reading"},
		{"too many seeds", func(f *Frame) { f.Seeds = []SeedID{0, 1, 2, 3, 5} }, "seed_ids: has more than 4 entries; split the frame by seed ids: frame too large"},
		{"state missing", func(f *Frame) { f.States = f.States[:2] }, "states: has 2 entries for 3 seed_ids"},
		{"state too many", func(f *Frame) { f.States = make([]State, 4) }, "states: has 4 entries for 3 seed_ids"},
		{"repeat next to it", func(f *Frame) { f.Seeds = []SeedID{0, 5, 5} }, "seed_ids[2]: repeats seed 5"},
		{"repeat among ids that do not ascend", func(f *Frame) { f.Seeds = []SeedID{5, 1, 5} }, "seed_ids[2]: repeats seed 5"},
		{"ids that do not ascend", func(f *Frame) { f.Seeds = []SeedID{5, 0, 1} }, ""},
		{"negative seed", func(f *Frame) { f.Seeds[0] = -1 }, "seed_ids[0]: is -1; seeds count from 0"},
		{"greatest seed", func(f *Frame) { f.Seeds[2] = math.MaxInt32; f.Tensors = nil }, ""},
		{"unknown ordinal", func(f *Frame) { f.States[1] = 11 }, "states[1]: is ordinal 11; states are 0 (DORMANT) to 10 (ROLLED_BACK)"},

		{"no metrics", func(f *Frame) { f.Metrics = nil }, ""},
		{"too many metrics", func(f *Frame) { f.Metrics = make([]Column, 4) }, "metrics: has more than 3 entries; send fewer metrics, or have --max-metrics of ingest raised: frame too large"},
		{"metric without name", func(f *Frame) { f.Metrics[1].Name = "" }, "metrics[1].name: is empty; give 1 to 128 of A-Z a-z 0-9 . _ : -"},
		{"metric name with newline", func(f *Frame) { f.Metrics[0].Name = "loss\n" }, id(`metrics[0].name: has '\n' at position 4`)},
		{"metric twice", func(f *Frame) { f.Metrics[1].Name = f.Metrics[0].Name }, "metrics[1].name: repeats reconstruction_loss"},
		{"value missing", func(f *Frame) { f.Metrics[1].Values = f.Metrics[1].Values[:2] }, "metrics[1].values: of compute_seconds has 2 entries for 3 seed_ids"},
		{"value too many", func(f *Frame) { f.Metrics[0].Values = make([]float32, 4) }, "metrics[0].values: of reconstruction_loss has 4 entries for 3 seed_ids"},

		{"no tensors", func(f *Frame) { f.Tensors = nil }, ""},
		{"too many tensors", func(f *Frame) { f.Tensors = make([]Tensor, 4) }, "tensors: has more than 3 entries; send the tensors of some seeds in another frame, with those seeds: frame too large"},
		{"too many dimensions", func(f *Frame) { f.Tensors[1].Shape = make([]int64, MaxDimensions+1) }, "tensors[1].shape: has more than 64 entries; send the tensor with fewer dimensions: frame too large"},
		{"tensor without name", func(f *Frame) { f.Tensors[1].Name = "" }, "tensors[1].name: is empty; give 1 to 128 of A-Z a-z 0-9 . _ : -"},
		{"tensor name with quote", func(f *Frame) { f.Tensors[0].Name = `w"` }, id(`tensors[0].name: has '"' at position 1`)},
		{"tensor of another seed", func(f *Frame) { f.Tensors[0].Seed = 2 }, "tensors[0].seed_id: is 2, which is not among the frame's seed_ids"},
		{"tensors of ids that do not ascend", func(f *Frame) { f.Seeds = []SeedID{5, 0, 1} }, ""},
		{"unknown dtype", func(f *Frame) { f.Tensors[0].DType = "float8" }, `tensors[0].dtype: is "float8"; use a NumPy name such as float32`},
		{"data and claim", func(f *Frame) { f.Tensors[1].Data = []byte{1} }, "tensors[1]: has both data and a claim"},
		{"claim without bucket", func(f *Frame) { f.Tensors[1].Claim.Bucket = "" }, "tensors[1].data.bucket: is empty"},
		{"claim without key", func(f *Frame) { f.Tensors[1].Claim.Key = "" }, "tensors[1].data.key: is empty"},
		{"claim of another size", func(f *Frame) { f.Tensors[1].Claim.Size++ }, "tensors[1].shape: [1048576] of float64 is 8388608 bytes, the data has 8388609"},
		{"claim of negative size", func(f *Frame) { f.Tensors[1].Claim.Size = -8 }, "tensors[1].shape: [1048576] of float64 does not fit -8 bytes of data"},
		{"data too short", func(f *Frame) { f.Tensors[0].Data = make([]byte, 23) }, "tensors[0].shape: [2 3] of float32 does not fit 23 bytes of data"},
		{"data too long", func(f *Frame) { f.Tensors[0].Data = make([]byte, 25) }, "tensors[0].shape: [2 3] of float32 is 24 bytes, the data has 25"},
		{"negative dimension", func(f *Frame) { f.Tensors[0].Shape = []int64{-2, -3} }, "tensors[0].shape: [-2 -3] of float32 does not fit 24 bytes of data"},
		{"negative and zero", func(f *Frame) { f.Tensors[0].Shape, f.Tensors[0].Data = []int64{0, -3}, nil }, "tensors[0].shape: [0 -3] of float32 does not fit 0 bytes of data"},
		// The product of these is 0, and 24, if it may overflow 64 bits.
		{"shape overflows to nothing", func(f *Frame) { f.Tensors[0].Shape, f.Tensors[0].Data = []int64{1 << 31, 1 << 31}, nil }, "tensors[0].shape: [2147483648 2147483648] of float32 does not fit 0 bytes of data"},
		{"shape overflows to the data's size", func(f *Frame) { f.Tensors[0].Shape = []int64{6, 1 << 31, 1<<31 + 1} }, "tensors[0].shape: [6 2147483648 2147483649] of float32 does not fit 24 bytes of data"},
		{"greatest dimensions", func(f *Frame) { f.Tensors[0].Shape = []int64{math.MaxInt64, math.MaxInt64} }, "tensors[0].shape: [9223372036854775807 9223372036854775807] of float32 does not fit 24 bytes of data"},
		{"scalar", func(f *Frame) { f.Tensors[0].Shape, f.Tensors[0].Data = nil, make([]byte, 4) }, ""},
		{"scalar without data", func(f *Frame) { f.Tensors[0].Shape, f.Tensors[0].Data = nil, nil }, "tensors[0].shape: [] of float32 is 4 bytes, the data has 0"},
		{"empty array", func(f *Frame) { f.Tensors[0].Shape, f.Tensors[0].Data = []int64{3, 0}, nil }, ""},
		{"empty array, zero first", func(f *Frame) { f.Tensors[0].Shape, f.Tensors[0].Data = []int64{0, math.MaxInt64}, nil }, ""},
		{"data for an empty array", func(f *Frame) { f.Tensors[0].Shape = []int64{3, 0} }, "tensors[0].shape: [3 0] of float32 is 0 bytes, the data has 24"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f := validFrame()
			tt.edit(f)
			err := f.Validate(limits)
			if tt.want == "" {
				if err != nil {
					t.Errorf("refused: %v", err)
				}
				return
			}
			var field *FieldError
			if !errors.As(err, &field) {
				t.Fatalf("error %v, want a *FieldError: %s", err, tt.want)
			}
			if err.Error() != tt.want {
				t.Errorf("error %s\n want %s", err, tt.want)
			}
			if got, want := errors.Is(err, ErrTooLarge), strings.HasSuffix(tt.want, "frame too large"); got != want {
				t.Errorf("wraps ErrTooLarge: %t, want %t", got, want)
			}
		})
	}
}

func TestElementSize(t *testing.T) {
	for dtype, want := range map[string]int64{
		"bool": 1, "int8": 1, "uint8": 1,
		"float16": 2, "bfloat16": 2, "int16": 2, "uint16": 2,
		"float32": 4, "int32": 4, "uint32": 4,
		"float64": 8, "int64": 8, "uint64": 8,
	} {
		if got, known := ElementSize(dtype); got != want || !known {
			t.Errorf("ElementSize(%s) = %d, %t, want %d", dtype, got, known, want)
		}
	}
	for _, dtype := range []string{"", "Float32", "<f4", "object"} {
		if got, known := ElementSize(dtype); got != 0 || known {
			t.Errorf("ElementSize(%q) = %d, %t, want unknown", dtype, got, known)
		}
	}
}

func TestMicros(t *testing.T) {
	at := time.Date(2025, 11, 24, 12, 0, 0, 123_456_789, time.FixedZone("", 3600))
	m := MicrosOf(at)
	if m != 1_763_982_000_123_456 {
		t.Errorf("MicrosOf(%s) = %d", at, m)
	}
	if got, want := m.Time(), time.Date(2025, 11, 24, 11, 0, 0, 123_456_000, time.UTC); got != want {
		t.Errorf("Time() = %s, want %s", got, want)
	}
}

// largeFrame is a layer of the usual size: 1,000 seeds with 8 metrics.
func largeFrame() *Frame {
	f := validFrame()
	f.Seeds, f.States, f.Metrics, f.Tensors = make([]SeedID, 1000), make([]State, 1000), make([]Column, 8), f.Tensors[:1]
	for i := range f.Seeds {
		f.Seeds[i], f.States[i] = SeedID(i), State(i%StateCount)
	}
	for i := range f.Metrics {
		f.Metrics[i] = Column{Name: fmt.Sprintf("metric_%d", i), Values: make([]float32, 1000)}
	}
	return f
}

func TestValidateDoesNotAllocate(t *testing.T) {
	f := largeFrame()
	var err error
	if n := testing.AllocsPerRun(20, func() { err = f.Validate(DefaultFrameLimits) }); n != 0 || err != nil {
		t.Errorf("%v allocations, error %v, want none", n, err)
	}
}

func BenchmarkValidate(b *testing.B) {
	f := largeFrame()
	b.ReportAllocs()
	for b.Loop() {
		if err := f.Validate(DefaultFrameLimits); err != nil {
			b.Fatal(err)
		}
	}
}
