package tracing

import (
	"bytes"
	"errors"
	"fmt"
	"net/textproto"
	"net/url"
	"strings"

	"golang.org/x/net/http/httpguts"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/internal/secret"
)

// The exporters.
const (
	exporterNone = "none"
	exporterGRPC = "otlp-grpc" // the other one is otlp-http
)

// Flags configure the traces of a worker. They are embedded with the prefix "trace-".
type Flags struct {
	Exporter    string  `name:"exporter" enum:"none,otlp-grpc,otlp-http" default:"none" help:"How to send traces to an OpenTelemetry collector, Jaeger or Tempo: otlp-grpc, otlp-http, or none for no traces."`
	Endpoint    string  `name:"endpoint" placeholder:"URL" help:"URL of the collector, for example http://localhost:4317 for otlp-grpc or https://localhost:4318 for otlp-http, whose default path is /v1/traces. https means TLS."`
	SampleRatio float64 `name:"sample-ratio" default:"1" placeholder:"RATIO" help:"Part of the requests to trace, from 0 to 1, if the client does not say so in its traceparent. Spans that end in an error are always sent."`
	HeadersFile string  `name:"headers-file" placeholder:"FILE" help:"File of headers to send to the collector, for example with a token: a line NAME: VALUE each. Changes are read without a restart."`
	CAFile      string  `name:"ca-file" placeholder:"FILE" help:"PEM file with the certificate authorities of the collector. Default: the system's. Changes are read without a restart."`
}

// On reports whether traces are sent.
func (f Flags) On() bool { return f.Exporter != exporterNone && f.Exporter != "" }

// secure reports whether the endpoint has TLS.
func (f Flags) secure() bool { return strings.HasPrefix(f.Endpoint, "https://") }

// Validate returns an *oona.FieldError for the first setting that is wrong.
func (f Flags) Validate() error {
	if strings.ContainsAny(f.Endpoint, "@?#") { // not quoted, as it may have a password or a token; --check prints it even if it is not used
		return &oona.FieldError{Field: "--trace-endpoint", Reason: "has an @, a ? or a #; give only scheme, host, port and path, and the credentials with --trace-headers-file"}
	}
	if !(f.SampleRatio >= 0 && f.SampleRatio <= 1) {
		return &oona.FieldError{Field: "--trace-sample-ratio", Reason: fmt.Sprintf("is %v; give a ratio from 0 to 1", f.SampleRatio)}
	}
	if !f.On() {
		return nil
	}
	u, err := url.Parse(f.Endpoint)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		return &oona.FieldError{Field: "--trace-endpoint", Reason: fmt.Sprintf("is %q; give a URL, such as http://localhost:4317 for otlp-grpc, or http://localhost:4318 for otlp-http", f.Endpoint)}
	}
	if f.Exporter == exporterGRPC && strings.Trim(u.Path, "/") != "" {
		return &oona.FieldError{Field: "--trace-endpoint", Reason: fmt.Sprintf("has the path %s, and gRPC has none; leave it out, or set --trace-exporter otlp-http", u.Path)}
	}
	if f.Exporter == exporterGRPC && u.Port() == "" { // gRPC would take 443, also without TLS
		return &oona.FieldError{Field: "--trace-endpoint", Reason: fmt.Sprintf("is %q, without a port; give it, such as 4317", f.Endpoint)}
	}
	if f.CAFile != "" && u.Scheme != "https" {
		return &oona.FieldError{Field: "--trace-ca-file", Reason: "is given, and --trace-endpoint is without TLS; give a URL with https"}
	}
	if _, err := f.openHeaders(nil); err != nil {
		return err
	}
	_, err = f.openTLS(nil)
	return err
}

// Warnings returns what is allowed and probably not meant.
func (f Flags) Warnings() (warnings []*oona.FieldError) {
	if f.On() && f.HeadersFile != "" && !f.secure() {
		warnings = append(warnings, &oona.FieldError{Field: "--trace-endpoint", Reason: "is without TLS, and the headers of --trace-headers-file are sent in clear text; give a URL with https, unless something in between has TLS"})
	}
	return warnings
}

// header is a header to send to the collector.
type header struct{ name, value string }

// openHeaders returns the headers to send, or nil if there is no file.
func (f Flags) openHeaders(files *secret.Files) (*secret.Value[[]header], error) {
	if f.HeadersFile == "" {
		return nil, nil
	}
	return secret.Open(files, "--trace-headers-file", []string{f.HeadersFile}, parseHeaders)
}

var errHeader = errors.New(`is not of the form "NAME: VALUE"`)

// parseHeaders parses a line for each header. Its errors do not show the lines, which are
// secret.
func parseHeaders(contents [][]byte) (headers []header, err error) {
	number := 0
	for line := range bytes.Lines(contents[0]) {
		number++
		line = bytes.TrimSpace(line)
		if len(line) == 0 || line[0] == '#' {
			continue
		}
		name, value, ok := strings.Cut(string(line), ":")
		value = textproto.TrimString(value)
		if !ok || !httpguts.ValidHeaderFieldName(name) || !httpguts.ValidHeaderFieldValue(value) {
			return nil, fmt.Errorf("line %d %w", number, errHeader)
		}
		headers = append(headers, header{strings.ToLower(name), value})
	}
	return headers, nil
}
