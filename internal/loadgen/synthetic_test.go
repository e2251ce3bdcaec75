package loadgen

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/internal/catalogue"
	"github.com/morphogenetic/oona/schemas/avro"
)

func TestParseSynthetic(t *testing.T) {
	got, err := ParseSynthetic("layers=64, seeds=1000,rate=100.5,producers=8,frames=7,seed=3")
	if want := (Synthetic{64, 1000, 100.5, 8, 7, 3}); err != nil || got != want {
		t.Errorf("got %+v, %v, want %+v", got, err, want)
	}
	got, err = ParseSynthetic("layers=1")
	if want := (Synthetic{1, DefaultSynthetic.Seeds, DefaultSynthetic.Rate, 1, 0, 1}); err != nil || got != want {
		t.Errorf("got %+v, %v, want %+v", got, err, want)
	}
	for text, want := range map[string]string{
		"":                            "\"\"",
		"layers":                      "\"layers\"",
		"layers=":                     "layers",
		"layers=x":                    "layers",
		"layers=0":                    "layers",
		"layers=1000000":              "layers",
		"seeds=65537":                 "seeds",
		"rate=0":                      "rate",
		"rate=NaN":                    "rate",
		"rate=inf":                    "rate",
		"layers=2,producers=3":        "producers",
		"frames=-1":                   "frames",
		"seed=-1":                     "seed",
		"layers=1,colour=red":         "colour",
		"frames=99999999999999999999": "frames",
	} {
		got, err := ParseSynthetic(text)
		if wrong, ok := errors.AsType[*oona.FieldError](err); !ok || wrong.Field != want {
			t.Errorf("%q: %+v, %v, want an error of %s", text, got, err, want)
		}
	}
}

// all returns copies of the first n frames of each producer.
func all(s Synthetic, n int) [][]oona.Frame {
	var producers [][]oona.Frame
	for _, source := range s.sources() {
		var frames []oona.Frame
		for len(frames) < n {
			f, due, more := source.next()
			if !more {
				break
			}
			c := *f
			c.ObservedAt = due
			c.States = append([]oona.State(nil), f.States...)
			frames = append(frames, c)
		}
		producers = append(producers, frames)
	}
	return producers
}

func TestSyntheticFrames(t *testing.T) {
	spec := Synthetic{Layers: 5, Seeds: 100, Rate: 50, Producers: 2, Frames: 4_003, Seed: 9}
	producers := all(spec, 10_000)
	total := 0
	owners := make(map[oona.LayerID]int)
	for p, frames := range producers {
		total += len(frames)
		for i, f := range frames {
			if owner, known := owners[f.Layer]; known && owner != p {
				t.Fatalf("%s is of producers %d and %d", f.Layer, owner, p)
			}
			owners[f.Layer] = p
			if f.Sequence != int64(i) || (i > 0 && f.ObservedAt <= frames[i-1].ObservedAt) {
				t.Fatalf("producer %d, frame %d: sequence %d, due %d after %d", p, i, f.Sequence, f.ObservedAt, frames[max(0, i-1)].ObservedAt)
			}
			f.Run, f.ObservedAt = "r", oona.MicrosOf(time.Now())
			if err := f.Validate(oona.DefaultFrameLimits); err != nil {
				t.Fatal(err)
			}
		}
	}
	if total != 4_003 || len(owners) != 5 {
		t.Errorf("%d frames of %d layers, want 4003 of 5", total, len(owners))
	}
	// The last frame is due at its number divided by the rate.
	if last, want := producers[0][len(producers[0])-1], oona.Micros(4_002*1_000_000/50); last.ObservedAt != want {
		t.Errorf("the last frame is due at %d, want %d", last.ObservedAt, want)
	}
}

func TestSyntheticSeedsLive(t *testing.T) {
	states := make(map[oona.LayerID][]oona.State)
	var entered [oona.StateCount]int
	for _, f := range all(Synthetic{Layers: 2, Seeds: 300, Rate: 1, Producers: 2, Seed: 4}, 1_000) {
		for _, frame := range f {
			before := states[frame.Layer]
			for i, to := range frame.States {
				from := oona.Dormant
				if before != nil {
					from = before[i]
				}
				if from == to {
					continue
				}
				if !from.CanBecome(to) {
					t.Fatalf("seed %d of %s went from %s to %s", i, frame.Layer, from, to)
				}
				entered[to]++
			}
			states[frame.Layer] = frame.States
		}
	}
	for state := oona.Germinated; state.Valid(); state++ {
		if entered[state] == 0 {
			t.Errorf("no seed became %s", state)
		}
	}
	for state := oona.Germinated; state <= oona.Fossilized; state++ {
		if next := entered[state]; next < 600/3 {
			t.Errorf("%d of 600 seeds became %s; most should come that far", next, state)
		}
	}
}

