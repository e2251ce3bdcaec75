package verdict_test

import (
	"reflect"
	"testing"
	"time"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/schemas/avro"
	"github.com/morphogenetic/oona/verdict"
)

// A judge accepts every rollup that a decoder accepts: it does not panic, two judges return the same
// verdict, and the verdict is bounded.
func FuzzObserve(f *testing.F) {
	known := builtIn(f)
	n := 0
	fold(f, recorded(f), 8*time.Second, 2, known, func(r *oona.Rollup) {
		if n++; n%9 == 0 {
			f.Add(avro.AppendRollup(nil, r), uint8(4), false)
		}
	})
	f.Fuzz(func(t *testing.T, data []byte, repeats uint8, backwards bool) {
		var r oona.Rollup
		if _, err := avro.DecodeRollup(data, &r); err != nil {
			return
		}
		judges := [2]*verdict.Judge{verdict.NewJudge(known.Rule), verdict.NewJudge(known.Rule)}
		length := r.End - r.Start
		for range repeats % 32 {
			for _, j := range judges {
				j.Observe(&r)
			}
			v, w := judges[0].At(r.End), judges[1].At(r.End)
			if !reflect.DeepEqual(v, w) {
				t.Fatalf("%+v, and then %+v", v, w)
			}
			if len(v.Reasons) > len(verdict.Kinds())*(len(r.Metrics)+1) {
				t.Fatalf("%d reasons", len(v.Reasons))
			}
			for i, reason := range v.Reasons {
				if reason.String() == "" || reason.Level == verdict.OK || reason.Level > v.Level || i > 0 && reason.Level > v.Reasons[i-1].Level {
					t.Fatalf("%v: reasons %+v", v.Level, v.Reasons)
				}
			}
			for m := range judges[0].Metrics() {
				if m.Low > m.High {
					t.Fatalf("the range of %s is %g to %g", m.Name, m.Low, m.High)
				}
			}
			if backwards {
				length = -length
			}
			r.Start, r.End = r.Start+length, r.End+length
		}
	})
}
