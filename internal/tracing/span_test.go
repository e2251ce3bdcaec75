package tracing

import (
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
)

// A text that is not UTF-8, as a client may send in the path of a request, does not cost the
// spans that are sent with it: protocol buffers refuse such a text.
func TestTextsAreUTF8(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
	}))
	defer server.Close()
	f := Flags{Exporter: "otlp-http", SampleRatio: 1, Endpoint: server.URL}
	tracer, err := Open(f, Process{Name: "ingest"}, nil, prometheus.NewRegistry(), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range []Span{
		{Name: "another span"},
		{Name: "a name \xff"},
		{Name: "an attribute", Attributes: []Attribute{String("url.path", "/\xff"), Strings("oona.layer", []string{"a", "\xff"})}},
		{Name: "a key", Attributes: []Attribute{Int("oona.worst.\xff", 1)}},
		{Name: "a link", Links: []Link{{NewTrace(true), []Attribute{Int("oona.worst.\xff", 1)}}}},
		{Name: "an error", Error: "\xff"},
	} {
		s.Context, s.Begin, s.End = NewTrace(true), time.Now(), time.Now()
		tracer.Record(s)
	}
	if err := tracer.Close(5 * time.Minute); err != nil {
		t.Fatal(err)
	}
	if sent := testutil.ToFloat64(tracer.counts.sent); sent != 6 {
		t.Errorf("%v spans were sent, want 6", sent)
	}
}
