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
	for _, tt := range []struct {
		name string
		edit func(f *Frame)
		want string // the field; empty: accepted
	}{
		{"as it is", func(*Frame) {}, ""},

		{"no run", func(f *Frame) { f.Run = "" }, "run_id"},
		{"run with newline", func(f *Frame) { f.Run = "run\n1" }, "run_id"},
		{"run with quote", func(f *Frame) { f.Run = `run"1` }, "run_id"},
		{"run too long", func(f *Frame) { f.Run = RunID(strings.Repeat("r", 129)) }, "run_id"},
		{"no layer", func(f *Frame) { f.Layer = "" }, "layer_id"},
		{"layer with newline", func(f *Frame) { f.Layer = "enc\r\n" }, "layer_id"},
		{"no timeline", func(f *Frame) { f.Timeline = "" }, ""},
		{"timeline with quote", func(f *Frame) { f.Timeline = "'0'" }, "timeline"},
		{"no producer", func(f *Frame) { f.Producer = "" }, "producer_id"},
		{"producer with space", func(f *Frame) { f.Producer = "a b" }, "producer_id"},

		{"observed in year 1", func(f *Frame) { f.ObservedAt = year(1) }, "observed_at"},
		{"observed in year 9999", func(f *Frame) { f.ObservedAt = year(9999) }, "observed_at"},
		{"observed in milliseconds", func(f *Frame) { f.ObservedAt /= 1000 }, "observed_at"},
		{"observed before 2000", func(f *Frame) { f.ObservedAt = year(2000) - 1 }, "observed_at"},
		{"observed first in 2000", func(f *Frame) { f.ObservedAt = year(2000) }, ""},
		{"observed last in 2199", func(f *Frame) { f.ObservedAt = year(2200) - 1 }, ""},
		{"observed first in 2200", func(f *Frame) { f.ObservedAt = year(2200) }, "observed_at"},
		{"negative epoch", func(f *Frame) { f.Epoch = -1 }, "producer_epoch"},
		{"negative sequence", func(f *Frame) { f.Sequence = -1 }, "sequence"},
		{"negative step", func(f *Frame) { f.Step = -3 }, "step"},
		{"zero epoch, sequence, step", func(f *Frame) { f.Epoch, f.Sequence, f.Step = 0, 0, 0 }, ""},

		{"no seeds", func(f *Frame) { f.Seeds, f.States = nil, nil }, "seed_ids"},
		{"too many seeds", func(f *Frame) { f.Seeds = []SeedID{0, 1, 2, 3, 5} }, "seed_ids"},
		{"state missing", func(f *Frame) { f.States = f.States[:2] }, "states"},
		{"state too many", func(f *Frame) { f.States = make([]State, 4) }, "states"},
		{"repeat next to it", func(f *Frame) { f.Seeds = []SeedID{0, 5, 5} }, "seed_ids[2]"},
		{"repeat among ids that do not ascend", func(f *Frame) { f.Seeds = []SeedID{5, 1, 5} }, "seed_ids[2]"},
		{"ids that do not ascend", func(f *Frame) { f.Seeds = []SeedID{5, 0, 1} }, ""},
		{"negative seed", func(f *Frame) { f.Seeds[0] = -1 }, "seed_ids[0]"},
		{"greatest seed", func(f *Frame) { f.Seeds[2] = math.MaxInt32; f.Tensors = nil }, ""},
		{"unknown ordinal", func(f *Frame) { f.States[1] = 11 }, "states[1]"},

		{"no metrics", func(f *Frame) { f.Metrics = nil }, ""},
		{"too many metrics", func(f *Frame) { f.Metrics = make([]Column, 4) }, "metrics"},
		{"metric without name", func(f *Frame) { f.Metrics[1].Name = "" }, "metrics[1].name"},
		{"metric name with newline", func(f *Frame) { f.Metrics[0].Name = "loss\n" }, "metrics[0].name"},
		{"metric twice", func(f *Frame) { f.Metrics[1].Name = f.Metrics[0].Name }, "metrics[1].name"},
		{"value missing", func(f *Frame) { f.Metrics[1].Values = f.Metrics[1].Values[:2] }, "metrics[1].values"},
		{"value too many", func(f *Frame) { f.Metrics[0].Values = make([]float32, 4) }, "metrics[0].values"},

		{"no tensors", func(f *Frame) { f.Tensors = nil }, ""},
		{"too many tensors", func(f *Frame) { f.Tensors = make([]Tensor, 4) }, "tensors"},
		{"too many dimensions", func(f *Frame) { f.Tensors[1].Shape = make([]int64, MaxDimensions+1) }, "tensors[1].shape"},
		{"tensor without name", func(f *Frame) { f.Tensors[1].Name = "" }, "tensors[1].name"},
		{"tensor name with quote", func(f *Frame) { f.Tensors[0].Name = `w"` }, "tensors[0].name"},
		{"tensor of another seed", func(f *Frame) { f.Tensors[0].Seed = 2 }, "tensors[0].seed_id"},
		{"tensors of ids that do not ascend", func(f *Frame) { f.Seeds = []SeedID{5, 0, 1} }, ""},
		{"unknown dtype", func(f *Frame) { f.Tensors[0].DType = "float8" }, "tensors[0].dtype"},
		{"data and claim", func(f *Frame) { f.Tensors[1].Data = []byte{1} }, "tensors[1]"},
		{"claim without bucket", func(f *Frame) { f.Tensors[1].Claim.Bucket = "" }, "tensors[1].data.bucket"},
		{"claim without key", func(f *Frame) { f.Tensors[1].Claim.Key = "" }, "tensors[1].data.key"},
		{"claim of another size", func(f *Frame) { f.Tensors[1].Claim.Size++ }, "tensors[1].shape"},
		{"claim of negative size", func(f *Frame) { f.Tensors[1].Claim.Size = -8 }, "tensors[1].shape"},
		{"data too short", func(f *Frame) { f.Tensors[0].Data = make([]byte, 23) }, "tensors[0].shape"},
		{"data too long", func(f *Frame) { f.Tensors[0].Data = make([]byte, 25) }, "tensors[0].shape"},
		{"negative dimension", func(f *Frame) { f.Tensors[0].Shape = []int64{-2, -3} }, "tensors[0].shape"},
		{"negative and zero", func(f *Frame) { f.Tensors[0].Shape, f.Tensors[0].Data = []int64{0, -3}, nil }, "tensors[0].shape"},
		// The product of these is 0, and 24, if it may overflow 64 bits.
		{"shape overflows to nothing", func(f *Frame) { f.Tensors[0].Shape, f.Tensors[0].Data = []int64{1 << 31, 1 << 31}, nil }, "tensors[0].shape"},
		{"shape overflows to the data's size", func(f *Frame) { f.Tensors[0].Shape = []int64{6, 1 << 31, 1<<31 + 1} }, "tensors[0].shape"},
		{"greatest dimensions", func(f *Frame) { f.Tensors[0].Shape = []int64{math.MaxInt64, math.MaxInt64} }, "tensors[0].shape"},
		{"scalar", func(f *Frame) { f.Tensors[0].Shape, f.Tensors[0].Data = nil, make([]byte, 4) }, ""},
		{"scalar without data", func(f *Frame) { f.Tensors[0].Shape, f.Tensors[0].Data = nil, nil }, "tensors[0].shape"},
		{"empty array", func(f *Frame) { f.Tensors[0].Shape, f.Tensors[0].Data = []int64{3, 0}, nil }, ""},
		{"empty array, zero first", func(f *Frame) { f.Tensors[0].Shape, f.Tensors[0].Data = []int64{0, math.MaxInt64}, nil }, ""},
		{"data for an empty array", func(f *Frame) { f.Tensors[0].Shape = []int64{3, 0} }, "tensors[0].shape"},
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
			if wrong, ok := errors.AsType[*FieldError](err); !ok || wrong.Field != tt.want {
				t.Errorf("error %v, want one of %s", err, tt.want)
			}
			if got, want := errors.Is(err, ErrTooLarge), strings.HasPrefix(tt.name, "too many"); got != want {
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
