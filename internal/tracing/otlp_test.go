package tracing

import (
	"compress/gzip"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	collector "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/internal/tlsfiles/tlstest"
)

// export is a request that a collector gets.
type export struct {
	token string
	path  string
	spans []string // names
	of    string   // service.name
}

func exportOf(request *collector.ExportTraceServiceRequest) (e export) {
	for _, r := range request.ResourceSpans {
		for _, a := range r.Resource.Attributes {
			if a.Key == "service.name" {
				e.of = a.Value.GetStringValue()
			}
		}
		for _, s := range r.ScopeSpans {
			for _, span := range s.Spans {
				e.spans = append(e.spans, span.Name)
			}
		}
	}
	return e
}

func file(t *testing.T, content string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// sendOne sends a span as the flags say.
func sendOne(t *testing.T, f Flags) {
	t.Helper()
	if err := f.Validate(); err != nil {
		t.Fatal(err)
	}
	tracer, err := Open(f, Process{Name: "ingest", Prefix: "kasmina"}, nil, prometheus.NewRegistry(), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	tracer.Record(Span{Name: "a span", Kind: Server, Context: NewTrace(true), Begin: now, End: now})
	if err := tracer.Close(5 * time.Minute); err != nil {
		t.Error(err)
	}
}

func (e *export) check(t *testing.T, path string) {
	t.Helper()
	if e.token != "Bearer secret" || e.path != path || len(e.spans) != 1 || e.spans[0] != "a span" || e.of != "oona-ingest" {
		t.Errorf("the collector got %+v", e)
	}
}

func TestOverHTTP(t *testing.T) {
	authority := tlstest.NewAuthority(t, "ca")
	own := authority.Issue(time.Hour, "127.0.0.1")
	certificate, err := tls.LoadX509KeyPair(own.CertFile, own.KeyFile)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ name, given, want string }{{"default path", "", "/v1/traces"}, {"another path", "/otlp/v1/traces", "/otlp/v1/traces"}} {
		for _, secure := range []bool{false, true} {
			got := make(chan export, 10)
			server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				var request collector.ExportTraceServiceRequest
				body, err := gzip.NewReader(r.Body)
				if err == nil {
					var content []byte
					if content, err = io.ReadAll(body); err == nil {
						err = proto.Unmarshal(content, &request)
					}
				}
				if err != nil {
					t.Error(err)
				}
				e := exportOf(&request)
				e.token, e.path = r.Header.Get("Authorization"), r.URL.Path
				got <- e
				w.Header().Set("Content-Type", "application/x-protobuf")
			}))
			f := Flags{Exporter: "otlp-http", SampleRatio: 1, HeadersFile: file(t, "# a comment\n\nAuthorization: Bearer secret\n")}
			if secure {
				server.TLS = &tls.Config{Certificates: []tls.Certificate{certificate}} //nolint:gosec // a test
				server.StartTLS()
				f.CAFile = authority.File
			} else {
				server.Start()
			}
			f.Endpoint = server.URL + c.given
			sendOne(t, f)
			server.Close()
			e := <-got
			e.check(t, c.want)
		}
	}
}

// A collector that redirects gets no spans, and the other server no headers.
func TestRedirectsAreNotFollowed(t *testing.T) {
	other := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		t.Errorf("the other server gets a request, with the headers %v", r.Header)
	}))
	defer other.Close()
	server := httptest.NewServer(http.RedirectHandler(other.URL, http.StatusTemporaryRedirect))
	defer server.Close()
	sendOne(t, Flags{Exporter: "otlp-http", SampleRatio: 1, Endpoint: server.URL, HeadersFile: file(t, "authorization: Bearer secret")})
}

// traceService is a collector over gRPC.
type traceService struct {
	collector.UnimplementedTraceServiceServer
	got chan export
}

