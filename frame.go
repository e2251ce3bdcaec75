package oona

import (
	"errors"
	"fmt"
	"slices"
	"time"
)

// Micros is an instant in microseconds since the Unix epoch, or a duration in
// microseconds.
type Micros int64

// MicrosOf converts t, truncated to microseconds.
func MicrosOf(t time.Time) Micros { return Micros(t.UnixMicro()) }

// Time converts m to a time in UTC.
func (m Micros) Time() time.Time { return time.UnixMicro(int64(m)).UTC() }

// Frame has the readings of a layer's seeds at one instant. It is columnar,
// like a health tensor in the memory of a GPU: States and the Values of each
// column have one entry per entry of Seeds, in the same order.
//
// (Producer, Epoch, Sequence) identifies a frame. Frames with the same identity
// are folded once.
type Frame struct {
	Run        RunID
	Layer      LayerID
	Timeline   TimelineID // empty if the whole run has one watermark
	Producer   ProducerID
	Epoch      Micros // when the producer started
	Sequence   int64  // number of the frame within the producer's epoch
	ObservedAt Micros // event time
	Step       int64  // training step
	Seeds      []SeedID
	States     []State
	Metrics    []Column
	Tensors    []Tensor
}

// Column is one metric of a frame's seeds. NaN means not measured.
type Column struct {
	Name   string
	Values []float32
}

// Tensor is a payload of one seed of a frame. Its content is in Data, or in the
// tensor store, where Claim refers to it.
type Tensor struct {
	Name  string
	Seed  SeedID
	DType string  // NumPy's name of the type, e.g. "float32"
	Shape []int64 // empty for a scalar
	Data  []byte
	Claim *TensorClaim
}

// TensorClaim is the claim check of a tensor: the object in the tensor store,
// and the size and hash to verify its content with.
type TensorClaim struct {
	Bucket string
	Key    string
	Size   int64
	SHA256 [32]byte
}

// FrameLimits bound a frame that Validate accepts.
type FrameLimits struct {
	Seeds   int
	Metrics int
	Tensors int
}

// DefaultFrameLimits are the limits of ingest unless configured otherwise.
var DefaultFrameLimits = FrameLimits{Seeds: 65_536, Metrics: 64, Tensors: 1_024}

// MaxDimensions is the greatest number of dimensions of a tensor. It is NumPy's
// own limit, and it bounds the memory of a shape, eight bytes per dimension.
const MaxDimensions = 64

// ErrTooLarge is wrapped by errors of Validate if a limit is exceeded. The
// sender can send less at a time.
var ErrTooLarge = errors.New("frame too large")

// Validate returns an error that wraps a *FieldError for the first field that
// is wrong. If a limit is exceeded, the error wraps ErrTooLarge too. All values
// of metrics are valid: NaN means not measured, and infinities are counted.
func (f *Frame) Validate(limits FrameLimits) error {
	if err := f.validateIDs(); err != nil {
		return err
	}
	if err := f.validateTimes(); err != nil {
		return err
	}
	if err := f.validateSeeds(limits); err != nil {
		return err
	}
	if err := f.validateMetrics(limits); err != nil {
		return err
	}
	return f.validateTensors(limits)
}

func (f *Frame) validateIDs() error {
	if err := CheckID("run_id", string(f.Run)); err != nil {
		return err
	}
	if err := CheckID("layer_id", string(f.Layer)); err != nil {
		return err
	}
	if f.Timeline != "" {
		if err := CheckID("timeline", string(f.Timeline)); err != nil {
			return err
		}
	}
	return CheckID("producer_id", string(f.Producer))
}

// The years that a frame may come from, which finds a wrong unit. The aggregator
// finds smaller errors, as it compares with the append time of the record.
var (
	earliestObservation = MicrosOf(time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC))
	latestObservation   = MicrosOf(time.Date(2200, 1, 1, 0, 0, 0, 0, time.UTC))
)

func (f *Frame) validateTimes() error {
	if f.ObservedAt < earliestObservation || f.ObservedAt >= latestObservation {
		return &FieldError{"observed_at", fmt.Sprintf("is %d microseconds since the Unix epoch, outside the years 2000 to 2199; is it in another unit?", f.ObservedAt)}
	}
	if f.Epoch < 0 {
		return &FieldError{"producer_epoch", fmt.Sprintf("is %d; it is the producer's start time in microseconds since the Unix epoch", f.Epoch)}
	}
	if f.Sequence < 0 {
		return &FieldError{"sequence", fmt.Sprintf("is %d; it counts from 0", f.Sequence)}
	}
	if f.Step < 0 {
		return &FieldError{"step", fmt.Sprintf("is %d; it counts from 0", f.Step)}
	}
	return nil
}

func (f *Frame) validateSeeds(limits FrameLimits) error {
	n := len(f.Seeds)
	if n == 0 {
		return &FieldError{"seed_ids", "is empty; a frame has at least one reading"}
	}
	if n > limits.Seeds {
		return tooLarge("seed_ids", "seed_ids", limits.Seeds)
	}
	if len(f.States) != n {
		return &FieldError{"states", fmt.Sprintf("has %d entries for %d seed_ids", len(f.States), n)}
	}
	if i, ok := firstDuplicate(f.Seeds); ok {
		return &FieldError{fmt.Sprintf("seed_ids[%d]", i), fmt.Sprintf("repeats seed %d", f.Seeds[i])}
	}
	for i, id := range f.Seeds {
		if id < 0 {
			return &FieldError{fmt.Sprintf("seed_ids[%d]", i), fmt.Sprintf("is %d; seeds count from 0", id)}
		}
		if !f.States[i].Valid() {
			return &FieldError{fmt.Sprintf("states[%d]", i), fmt.Sprintf("is ordinal %d; states are 0 (DORMANT) to %d (%s)", uint8(f.States[i]), uint8(lastState), lastState)}
		}
	}
	return nil
}

