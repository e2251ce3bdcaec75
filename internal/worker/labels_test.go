package worker

import (
	"log/slog"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
)

// shared gives out the same labels at each scrape.
type shared struct{ metric prometheus.Metric }

func (s shared) Describe(out chan<- *prometheus.Desc) { out <- s.metric.Desc() }
func (s shared) Collect(out chan<- prometheus.Metric) { out <- s.metric }

// Every series has the label, in its place, at each scrape, in each format.
func TestPrefixIsALabelOfAllSeries(t *testing.T) {
	registry := NewRegistry()
	desc := prometheus.NewDesc("oona_test", "", []string{"zone", "layer"}, nil)
	registry.MustRegister(shared{prometheus.MustNewConstMetric(desc, prometheus.GaugeValue, 1, "z", "l")})
	handler := MetricsHandler(slog.New(slog.DiscardHandler), WithPrefix(registry, "my.net"))
	for range 2 {
		for _, accept := range []string{"text/plain", "application/openmetrics-text; version=1.0.0"} {
			request := httptest.NewRequest("GET", "/metrics", nil)
			request.Header.Set("Accept", accept)
			answer := httptest.NewRecorder()
			handler.ServeHTTP(answer, request)
			series := 0
			for line := range strings.Lines(answer.Body.String()) {
				if strings.HasPrefix(line, "#") {
					continue
				}
				series++
				if strings.Count(line, `prefix="my.net"`) != 1 {
					t.Errorf("%s: %s", accept, line)
				}
			}
			if series < 20 || !strings.Contains(answer.Body.String(), `oona_test{layer="l",prefix="my.net",zone="z"} 1`) {
				t.Errorf("%s: %d series:\n%s", accept, series, answer.Body)
			}
		}
	}
}
