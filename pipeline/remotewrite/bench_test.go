package remotewrite

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/morphogenetic/oona"
)

// nowhere takes everything.
type nowhere struct{}

func (nowhere) RoundTrip(r *http.Request) (*http.Response, error) {
	_, err := io.Copy(io.Discard, r.Body)
	return &http.Response{StatusCode: http.StatusNoContent, Body: io.NopCloser(strings.NewReader(""))}, err
}

// BenchmarkRequest makes the request of twenty rollups with eight metrics, of 50 buckets
// each.
func BenchmarkRequest(b *testing.B) {
	r := &oona.Rollup{Group: oona.Health, Run: "a-run-with-a-name", Layer: "encoder.12.mlp", Reducer: 2, End: 1_790_000_000_000_000}
	for m := range 8 {
		s := oona.MetricSummary{Name: fmt.Sprint("metric_", m), Count: 5000, Sum: 1.5, Min: -1, Max: 2, Mean: 0.25, M2: 3}
		for i := range int32(50) {
			s.Histogram.Positive.Indexes = append(s.Histogram.Positive.Indexes, 3*i)
			s.Histogram.Positive.Counts = append(s.Histogram.Positive.Counts, 100)
		}
		for i := range 5 {
			s.Worst = append(s.Worst, oona.SeedValue{Seed: oona.SeedID(i), Value: 1.0 / float64(i+1)})
		}
		r.Metrics = append(r.Metrics, s)
	}
	to := receiver{url: "http://receiver/api/v1/write", client: &http.Client{Transport: nowhere{}}}
	b.ReportAllocs()
	samples := 0
	for b.Loop() {
		e := encoder{prefix: "kasmina", worst: 5, histograms: true}
		for range 20 {
			e.encode(r)
		}
		if a := to.send(context.Background(), e.series); a.verdict != accepted {
			b.Fatal(a.err)
		}
		samples += len(e.series)
	}
	b.ReportMetric(float64(samples)/b.Elapsed().Seconds(), "samples/s")
	b.ReportMetric(20*float64(b.N)/b.Elapsed().Seconds(), "rollups/s")
}
