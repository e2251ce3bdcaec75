package worker

import (
	"compress/gzip"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"sync"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/common/expfmt"
)

// exposition serves metrics in the requested format. Unlike promhttp, it gathers and
// writes one part after the other: a scrape of thousands of layers needs memory for the
// greatest part only.
type exposition struct {
	logger *slog.Logger

	mu    sync.Mutex
	parts []prometheus.Gatherer // their families differ
}

// MetricsHandler returns a handler that serves metrics in the requested format, one part
// after the other. Only the protobuf format has native histograms.
func MetricsHandler(logger *slog.Logger, parts ...prometheus.Gatherer) http.Handler {
	return &exposition{logger: logger, parts: parts}
}

func (e *exposition) add(part prometheus.Gatherer) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.parts = append(e.parts, part)
}

// ServeHTTP answers with an error if the first part cannot be gathered. If a later part
// cannot, it closes the connection, so that the scrape fails instead of seeming complete.
func (e *exposition) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	e.mu.Lock()
	parts := slices.Clone(e.parts)
	e.mu.Unlock()
	format := expfmt.NegotiateAccept(r.Header, expfmt.DefaultOpenMetricsAcceptedFormats()...)
	body := &lazyBody{response: w, format: format, zipped: acceptsGzip(r.Header)}
	encoder := expfmt.NewEncoder(body, format)
	err := encode(encoder, parts)
	if err == nil {
		err = body.close()
	}
	if err == nil {
		return
	}
	e.logger.Error("cannot serve the metrics", "err", err)
	if body.begun {
		panic(http.ErrAbortHandler)
	}
	http.Error(w, "the metrics cannot be gathered: "+err.Error(), http.StatusInternalServerError)
}

func encode(encoder expfmt.Encoder, parts []prometheus.Gatherer) error {
	for _, part := range parts {
		families, err := part.Gather()
		if err != nil {
			return fmt.Errorf("gather: %w", err)
		}
		for i, family := range families {
			if err := encoder.Encode(family); err != nil {
				return fmt.Errorf("write %s: %w", family.GetName(), err)
			}
			families[i] = nil // not needed any more
		}
	}
	if ending, ok := encoder.(expfmt.Closer); ok {
		return ending.Close()
	}
	return nil
}

// acceptsGzip reports whether a client accepts gzip, as Prometheus says it.
func acceptsGzip(header http.Header) bool {
	for _, value := range header.Values("Accept-Encoding") {
		for part := range strings.SplitSeq(value, ",") {
			coding, weight, _ := strings.Cut(strings.TrimSpace(part), ";")
			if coding == "gzip" && strings.ReplaceAll(weight, " ", "") != "q=0" {
				return true
			}
		}
	}
	return false
}

var zippers = sync.Pool{New: func() any { return gzip.NewWriter(nil) }}

// lazyBody is the body of an answer whose headers are written with its first byte.
type lazyBody struct {
	response http.ResponseWriter
	format   expfmt.Format
	zipped   bool
	begun    bool
	zipper   *gzip.Writer
}

func (b *lazyBody) Write(p []byte) (int, error) {
	if !b.begun {
		b.begun = true
		b.response.Header().Set("Content-Type", string(b.format))
		if b.zipped {
			b.response.Header().Set("Content-Encoding", "gzip")
			b.zipper = zippers.Get().(*gzip.Writer)
			b.zipper.Reset(b.response)
		}
	}
	return b.writer().Write(p)
}

func (b *lazyBody) writer() io.Writer {
	if b.zipper != nil {
		return b.zipper
	}
	return b.response
}

func (b *lazyBody) close() error {
	if b.zipper == nil {
		return nil
	}
	defer zippers.Put(b.zipper)
	return b.zipper.Close()
}

// Apart returns a registerer for collectors with many series. A scrape gathers and
// writes each of them by itself. No other collector may have families of the same names.
func (a *Admin) Apart() prometheus.Registerer { return apart{a} }

type apart struct{ admin *Admin }

// Register implements prometheus.Registerer.
func (r apart) Register(c prometheus.Collector) error {
	registry := prometheus.NewRegistry()
	if err := registry.Register(c); err != nil {
		return err
	}
	r.admin.metrics.add(WithPrefix(registry, r.admin.prefix))
	return nil
}

// MustRegister implements prometheus.Registerer.
func (r apart) MustRegister(all ...prometheus.Collector) {
	for _, c := range all {
		if err := r.Register(c); err != nil {
			panic(err)
		}
	}
}

// Unregister implements prometheus.Registerer. It removes nothing.
func (r apart) Unregister(prometheus.Collector) bool { return false }
