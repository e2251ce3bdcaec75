package avro

import (
	"fmt"
	"testing"

	"github.com/morphogenetic/oona"
)

// layerFrame is a layer of seeds with 8 metrics.
func layerFrame(seeds int) *oona.Frame {
	f := &oona.Frame{
		Run: "run-7", Layer: "enc.3", Producer: "trainer-0",
		Epoch: 1_700_000_000_000_000, Sequence: 41, ObservedAt: 1_700_000_001_000_000, Step: 900,
		Seeds:  make([]oona.SeedID, seeds),
		States: make([]oona.State, seeds),
	}
	for i := range seeds {
		f.Seeds[i], f.States[i] = oona.SeedID(i), oona.State(i%oona.StateCount)
	}
	for _, name := range []string{
		"reconstruction_loss", "gradient_norm", "activation_variance", "dead_fraction",
		"weight_norm", "improvement", "blend", "compute_seconds",
	} {
		c := oona.Column{Name: name, Values: make([]float32, seeds)}
		for i := range c.Values {
			c.Values[i] = float32(i) * 1.25
		}
		f.Metrics = append(f.Metrics, c)
	}
	return f
}

func samplesOf(f *oona.Frame) int { return len(f.Seeds) * len(f.Metrics) }

func BenchmarkDecodeFrame(b *testing.B) {
	f := layerFrame(1_000)
	data := AppendFrame(nil, f)
	var d FrameDecoder
	var got oona.Frame
	b.ReportAllocs()
	b.SetBytes(int64(len(data)))
	for b.Loop() {
		if _, err := d.Decode(data, &got); err != nil {
			b.Fatal(err)
		}
	}
	perSample(b, samplesOf(f))
}

// BenchmarkDecodeManyLayers decodes frames of 100 seeds, of each layer in turn.
func BenchmarkDecodeManyLayers(b *testing.B) {
	for _, layers := range []int{100, 10_000} {
		b.Run(fmt.Sprintf("layers=%d", layers), func(b *testing.B) {
			frames := framesOfLayers(layers)
			var d FrameDecoder
			var got oona.Frame
			b.ReportAllocs()
			n := 0
			for b.Loop() {
				if _, err := d.Decode(frames[n%layers], &got); err != nil {
					b.Fatal(err)
				}
				n++
			}
			perSample(b, samplesOf(&got))
		})
	}
}

// framesOfLayers is a frame of each of some layers, encoded.
func framesOfLayers(layers int) [][]byte {
	f := layerFrame(100)
	frames := make([][]byte, layers)
	for i := range frames {
		f.Layer = oona.LayerID(fmt.Sprintf("encoder.%05d", i))
		frames[i] = AppendFrame(nil, f)
	}
	return frames
}

func BenchmarkEncodeFrame(b *testing.B) {
	f := layerFrame(1_000)
	data := AppendFrame(nil, f)
	b.ReportAllocs()
	b.SetBytes(int64(len(data)))
	for b.Loop() {
		data = AppendFrame(data[:0], f)
	}
	perSample(b, samplesOf(f))
}

func perSample(b *testing.B, samples int) {
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*samples), "ns/sample")
}

// layerRollup is a window of 8 metrics, with about as many buckets as a layer
// of a thousand seeds fills.
func layerRollup() *oona.Rollup {
	r := sampleRollup(oona.Health)
	summary := r.Metrics[0]
	summary.Histogram.Positive = oona.Buckets{Indexes: make([]int32, 100), Counts: make([]uint64, 100)}
	for i := range 100 {
		summary.Histogram.Positive.Indexes[i] = int32(i - 50)
		summary.Histogram.Positive.Counts[i] = uint64(i) * 100
	}
	r.Metrics = nil
	for range 8 {
		r.Metrics = append(r.Metrics, summary)
	}
	return r
}

func BenchmarkEncodeRollup(b *testing.B) {
	r := layerRollup()
	data := AppendRollup(nil, r)
	b.ReportAllocs()
	b.SetBytes(int64(len(data)))
	for b.Loop() {
		data = AppendRollup(data[:0], r)
	}
}

func BenchmarkDecodeRollup(b *testing.B) {
	data := AppendRollup(nil, layerRollup())
	var r oona.Rollup
	b.ReportAllocs()
	b.SetBytes(int64(len(data)))
	for b.Loop() {
		if _, err := DecodeRollup(data, &r); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkDecodeFrameTwmb is what frames of other versions cost.
func BenchmarkDecodeFrameTwmb(b *testing.B) {
	f := layerFrame(1_000)
	data := AppendFrame(nil, f)
	v := published.latest[seedMetrics]
	var d FrameDecoder
	var got oona.Frame
	b.ReportAllocs()
	b.SetBytes(int64(len(data)))
	for b.Loop() {
		if _, err := d.decodeResolved(v, data, &got); err != nil {
			b.Fatal(err)
		}
	}
	perSample(b, samplesOf(f))
}
