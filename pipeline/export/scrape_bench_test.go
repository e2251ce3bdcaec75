package export_test

import (
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/internal/worker"
)

// BenchmarkScrape is a whole scrape of 2,048 layers with eight metrics each, in the
// protobuf format without compression: as a worker serves it, with the label prefix on
// each series, and without that label.
func BenchmarkScrape(b *testing.B) {
	f := start(b, nil)
	window := layerRollups("")
	for i := range 2048 {
		for _, r := range window {
			r.Layer = oona.LayerID(fmt.Sprintf("layer.%d", i))
			f.send(r)
		}
	}
	request := httptest.NewRequest(http.MethodGet, "/metrics", nil)
	request.Header.Set("Accept", "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited")
	for _, way := range []struct {
		name    string
		metrics prometheus.Gatherer
	}{{"plain", f.registry}, {"prefix", worker.WithPrefix(f.registry, "kasmina")}} {
		b.Run(way.name, func(b *testing.B) {
			handler := worker.MetricsHandler(way.metrics, slog.New(slog.DiscardHandler))
			b.ReportAllocs()
			for b.Loop() {
				handler.ServeHTTP(discarded{io.Discard, http.Header{}}, request)
			}
		})
	}
}

// discarded is an answer that nobody reads.
type discarded struct {
	io.Writer
	header http.Header
}

func (d discarded) Header() http.Header { return d.header }
func (d discarded) WriteHeader(int)     {}
