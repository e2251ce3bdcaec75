package worker

import (
	"compress/gzip"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	dto "github.com/prometheus/client_model/go"
)

func gauge(name string) prometheus.Gauge {
	g := prometheus.NewGauge(prometheus.GaugeOpts{Name: name, Help: "Help of " + name + "."})
	g.Set(1)
	return g
}

// Parts that are gathered one after the other give the answer that promhttp gives of one
// registry, in each format and coding.
func TestPartsOfMetrics(t *testing.T) {
	whole := prometheus.NewRegistry()
	whole.MustRegister(gauge("oona_a"), gauge("oona_b"), gauge("oona_c"))
	want := promhttp.HandlerFor(WithPrefix(whole, "p"), promhttp.HandlerOpts{EnableOpenMetrics: true})

	first := prometheus.NewRegistry()
	first.MustRegister(gauge("oona_a"))
	admin := NewAdmin("probe", nil, WithPrefix(first, "p"), slog.New(slog.DiscardHandler))
	admin.prefix = "p"
	admin.Apart().MustRegister(gauge("oona_b"), gauge("oona_c"))

	for _, accept := range []string{
		"", "text/plain;version=0.0.4", "application/openmetrics-text;version=1.0.0",
		"application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited",
	} {
		for _, coding := range []string{"", "gzip", "deflate, gzip;q=0"} {
			ask := func(h http.Handler) (string, http.Header) {
				request := httptest.NewRequest(http.MethodGet, "/metrics", nil)
				request.Header.Set("Accept", accept)
				request.Header.Set("Accept-Encoding", coding)
				answer := httptest.NewRecorder()
				h.ServeHTTP(answer, request)
				return text(t, answer), answer.Header()
			}
			body, header := ask(admin.server.Handler)
			wantBody, wantHeader := ask(want)
			if body != wantBody || !strings.Contains(body, "oona_c") {
				t.Errorf("%q, %q: the answer is\n%q\nwant\n%q", accept, coding, body, wantBody)
			}
			for _, name := range []string{"Content-Type", "Content-Encoding"} {
				if got := header.Get(name); got != wantHeader.Get(name) {
					t.Errorf("%q, %q: %s is %q, want %q", accept, coding, name, got, wantHeader.Get(name))
				}
			}
		}
	}
}

func text(t *testing.T, answer *httptest.ResponseRecorder) string {
	t.Helper()
	var from io.Reader = answer.Body
	if answer.Header().Get("Content-Encoding") == "gzip" {
		unzipped, err := gzip.NewReader(from)
		if err != nil {
			t.Fatal(err)
		}
		from = unzipped
	}
	all, err := io.ReadAll(from)
	if err != nil {
		t.Fatal(err)
	}
	return string(all)
}

// If the first part cannot be gathered, the answer is an error. If another one cannot, the
// answer is cut off.
func TestMetricsThatCannotBeGathered(t *testing.T) {
	broken := prometheus.GathererFunc(func() ([]*dto.MetricFamily, error) { return nil, errors.New("broken") })
	request := httptest.NewRequest(http.MethodGet, "/metrics", nil)
	answer := httptest.NewRecorder()
	MetricsHandler(slog.New(slog.DiscardHandler), broken).ServeHTTP(answer, request)
	if answer.Code != http.StatusInternalServerError {
		t.Errorf("status %d", answer.Code)
	}

	whole := prometheus.NewRegistry()
	whole.MustRegister(gauge("oona_a"))
	server := httptest.NewServer(MetricsHandler(slog.New(slog.DiscardHandler), whole, broken))
	defer server.Close()
	response, err := http.Get(server.URL)
	if err != nil {
		return // cut off before the headers
	}
	defer response.Body.Close()
	if body, err := io.ReadAll(response.Body); err == nil {
		t.Errorf("the answer seems whole: %s", body)
	}
}