// firstDuplicate returns the index of the first id that occurred before. It
// makes a set only if the ids do not ascend; trainers send ascending ids.
func firstDuplicate(ids []SeedID) (int, bool) {
	ascending := true
	for i := 1; i < len(ids); i++ {
		if ids[i] <= ids[i-1] {
			ascending = false
			break
		}
	}
	if ascending {
		return 0, false
	}
	seen := make(map[SeedID]struct{}, len(ids))
	for i, id := range ids {
		if _, dup := seen[id]; dup {
			return i, true
		}
		seen[id] = struct{}{}
	}
	return 0, false
}

func (f *Frame) validateMetrics(limits FrameLimits) error {
	if len(f.Metrics) > limits.Metrics {
		return tooLarge("metrics", "metrics", limits.Metrics)
	}
	for i := range f.Metrics {
		c := &f.Metrics[i]
		if fault := idFault(c.Name); fault != "" {
			return &FieldError{fmt.Sprintf("metrics[%d].name", i), fault}
		}
		if len(c.Values) != len(f.Seeds) {
			return &FieldError{fmt.Sprintf("metrics[%d].values", i), fmt.Sprintf("of %s has %d entries for %d seed_ids", c.Name, len(c.Values), len(f.Seeds))}
		}
		for j := range i {
			if f.Metrics[j].Name == c.Name {
				return &FieldError{fmt.Sprintf("metrics[%d].name", i), fmt.Sprintf("repeats %s", c.Name)}
			}
		}
	}
	return nil
}

func (f *Frame) validateTensors(limits FrameLimits) error {
	if len(f.Tensors) > limits.Tensors {
		return tooLarge("tensors", "tensors", limits.Tensors)
	}
	for i := range f.Tensors {
		t := &f.Tensors[i]
		if len(t.Shape) > MaxDimensions {
			return tooLarge(fmt.Sprintf("tensors[%d].shape", i), "shape", MaxDimensions)
		}
		if field, reason := t.fault(); reason != "" {
			return &FieldError{fmt.Sprintf("tensors[%d]%s", i, field), reason}
		}
		// The linear search is for ids that do not ascend, and for errors.
		if _, found := slices.BinarySearch(f.Seeds, t.Seed); !found && !slices.Contains(f.Seeds, t.Seed) {
			return &FieldError{fmt.Sprintf("tensors[%d].seed_id", i), fmt.Sprintf("is %d, which is not among the frame's seed_ids", t.Seed)}
		}
	}
	return nil
}

// ElementSize returns the size in bytes of one element of dtype, a NumPy name.
func ElementSize(dtype string) (int64, bool) {
	switch dtype {
	case "bool", "int8", "uint8":
		return 1, true
	case "float16", "bfloat16", "int16", "uint16":
		return 2, true
	case "float32", "int32", "uint32":
		return 4, true
	case "float64", "int64", "uint64":
		return 8, true
	}
	return 0, false
}

// fault returns the first field of t that is wrong, relative to t, and the
// reason. The reason is empty if t is valid.
func (t *Tensor) fault() (field, reason string) {
	if reason := idFault(t.Name); reason != "" {
		return ".name", reason
	}
	if t.Claim != nil {
		switch {
		case t.Data != nil:
			return "", "has both data and a claim"
		case t.Claim.Bucket == "":
			return ".data.bucket", "is empty"
		case t.Claim.Key == "":
			return ".data.key", "is empty"
		}
	}
	size, known := ElementSize(t.DType)
	if !known {
		return ".dtype", fmt.Sprintf("is %q; use a NumPy name such as float32", t.DType)
	}
	return ".shape", t.shapeFault(size)
}

// shapeFault compares the shape with the size of the data, where an element has
// size bytes. It returns "" if they fit.
func (t *Tensor) shapeFault(size int64) string {
	stored := int64(len(t.Data))
	if t.Claim != nil {
		stored = t.Claim.Size
	}
	want := size
	if slices.Contains(t.Shape, 0) {
		want = 0 // an empty array, whatever its other dimensions
	}
	for _, n := range t.Shape {
		if n < 0 || (want > 0 && want > stored/n) { // the product might overflow
			return fmt.Sprintf("%v of %s does not fit %d bytes of data", t.Shape, t.DType, stored)
		}
		want *= n
	}
	if want != stored {
		return fmt.Sprintf("%v of %s is %d bytes, the data has %d", t.Shape, t.DType, want, stored)
	}
	return ""
}

func tooLarge(field, array string, limit int) error {
	return fmt.Errorf("%w: %w", &FieldError{field, TooMany(array, limit)}, ErrTooLarge)
}

// TooMany returns the reason of a FieldError for an array with more than limit
// entries, with what the sender can do. The array is named as in the schema.
func TooMany(array string, limit int) string {
	remedy := "split the frame by seed ids"
	switch array {
	case "metrics":
		remedy = "send fewer metrics, or have --max-metrics of ingest raised"
	case "tensors":
		remedy = "send the tensors of some seeds in another frame, with those seeds"
	case "shape":
		remedy = "send the tensor with fewer dimensions"
	}
	return fmt.Sprintf("has more than %d entries; %s", limit, remedy)
}
