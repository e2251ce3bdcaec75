package export_test

import (
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/morphogenetic/oona/internal/worker"
	"github.com/morphogenetic/oona/pipeline/export"
)

// BenchmarkScrape is a whole scrape of 1,024 layers with eight metrics each, in the
// protobuf format without compression: as a worker serves it, with the label prefix on
// each series, and without that label.
func BenchmarkScrape(b *testing.B) {
	parts := new(export.Registries)
	f := startRegistered(b, newTape(b, 1), parts, nil)
	f.judged(1024)
	prefixed := make([]prometheus.Gatherer, len(parts.All))
	for i, part := range parts.All {
		prefixed[i] = worker.WithPrefix(part, "kasmina")
	}
	request := httptest.NewRequest(http.MethodGet, "/metrics", nil)
	request.Header.Set("Accept", acceptProtobuf)
	for _, way := range []struct {
		name    string
		metrics []prometheus.Gatherer
	}{{"plain", parts.All}, {"prefix", prefixed}} {
		b.Run(way.name, func(b *testing.B) {
			handler := worker.MetricsHandler(slog.New(slog.DiscardHandler), way.metrics...)
			b.ReportAllocs()
			for b.Loop() {
				handler.ServeHTTP(export.Unread{io.Discard, http.Header{}}, request)
			}
		})
	}
}
