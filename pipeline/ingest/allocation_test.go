package ingest

import (
	"net/http"
	"strings"
	"testing"

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

// Decoders that have grown with a large body are not kept. JSON with more entries than
// the limit does not make them grow.
func TestLargeDecodersAreNotKept(t *testing.T) {
	s := newStage(t, &acknowledging{}, func(c *Config) { c.MaxMessageBytes = 4 << 20 })
	f := goodFrame(0)
	manySeeds(40_000)(f)
	manyMetrics(10)(f)
	body := avro.AppendFrame(nil, f)
	if len(body) <= pooled {
		t.Fatalf("the frame has only %d bytes", len(body))
	}
	var made []*decoders
	s.decoders.New = func() any {
		made = append(made, newDecoders(s.cfg))
		return made[len(made)-1]
	}
	if w := post(s, mediaAvro, body); w.Code != http.StatusOK {
		t.Fatalf("answered %d %s", w.Code, w.Body)
	}
	for range 100 {
		d, _ := s.decoders.Get().(*decoders)
		if len(made) > 0 && d == made[0] {
			t.Fatal("the decoders of a large body are in the pool")
		}
	}

	d := newDecoders(s.cfg)
	seeds := strings.Replace(goodJSON, "[0,1,2,3]", "["+strings.Repeat("0,", 1<<20)+"0]", 1)
	if p := d.jsonFrames([]byte(seeds), &batch{cfg: &s.cfg}); p == nil || p.field != "seed_ids" {
		t.Fatalf("a million seeds: %+v", p)
	}
	if most := 2 * s.cfg.MaxReadings; cap(d.json.seeds) > most {
		t.Errorf("%d seeds have room, want at most %d", cap(d.json.seeds), most)
	}
}
