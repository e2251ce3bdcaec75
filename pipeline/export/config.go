package export

import (
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/internal/tracing"
)

// Config configures the stage.
type Config struct {
	Topics oona.Topics
	// Tracer gets a span of each rollup whose window has one, and then histograms have
	// exemplars. Nil: there are no traces.
	Tracer *tracing.Tracer

	// MaxRuns, MaxLayers (of one run) and MaxMetrics (of all layers together)
	// limit the number of values of the labels run, layer and metric. MaxTotalLayers
	// is the limit of layers of all runs together, and bounds the size of an
	// exposition. Runs, layers and metrics beyond these limits are merged under
	// the value "other", and counted.
	MaxRuns        int
	MaxLayers      int
	MaxTotalLayers int
	MaxMetrics     int
	// Expected has the names of the metrics whose expected range is shown, if they are
	// judged. AllMetrics stands for all. The range of a metric for which a layer is
	// unhealthy is always shown.
	Expected []string
	// WorstSeeds is how many of a rollup's worst seeds are shown a metric.
	WorstSeeds int
	// SilentAfter is how long a layer's series are shown after its last
	// rollup came and after its last window ended.
	SilentAfter time.Duration
	// RunKept is how long a run is shown after its last rollup came. A run that has been
	// silent for SilentAfter is shown as silent, unless its end is known.
	RunKept time.Duration
	// Buckets are the bounds of the classic buckets, ascending. Each histogram
	// is exposed as a native one, too. newBound says which bounds are exact.
	Buckets []float64
}

// AllMetrics is what Config.Expected has for all metrics.
const AllMetrics = "all"

// DefaultExpected returns the metrics whose expected range is shown by default: those
// that say most of a layer.
func DefaultExpected() []string { return []string{"gradient_norm", "reconstruction_loss"} }

// DefaultBuckets returns the default bounds of the classic buckets: 0, and every second
// power of two from 2^-20 to 2^20. The counts are exact at these bounds.
func DefaultBuckets() []float64 { return powersOfTwo(2) }

// FineBuckets returns finer bounds: 0, and every power of two from 2^-20 to 2^20.
func FineBuckets() []float64 { return powersOfTwo(1) }

func powersOfTwo(step int) []float64 {
	bounds := []float64{0}
	for exponent := -20; exponent <= 20; exponent += step {
		bounds = append(bounds, math.Ldexp(1, exponent))
	}
	return bounds
}

// DefaultConfig returns the defaults, with topics of the default prefix.
func DefaultConfig() Config {
	topics, err := oona.NewTopics(oona.DefaultPrefix)
	if err != nil {
		panic(err) // a constant is wrong
	}
	return Config{
		Topics:         topics,
		MaxRuns:        32,
		MaxLayers:      1024,
		MaxTotalLayers: 2048,
		MaxMetrics:     64,
		Expected:       DefaultExpected(),
		WorstSeeds:     5,
		SilentAfter:    5 * time.Minute,
		RunKept:        24 * time.Hour,
		Buckets:        DefaultBuckets(),
	}
}

// expected reports whether the expected range of a metric is always shown.
func (c *Config) expected(metric string) bool {
	return slices.Contains(c.Expected, metric) || slices.Contains(c.Expected, AllMetrics)
}

// Validate names the first field that is wrong.
func (c Config) Validate() error {
	if c.Topics.LayerHealth == "" || c.Topics.LayerHealth == c.Topics.LayerPerformance {
		return &oona.FieldError{Field: "Topics", Reason: "has no two rollup topics; make it with oona.NewTopics"}
	}
	for _, n := range []struct {
		field        string
		value, least int
	}{
		{"MaxRuns", c.MaxRuns, 1},
		{"MaxLayers", c.MaxLayers, 1},
		{"MaxTotalLayers", c.MaxTotalLayers, 1},
		{"MaxMetrics", c.MaxMetrics, 1},
		{"WorstSeeds", c.WorstSeeds, 0},
	} {
		if n.value < n.least {
			return &oona.FieldError{Field: n.field, Reason: fmt.Sprintf("is %d; it is at least %d", n.value, n.least)}
		}
	}
	if c.SilentAfter <= 0 {
		return &oona.FieldError{Field: "SilentAfter", Reason: fmt.Sprintf("is %s; give a time above 0, a few windows long", c.SilentAfter)}
	}
	if c.RunKept < c.SilentAfter {
		return &oona.FieldError{Field: "RunKept", Reason: fmt.Sprintf("is %s; give at least the time after which a run is silent, %s", c.RunKept, c.SilentAfter)}
	}
	for i, b := range c.Buckets {
		field := fmt.Sprintf("Buckets[%d]", i)
		if math.IsNaN(b) || math.IsInf(b, 0) {
			return &oona.FieldError{Field: field, Reason: fmt.Sprintf("is %g; bounds are finite, the infinite one is always there", b)}
		}
		if i > 0 && b <= c.Buckets[i-1] {
			return &oona.FieldError{Field: field, Reason: fmt.Sprintf("is %g after %g; bounds ascend", b, c.Buckets[i-1])}
		}
	}
	return nil
}
