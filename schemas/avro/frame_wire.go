package avro

import (
	"fmt"

	"github.com/morphogenetic/oona"
)

// wireFrame has the fields of the latest SeedMetrics, for twmb/avro.
type wireFrame struct {
	Run        oona.RunID      `avro:"run_id"`
	Layer      oona.LayerID    `avro:"layer_id"`
	Timeline   oona.TimelineID `avro:"timeline"`
	Producer   oona.ProducerID `avro:"producer_id"`
	Epoch      oona.Micros     `avro:"producer_epoch"`
	Sequence   int64           `avro:"sequence"`
	ObservedAt oona.Micros     `avro:"observed_at"`
	Step       int64           `avro:"step"`
	Seeds      []oona.SeedID   `avro:"seed_ids"`
	States     []byte          `avro:"states"`
	Metrics    []wireColumn    `avro:"metrics"`
	Tensors    []wireTensor    `avro:"tensors"`
}

type wireColumn struct {
	Name   string    `avro:"name"`
	Values []float32 `avro:"values"`
}

type wireTensor struct {
	Name  string      `avro:"name"`
	Seed  oona.SeedID `avro:"seed_id"`
	DType string      `avro:"dtype"`
	Shape []int64     `avro:"shape"`
	Data  any         `avro:"data"` // []byte, or a claim's fields by name
}

// frame sets f to the frame in w, and shares the slices of w.
func (w *wireFrame) frame(f *oona.Frame) error {
	out := oona.Frame{
		Run: w.Run, Layer: w.Layer, Timeline: w.Timeline,
		Producer: w.Producer, Epoch: w.Epoch, Sequence: w.Sequence,
		ObservedAt: w.ObservedAt, Step: w.Step,
		Seeds:   w.Seeds,
		States:  decodeStates(nil, w.States),
		Metrics: make([]oona.Column, len(w.Metrics)),
		Tensors: make([]oona.Tensor, len(w.Tensors)),
	}
	for i, c := range w.Metrics {
		out.Metrics[i] = oona.Column(c)
	}
	for i := range w.Tensors {
		if err := w.Tensors[i].tensor(&out.Tensors[i]); err != nil {
			return &DecodeError{fmt.Sprintf("tensors[%d].data", i), -1, err}
		}
	}
	*f = out
	return nil
}

func (w *wireTensor) tensor(t *oona.Tensor) error {
	*t = oona.Tensor{Name: w.Name, Seed: w.Seed, DType: w.DType, Shape: w.Shape}
	switch data := w.Data.(type) {
	case []byte:
		t.Data = data
		return nil
	case map[string]any:
		claim, err := claimOf(data)
		t.Claim = claim
		return err
	}
	return fmt.Errorf("%w: it is neither bytes nor a claim but a %T", ErrMalformed, w.Data)
}

func claimOf(fields map[string]any) (*oona.TensorClaim, error) {
	bucket, bucketOK := fields["bucket"].(string)
	key, keyOK := fields["key"].(string)
	size, sizeOK := fields["size"].(int64)
	sum, sumOK := fields["sha256"].([]byte)
	claim := &oona.TensorClaim{Bucket: bucket, Key: key, Size: size}
	if !bucketOK || !keyOK || !sizeOK || !sumOK || len(sum) != len(claim.SHA256) {
		return nil, fmt.Errorf("%w: the claim does not have bucket, key, size and sha256", ErrMalformed)
	}
	copy(claim.SHA256[:], sum)
	return claim, nil
}
