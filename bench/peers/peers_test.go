package main

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"io"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/schemas/avro"
)

// sent has frames of two layers over three windows. Their values have few binary digits, so
// that sums are exact in any order and wire format.
func sent(t *testing.T) (frames []oona.Frame) {
	t.Helper()
	random := rand.New(rand.NewPCG(3, 4))
	for i := range 40 {
		f := oona.Frame{
			Run: "r", Layer: []oona.LayerID{"enc.0", "enc.1"}[i%2], Producer: "p", Epoch: 1,
			Sequence: int64(i), ObservedAt: 1_795_000_005_000_000 + oona.Micros(i/2*1_000_000),
			Seeds: make([]oona.SeedID, 50), States: make([]oona.State, 50),
			Metrics: []oona.Column{{Name: "gradient_norm"}, {Name: "improvement"}},
		}
		for seed := range f.Seeds {
			f.Seeds[seed] = oona.SeedID(seed)
			f.Metrics[0].Values = append(f.Metrics[0].Values, float32(random.IntN(1<<12))/64)
			f.Metrics[1].Values = append(f.Metrics[1].Values, float32(random.IntN(1<<12)-1<<11)/64)
		}
		if err := f.Validate(oona.DefaultFrameLimits); err != nil {
			t.Fatal(err)
		}
		frames = append(frames, f)
	}
	return frames
}

// frames returns the frames as they are sent.
func frames(t *testing.T) *bytes.Buffer {
	t.Helper()
	var out bytes.Buffer
	for _, f := range sent(t) {
		payload := avro.AppendFrame(nil, &f)
		out.Write(binary.LittleEndian.AppendUint32(nil, uint32(len(payload))))
		out.Write(payload)
	}
	return &out
}

// The other tests compare with the frames that were read.
func TestFramesAreThoseSent(t *testing.T) {
	windows, err := readWindows(frames(t))
	if err != nil {
		t.Fatal(err)
	}
	got, want := slices.Concat(windows...), sent(t)
	if len(got) != len(want) {
		t.Fatalf("%d frames, want %d", len(got), len(want))
	}
	for i := range want {
		if !bytes.Equal(avro.AppendFrame(nil, &got[i]), avro.AppendFrame(nil, &want[i])) {
			t.Errorf("frame %d is %v, want %v", i, got[i], want[i])
		}
	}
}

func TestPeersAggregate(t *testing.T) {
	windows, err := readWindows(frames(t))
	if err != nil {
		t.Fatal(err)
	}
	if len(windows) != 3 || samples(windows) != 40*50*2 {
		t.Fatalf("%d windows of %d samples", len(windows), samples(windows))
	}
	for name, prepare := range map[string]func([]window) (fold, error){"victoriametrics": newVictoria, "telegraf": newTelegraf} {
		t.Run(name, func(t *testing.T) {
			fold, err := prepare(windows)
			if err != nil {
				t.Fatal(err)
			}
			for range 2 { // the second must not depend on the first
				got, err := fold()
				if err != nil {
					t.Fatal(err)
				}
				if err := got.check(windows); err != nil {
					t.Error(err)
				}
				wantExact(t, windows, got)
			}
		})
	}
}

// wantExact checks counts and sums exactly.
func wantExact(t *testing.T, windows []window, got results) {
	t.Helper()
	compared := 0
	for i, w := range windows {
		for s, values := range w.samples() {
			sum := 0.0
			for _, x := range values {
				sum += x
			}
			key := result{window: i, layer: string(s.layer), metric: s.metric, output: "count"}
			if got[key] != float64(len(values)) {
				t.Errorf("%v is %v, want %d", key, got[key], len(values))
			}
			if key.output = "sum"; got[key] != sum {
				t.Errorf("%v is %v, want %v", key, got[key], sum)
			}
			compared++
		}
	}
	if compared != 3*2*2 {
		t.Errorf("%d metrics of layers' windows were compared", compared)
	}
}

// There is no figure if a peer omits an aggregate or computes a wrong one.
func TestCheckFinds(t *testing.T) {
	windows, err := readWindows(frames(t))
	if err != nil {
		t.Fatal(err)
	}
	fold, err := newVictoria(windows)
	if err != nil {
		t.Fatal(err)
	}
	for _, output := range outputs {
		for what, spoil := range map[string]func(results, result){
			"missing": func(r results, k result) { delete(r, k) },
			"wrong":   func(r results, k result) { r[k] = r[k]*2 + 100 },
		} {
			got, err := fold()
			if err != nil {
				t.Fatal(err)
			}
			spoil(got, result{1, "enc.1", "gradient_norm", output})
			if err := got.check(windows); err == nil || !strings.Contains(err.Error(), "window 1, gradient_norm of enc.1") {
				t.Errorf("%s %s: error is %v", what, output, err)
			}
		}
	}
	got, err := fold()
	if err != nil {
		t.Fatal(err)
	}
	got[result{window: 7}] = 1
	if err := got.check(windows); err == nil {
		t.Error("an aggregate too many was not noticed")
	}
}

func TestRun(t *testing.T) {
	var out bytes.Buffer
	if err := run(frames(t), &out); err != nil {
		t.Fatal(err)
	}
	var speeds map[string]float64
	if err := json.Unmarshal(out.Bytes(), &speeds); err != nil {
		t.Fatal(err)
	}
	if len(speeds) != 2 || !(speeds["victoriametrics_msamples_core"] > 0) || !(speeds["telegraf_msamples_core"] > 0) {
		t.Errorf("speeds are %v", speeds)
	}
}

func TestBadFrames(t *testing.T) {
	whole := frames(t).Bytes()
	for what, in := range map[string][]byte{
		"nothing":        {},
		"half a length":  whole[:2],
		"half a frame":   whole[:100],
		"no frame":       {3, 0, 0, 0, 1, 2, 3},
		"a huge frame":   {0xff, 0xff, 0xff, 0xff},
		"time runs back": append(bytes.Clone(whole), whole[:4+int(binary.LittleEndian.Uint32(whole))]...),
	} {
		if err := run(bytes.NewReader(in), io.Discard); err == nil {
			t.Errorf("%s: no error", what)
		}
	}
}
