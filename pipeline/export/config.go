package export

import (
	"fmt"
	"math"
	"time"

	"github.com/morphogenetic/oona"
)

// Config is what the stage must be told.
type Config struct {
	Topics oona.Topics

	// MaxRuns, MaxLayers (of one run) and MaxMetrics (of all layers together)
	// bound the values of the labels run, layer and metric, and MaxTotalLayers,
	// of all runs together, the size of an exposition. What comes beyond them
	// is merged under the value "other", and counted.
	MaxRuns        int
	MaxLayers      int
	MaxTotalLayers int
	MaxMetrics     int
	// WorstSeeds is how many of a rollup's worst seeds are shown a metric.
	WorstSeeds int
	// SilentAfter is how long a layer's series are shown after its last
	// rollup came and after its last window ended.
	SilentAfter time.Duration
	// Buckets are the bounds of the classic buckets, ascending. Each histogram
	// is exposed as a native one, too. newBound says which bounds are exact.
	Buckets []float64
}

// DefaultConfig returns the defaults, with topics of the default prefix. The
// classic bounds are 0 and every second power of two from 2^-20 to 2^20: where
// a bound is a power of two, the counts below it are exact.
func DefaultConfig() Config {
	topics, err := oona.NewTopics(oona.DefaultPrefix)
	if err != nil {
		panic(err) // a constant is wrong
	}
	buckets := []float64{0}
	for exponent := -20; exponent <= 20; exponent += 2 {
		buckets = append(buckets, math.Ldexp(1, exponent))
	}
	return Config{
		Topics:         topics,
		MaxRuns:        32,
		MaxLayers:      1024,
		MaxTotalLayers: 2048,
		MaxMetrics:     64,
		WorstSeeds:     5,
		SilentAfter:    5 * time.Minute,
		Buckets:        buckets,
	}
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
