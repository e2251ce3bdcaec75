package intake

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math"
	"math/big"
	"runtime"
	"slices"
	"testing"

	"github.com/morphogenetic/oona"
)

const frameJSON = `{"run_id":"digits","layer_id":"enc.1","producer_id":"trainer-0","producer_epoch":1790000000000000,"sequence":0,
"observed_at":1790000001000000,"step":7,"seed_ids":[0,1,2,3],"states":["DORMANT","training",3,"FOSSILIZED"],
"metrics":[{"name":"gradient_norm","values":[1,2,3,4]},{"name":"blend","values":[0,2.5e-1,0.5,1]}]}`

// whole is an integer that is parsed by math/big.
type whole int64

func (w *whole) UnmarshalJSON(text []byte) error {
	number, ok := new(big.Rat).SetString(string(text))
	if !ok || !number.IsInt() || !number.Num().IsInt64() {
		return fmt.Errorf("%s is not a whole number of 64 bits", text)
	}
	*w = whole(number.Num().Int64())
	return nil
}

// plainFrame is a frame that is decoded by encoding/json.
type plainFrame struct {
	Run        string  `json:"run_id"`
	Layer      string  `json:"layer_id"`
	Timeline   string  `json:"timeline"`
	Producer   string  `json:"producer_id"`
	Epoch      whole   `json:"producer_epoch"`
	Sequence   whole   `json:"sequence"`
	ObservedAt whole   `json:"observed_at"`
	Step       whole   `json:"step"`
	Seeds      []whole `json:"seed_ids"`
	States     []any   `json:"states"`
	Metrics    []struct {
		Name   string `json:"name"`
		Values []any  `json:"values"`
	} `json:"metrics"`
	Tensors []struct {
		Name  string          `json:"name"`
		Seed  whole           `json:"seed_id"`
		DType string          `json:"dtype"`
		Shape []whole         `json:"shape"`
		Data  json.RawMessage `json:"data"`
	} `json:"tensors"`
}

// FuzzJSONFrame checks that encoding/json also accepts what our reader accepts, with the
// same values.
func FuzzJSONFrame(f *testing.F) {
	f.Add([]byte(frameJSON))
	f.Add([]byte(`{"run_id":"","layer_id":"\u00e9\\\"","producer_id":"p","producer_epoch":-1,"sequence":1,"observed_at":0,"seed_ids":[ ],"states":[],"metrics":[{"name":"m","values":[null,"NaN",-0,1E+2]}],"tensors":[{"name":"","seed_id":0,"dtype":"","shape":[1,-2],"data":""}]}`))
	f.Add([]byte(`{"run_id":"","layer_id":"","producer_id":"p","producer_epoch":1e5,"sequence":1.0,"observed_at":0e9,"step":-1e+05,"seed_ids":[1e0],"states":[1.0],"metrics":[{"name":"m","values":[1e39,-1e308]}]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		if syntaxFault(data) != "" {
			return
		}
		d := jsonDecoder{jsonReader: jsonReader{data: data}, limits: oona.DefaultFrameLimits}
		var got oona.Frame
		var err error
		if allocated, most := allocatedBy(func() { err = d.frame(&got) }), uint64(1<<16+64*len(data)); allocated > most {
			t.Fatalf("%d bytes were allocated for %d bytes of JSON, want at most %d", allocated, len(data), most)
		}
		if err != nil {
			return
		}
		var want plainFrame
		if err := json.Unmarshal(data, &want); err != nil {
			t.Fatalf("encoding/json refuses the frame: %v", err)
		}
		if d.next() != 0 {
			t.Fatalf("the reader stopped at byte %d of %d", d.at, len(data))
		}
		comparePlain(t, &got, &want)
	})
}

func comparePlain(t *testing.T, got *oona.Frame, want *plainFrame) {
	if string(got.Run) != want.Run || string(got.Layer) != want.Layer || string(got.Timeline) != want.Timeline || string(got.Producer) != want.Producer ||
		whole(got.Epoch) != want.Epoch || whole(got.Sequence) != want.Sequence || whole(got.ObservedAt) != want.ObservedAt || whole(got.Step) != want.Step {
		t.Fatalf("read %+v, encoding/json %+v", got, want)
	}
	if len(got.Seeds) != len(want.Seeds) || len(got.States) != len(want.States) || len(got.Metrics) != len(want.Metrics) || len(got.Tensors) != len(want.Tensors) {
		t.Fatalf("read %+v, encoding/json %+v", got, want)
	}
	for i, seed := range want.Seeds {
		if whole(got.Seeds[i]) != seed {
			t.Fatalf("seed %d is %d, encoding/json reads %d", i, got.Seeds[i], seed)
		}
	}
	for i, state := range want.States {
		if ordinal, ok := state.(float64); ok && float64(got.States[i]) != ordinal {
			t.Fatalf("state %d is %d, encoding/json reads %g", i, got.States[i], ordinal)
		}
	}
	for i, m := range want.Metrics {
		if got.Metrics[i].Name != m.Name || len(got.Metrics[i].Values) != len(m.Values) {
			t.Fatalf("metric %d is %+v, encoding/json reads %+v", i, got.Metrics[i], m)
		}
		for j, value := range m.Values {
			if v, ok := value.(float64); ok && math.IsInf(float64(got.Metrics[i].Values[j]), 0) && math.Abs(v) >= math.MaxFloat32 {
				continue
			}
			// encoding/json rounds to a float64 first, so the results may differ by one step.
			if v, ok := value.(float64); ok && math.Abs(float64(got.Metrics[i].Values[j])-v) > math.Max(math.Abs(v)*0x1p-23, 0x1p-149) {
				t.Fatalf("value %d of metric %d is %g, encoding/json reads %g", j, i, got.Metrics[i].Values[j], v)
			}
		}
	}
	for i, tensor := range want.Tensors {
		g := got.Tensors[i]
		if g.Name != tensor.Name || whole(g.Seed) != tensor.Seed || g.DType != tensor.DType ||
			!slices.EqualFunc(g.Shape, tensor.Shape, func(n int64, plain whole) bool { return whole(n) == plain }) {
			t.Fatalf("tensor %d is %+v, encoding/json reads %+v", i, g, tensor)
		}
		var text []byte
		if g.Claim == nil && (json.Unmarshal(tensor.Data, &text) != nil || !bytes.Equal(text, g.Data)) {
			t.Fatalf("data of tensor %d is %q, encoding/json reads %q", i, g.Data, text)
		}
	}
}

func allocatedBy(f func()) uint64 {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	f()
	runtime.ReadMemStats(&after)
	return after.TotalAlloc - before.TotalAlloc
}