func TestSyntheticIsDeterministic(t *testing.T) {
	spec := Synthetic{Layers: 3, Seeds: 20, Rate: 7, Producers: 2, Frames: 500, Seed: 5}
	other := spec
	other.Seed = 6
	if first, second := encoded(spec), encoded(spec); first != second {
		t.Error("the same description made other frames")
	}
	if encoded(spec) == encoded(other) {
		t.Error("another seed made the same frames")
	}
}

// encoded returns the encoded frames of the load, as text.
func encoded(s Synthetic) string {
	var data []byte
	for _, frames := range all(s, 1_000) {
		for _, f := range frames {
			data = avro.AppendFrame(data, &f)
		}
	}
	return fmt.Sprintf("%x", data)
}

// The catalogue knows all metrics, and their values are plausible.
func TestSyntheticValues(t *testing.T) {
	known, err := catalogue.Default()
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, m := range append(known.Group(oona.Health), known.Group(oona.Performance)...) {
		names = append(names, m.Name)
	}
	f, _, _ := Synthetic{Layers: 1, Seeds: 10_000, Rate: 1, Producers: 1, Seed: 1}.sources()[0].next()
	if len(f.Metrics) != len(names) {
		t.Errorf("%d metrics, the catalogue has %v", len(f.Metrics), names)
	}
	for i, column := range f.Metrics {
		m := known.Metric(column.Name)
		if m.Help == "" {
			t.Errorf("%s is not in the catalogue", column.Name)
		}
		missing, negative := 0, 0
		var sizes []float64
		for _, v := range column.Values {
			switch {
			case v != v:
				missing++
			case math.IsInf(float64(v), 0):
				t.Fatalf("%s has an infinity", column.Name)
			case m.Unit == "ratio" && v > 1:
				t.Fatalf("%s is %v, above 1", column.Name, v)
			}
			if v < 0 {
				negative++
			}
			if v == v {
				sizes = append(sizes, math.Abs(float64(v)))
			}
		}
		if missing < 100 || missing > 300 {
			t.Errorf("%s: %d of 10000 are NaN, want about 200", column.Name, missing)
		}
		if signed := synthesized[i].signed; signed != (negative > 0) {
			t.Errorf("%s: %d values are negative", column.Name, negative)
		}
		slices.Sort(sizes)
		middle, most := sizes[len(sizes)/2], math.Exp(4*levels) // four standard deviations
		if off := middle / synthesized[i].median; off < 1/most || off > most {
			t.Errorf("%s: the median is %v, want about %v", column.Name, middle, synthesized[i].median)
		}
	}
}

func TestSyntheticLayersDiffer(t *testing.T) {
	sums := make(map[float64]oona.LayerID)
	for _, f := range all(Synthetic{Layers: 8, Seeds: 100, Rate: 1, Producers: 1, Frames: 8}, 8)[0] {
		sum := 0.0
		for _, v := range f.Metrics[0].Values {
			if v == v {
				sum += float64(v)
			}
		}
		if other, same := sums[sum]; same {
			t.Errorf("%s has the values of %s", f.Layer, other)
		}
		sums[sum] = f.Layer
	}
}

func TestSyntheticRate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		in := &ingest{}
		cfg := testConfig(in)
		cfg.Speed = 2
		cfg.Synthetic = Synthetic{Layers: 3, Seeds: 4, Rate: 100, Producers: 3, Frames: 1_001}
		result := run(t, cfg)
		if want := 5 * time.Second; (result.Elapsed - want).Abs() > time.Millisecond {
			t.Errorf("1001 frames, 100 a second, twice as fast: %v, want %v", result.Elapsed, want)
		}
		inOrder(t, in.arrivals)
		for _, a := range in.arrivals {
			if d := oona.MicrosOf(a.at) - a.frame.ObservedAt; d < 0 || d > 1 {
				t.Fatalf("frame %d of %s came %d µs after its time", a.frame.Sequence, a.frame.Producer, d)
			}
		}
	})
}

// The cost of generating and encoding a frame of 1,000 seeds, to compare with the cost of
// ingesting it.
func BenchmarkSynthetic(b *testing.B) {
	source := Synthetic{Layers: 64, Seeds: 1_000, Rate: 100, Producers: 1, Seed: 1}.sources()[0]
	var buffer []byte
	b.ReportAllocs()
	for b.Loop() {
		f, _, _ := source.next()
		f.Run = "r"
		buffer = avro.AppendFrame(buffer[:0], f)
	}
	b.SetBytes(int64(len(buffer)))
}
