package ingest

import (
	"net/http"
	"testing"

	"github.com/morphogenetic/oona/intake"
	"github.com/morphogenetic/oona/schemas/avro"
)

// The number of allocations of a request does not grow with its readings.
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
		allocations(mediaType, 4000) // makes the pooled buffers large enough
		few, many := allocations(mediaType, 40), allocations(mediaType, 4000)
		// The garbage collector may empty the pool during the measurement, and buffers
		// then grow again.
		if many > few+200 {
			t.Errorf("%s: %g allocations for 40 readings, %g for 4,000", mediaType, few, many)
		}
	}
}

// Decoders that have grown with a large body are not kept.
func TestLargeDecodersAreNotKept(t *testing.T) {
	s := newStage(t, &acknowledging{}, func(c *Config) { c.MaxMessageBytes = 4 << 20 })
	f := goodFrame(0)
	manySeeds(40_000)(f)
	manyMetrics(10)(f)
	body := avro.AppendFrame(nil, f)
	if len(body) <= pooled {
		t.Fatalf("the frame has only %d bytes", len(body))
	}
	var made []*intake.Decoder
	s.decoders.New = func() any {
		made = append(made, intake.NewDecoder(s.intake.Frame))
		return made[len(made)-1]
	}
	if w := post(s, mediaAvro, body); w.Code != http.StatusOK {
		t.Fatalf("answered %d %s", w.Code, w.Body)
	}
	for range 100 {
		d, _ := s.decoders.Get().(*intake.Decoder)
		if len(made) > 0 && d == made[0] {
			t.Fatal("the decoders of a large body are in the pool")
		}
	}
}
