package export

import (
	"math"
	"slices"
	"sort"
	"strconv"
	"time"

	dto "github.com/prometheus/client_model/go"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/internal/tracing"
)

// mostExemplars is how many exemplars a histogram has: of the last windows that were traced.
const mostExemplars = 4

// Labels of exemplars.
const (
	labelTrace = "trace_id"
	labelSeed  = "seed_id"
)

// exemplar is the worst value of a metric in a window whose span is sampled. The span links
// the frame that has the value.
type exemplar struct {
	value    float64
	seed     oona.SeedID
	trace    tracing.TraceID
	appended oona.Micros // of the rollup
}

// exemplify adds the worst values of a rollup that was accumulated to the exemplars of its
// series. Series that merge several layers or metrics have none.
func (l *store) exemplify(r *oona.Rollup, trace tracing.TraceID, appended oona.Micros, now time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	y, _ := l.layers.Of(r, now)
	if y == nil || y.Merged {
		return
	}
	for i := range r.Metrics {
		m := &r.Metrics[i]
		if s := y.Value.groups[r.Group].series[m.Name]; s != nil && m.Name != other && len(m.Worst) > 0 {
			s.exemplars = withExemplar(s.exemplars, exemplar{m.Worst[0].Value, m.Worst[0].Seed, trace, appended})
		}
	}
}

// withExemplar returns a new list, ascending by time, as snapshots have the old one.
func withExemplar(list []exemplar, e exemplar) []exemplar {
	out := append(make([]exemplar, 0, len(list)+1), list...)
	at := sort.Search(len(out), func(i int) bool { return out[i].appended > e.appended })
	out = slices.Insert(out, at, e)
	return out[max(0, len(out)-mostExemplars):]
}

// metric returns the exemplar as an exposition has it.
func (e *exemplar) metric() *dto.Exemplar {
	return &dto.Exemplar{
		Label:     pairs{pair(labelSeed, strconv.FormatInt(int64(e.seed), 10)), pair(labelTrace, e.trace.String())},
		Value:     &e.value,
		Timestamp: timestamppb.New(e.appended.Time()), // native histograms need it
	}
}

// exemplify adds exemplars to a histogram: to its native part all of them, and to each of
// its classic buckets the last one. For one above all bounds, it adds the infinite bucket.
func exemplify(h *dto.Histogram, list []exemplar) {
	for i := range list {
		e := list[i].metric()
		h.Exemplars = append(h.Exemplars, e)
		at := sort.Search(len(h.Bucket), func(j int) bool { return h.Bucket[j].GetUpperBound() >= e.GetValue() })
		if at == len(h.Bucket) {
			infinite := math.Inf(1)
			h.Bucket = append(h.Bucket, &dto.Bucket{CumulativeCount: h.SampleCount, UpperBound: &infinite})
		}
		h.Bucket[at].Exemplar = e
	}
}
