package tracing

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"time"

	"go.opentelemetry.io/otel/exporters/otlp/otlptrace"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracegrpc"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	sdk "go.opentelemetry.io/otel/sdk/trace"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"

	"github.com/morphogenetic/oona/internal/secret"
	"github.com/morphogenetic/oona/internal/tlsfiles"
)

// exportTimeout is the time limit for sending a batch of spans, with all attempts.
const exportTimeout = 10 * time.Second

// openTLS returns the TLS client, or nil if the endpoint has none.
func (f Flags) openTLS(files *secret.Files) (*tlsfiles.Client, error) {
	if !f.secure() {
		return nil, nil
	}
	return tlsfiles.OpenClient(files, "trace-", tlsfiles.ClientFlags{CAFile: f.CAFile})
}

// openExporter returns what sends spans to the collector. It does not connect.
func (f Flags) openExporter(ctx context.Context, files *secret.Files) (sdk.SpanExporter, error) {
	headers, err := f.openHeaders(files)
	if err != nil {
		return nil, err
	}
	secure, err := f.openTLS(files)
	if err != nil {
		return nil, err
	}
	u, err := url.Parse(f.Endpoint)
	if err != nil {
		return nil, fmt.Errorf("--trace-endpoint: %w", err)
	}
	if f.Exporter == exporterGRPC {
		return otlptrace.New(ctx, overGRPC(u, headers, secure))
	}
	return otlptrace.New(ctx, overHTTP(u, headers, secure))
}

// overHTTP returns a client for OTLP over HTTP. The SDK's environment variables
// (OTEL_EXPORTER_OTLP_...) do not change where it connects.
func overHTTP(to *url.URL, headers *secret.Value[[]header], secure *tlsfiles.Client) otlptrace.Client {
	to = to.JoinPath() // a copy
	if to.Path == "" || to.Path == "/" {
		to.Path = "/v1/traces"
	}
	transport := &http.Transport{Proxy: http.ProxyFromEnvironment, TLSHandshakeTimeout: exportTimeout, IdleConnTimeout: time.Minute, MaxIdleConnsPerHost: 1}
	if secure != nil {
		transport.DialTLSContext = func(ctx context.Context, network, address string) (net.Conn, error) {
			return (&tls.Dialer{Config: secure.Config(to.Hostname())}).DialContext(ctx, network, address)
		}
	}
	client := &http.Client{
		Transport: withHeaders{transport, headers},
		Timeout:   exportTimeout,
		// The headers are for this server, and not for another one that it names.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	return otlptracehttp.NewClient(
		otlptracehttp.WithEndpointURL(to.String()),
		otlptracehttp.WithHTTPClient(client),
		otlptracehttp.WithCompression(otlptracehttp.GzipCompression),
		otlptracehttp.WithTimeout(exportTimeout),
	)
}

// withHeaders adds the headers of the file to each request.
type withHeaders struct {
	next    http.RoundTripper
	headers *secret.Value[[]header] // nil: none
}

// RoundTrip implements http.RoundTripper.
func (t withHeaders) RoundTrip(r *http.Request) (*http.Response, error) {
	if t.headers != nil {
		r = r.Clone(r.Context())
		for _, h := range t.headers.Get() {
			r.Header.Set(h.name, h.value)
		}
	}
	return t.next.RoundTrip(r)
}

// overGRPC returns a client for OTLP over gRPC.
func overGRPC(to *url.URL, headers *secret.Value[[]header], secure *tlsfiles.Client) otlptrace.Client {
	options := []otlptracegrpc.Option{
		otlptracegrpc.WithEndpoint(to.Host),
		otlptracegrpc.WithCompressor("gzip"),
		otlptracegrpc.WithTimeout(exportTimeout),
	}
	if secure == nil {
		options = append(options, otlptracegrpc.WithInsecure())
	} else {
		options = append(options, otlptracegrpc.WithTLSCredentials(renewed{secure, to.Hostname()}))
	}
	if headers != nil {
		options = append(options, otlptracegrpc.WithDialOption(grpc.WithPerRPCCredentials(perCall{headers})))
	}
	return otlptracegrpc.NewClient(options...)
}

// perCall adds the headers of the file to each call.
type perCall struct{ headers *secret.Value[[]header] }

// GetRequestMetadata implements credentials.PerRPCCredentials.
func (c perCall) GetRequestMetadata(context.Context, ...string) (map[string]string, error) {
	all := make(map[string]string)
	for _, h := range c.headers.Get() {
		all[h.name] = h.value
	}
	return all, nil
}

// RequireTransportSecurity implements credentials.PerRPCCredentials. A worker warns of
// secrets that are sent in clear text, as it does elsewhere.
func (c perCall) RequireTransportSecurity() bool { return false }

// renewed are the credentials of connections, with what the files of secure contain when a
// connection is made.
type renewed struct {
	secure *tlsfiles.Client
	host   string
}

func (r renewed) now() credentials.TransportCredentials {
	return credentials.NewTLS(r.secure.Config(r.host))
}

// ClientHandshake implements credentials.TransportCredentials.
func (r renewed) ClientHandshake(ctx context.Context, authority string, conn net.Conn) (net.Conn, credentials.AuthInfo, error) {
	return r.now().ClientHandshake(ctx, authority, conn)
}

// ServerHandshake implements credentials.TransportCredentials.
func (r renewed) ServerHandshake(conn net.Conn) (net.Conn, credentials.AuthInfo, error) {
	return r.now().ServerHandshake(conn)
}

// Info implements credentials.TransportCredentials.
func (r renewed) Info() credentials.ProtocolInfo { return r.now().Info() }

// Clone implements credentials.TransportCredentials.
func (r renewed) Clone() credentials.TransportCredentials { return r }

// OverrideServerName implements credentials.TransportCredentials.
func (r renewed) OverrideServerName(string) error { return nil }