// Export implements the service of OTLP.
func (s traceService) Export(ctx context.Context, request *collector.ExportTraceServiceRequest) (*collector.ExportTraceServiceResponse, error) {
	e := exportOf(request)
	headers, _ := metadata.FromIncomingContext(ctx)
	e.token = strings.Join(headers.Get("authorization"), ",")
	s.got <- e
	return &collector.ExportTraceServiceResponse{}, nil
}

func TestOverGRPC(t *testing.T) {
	authority := tlstest.NewAuthority(t, "ca")
	own := authority.Issue(time.Hour, "127.0.0.1")
	secured, err := credentials.NewServerTLSFromFile(own.CertFile, own.KeyFile)
	if err != nil {
		t.Fatal(err)
	}
	for _, secure := range []bool{false, true} {
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		f := Flags{Exporter: "otlp-grpc", SampleRatio: 1, HeadersFile: file(t, "authorization: Bearer secret"), Endpoint: "http://" + listener.Addr().String()}
		var options []grpc.ServerOption
		if secure {
			options = append(options, grpc.Creds(secured))
			f.CAFile, f.Endpoint = authority.File, "https://"+listener.Addr().String()
		}
		server := grpc.NewServer(options...)
		service := traceService{got: make(chan export, 10)}
		collector.RegisterTraceServiceServer(server, service)
		ended := make(chan error, 1)
		go func() { ended <- server.Serve(listener) }()
		sendOne(t, f)
		server.Stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		e := <-service.got
		e.check(t, "")
	}
}

func TestFlagsAreValidated(t *testing.T) {
	for _, c := range []struct {
		field string // empty: they are right
		flags Flags
	}{
		{"", Flags{Exporter: "none", SampleRatio: 1}},
		{"", Flags{Exporter: "none", Endpoint: "http://jaeger:4317", SampleRatio: 1}},
		{"", Flags{Exporter: "otlp-grpc", Endpoint: "http://jaeger:4317", SampleRatio: 0}},
		{"", Flags{Exporter: "otlp-http", Endpoint: "https://[::1]:4318/otlp", SampleRatio: 0.5}},
		{"--trace-sample-ratio", Flags{Exporter: "none", SampleRatio: 1.5}},
		{"--trace-sample-ratio", Flags{Exporter: "none", SampleRatio: -1}},
		{"--trace-endpoint", Flags{Exporter: "otlp-http"}},
		{"--trace-endpoint", Flags{Exporter: "otlp-http", Endpoint: "jaeger:4318"}},
		{"--trace-endpoint", Flags{Exporter: "otlp-http", Endpoint: "http://me:secret@jaeger:4318"}},
		{"--trace-endpoint", Flags{Exporter: "otlp-grpc", Endpoint: "http://jaeger:4317/v1/traces"}},
		{"--trace-endpoint", Flags{Exporter: "otlp-grpc", Endpoint: "http://jaeger"}},
		{"--trace-ca-file", Flags{Exporter: "otlp-grpc", Endpoint: "http://jaeger:4317", CAFile: "ca.pem"}},
		{"--trace-ca-file", Flags{Exporter: "otlp-grpc", Endpoint: "https://jaeger:4317", CAFile: "absent.pem"}},
		{"--trace-headers-file", Flags{Exporter: "otlp-grpc", Endpoint: "http://jaeger:4317", HeadersFile: file(t, "no header")}},
		{"--trace-headers-file", Flags{Exporter: "otlp-grpc", Endpoint: "http://jaeger:4317", HeadersFile: file(t, "a name: value")}},
	} {
		err := c.flags.Validate()
		wrong, ok := errors.AsType[*oona.FieldError](err)
		switch {
		case c.field == "" && err != nil, c.field != "" && (!ok || wrong.Field != c.field):
			t.Errorf("%+v: %v, want an error of %q", c.flags, err, c.field)
		case err != nil && (strings.Contains(err.Error(), "no header") || strings.Contains(err.Error(), "me:secret")):
			t.Errorf("the error shows a secret: %v", err)
		}
	}
}
