package windows

import (
	"testing"

	"github.com/morphogenetic/oona"
)

func TestSmoke(t *testing.T) {
	e, err := New(DefaultConfig(), func(name string) oona.Metric {
		return oona.Metric{Name: name, Group: oona.Performance, Direction: oona.LowerIsBetter}
	})
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for i := range 400 {
		at := oona.Micros(1_700_000_000_000_000 + i*100_000)
		f := &oona.Frame{Run: "r", Layer: "l", Producer: "p", Sequence: int64(i), ObservedAt: at, Step: int64(i), Seeds: []oona.SeedID{1, 2, 3}, States: []oona.State{2, 2, 3},
			Metrics: []oona.Column{{Name: "m", Values: []float32{1, 2, float32(i)}}}}
		o := e.Fold(Record{Offset: int64(i), AppendedAt: at + 1000, Checksum: uint64(i), Frame: f}, func(r *oona.Rollup) { n++; t.Logf("%+v", *r) })
		if o.Verdict != Folded {
			t.Fatal(o)
		}
	}
	if n == 0 {
		t.Fatal("none")
	}
}
