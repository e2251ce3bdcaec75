package ingest

import (
	"testing"

	"github.com/morphogenetic/oona/schemas/avro"
)

// What a request allocates does not grow with its readings.
func TestAllocationsDoNotGrowWithReadings(t *testing.T) {
	s := newStage(t, &acknowledging{}, nil)
	allocations := func(mediaType string, seeds int) float64 {
		f := goodFrame(0)
		manySeeds(seeds)(f)
		manyMetrics(8)(f)
		body := avro.AppendFrame(nil, f)
		if mediaType == mediaJSON {
			body = jsonOf(f)
		}
		return testing.AllocsPerRun(20, func() { post(s, mediaType, body) })
	}
	for _, mediaType := range []string{mediaAvro, mediaJSON} {
		allocations(mediaType, 4000) // the pooled buffers are as large as they need be
		few, many := allocations(mediaType, 40), allocations(mediaType, 4000)
		// The pool may be emptied while this is measured: then buffers grow anew.
		if many > few+200 {
			t.Errorf("%s: %g allocations for 40 readings, %g for 4,000", mediaType, few, many)
		}
	}
}
