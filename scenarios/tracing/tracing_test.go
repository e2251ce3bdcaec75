package tracing

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"slices"
	"testing"
	"time"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"

	model "github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/bus/kafka/embedded"
	"github.com/morphogenetic/oona/internal/tracing"
	"github.com/morphogenetic/oona/schemas/avro"
)

const (
	worstRequest = 5 // of the requests below
	worstSeed    = 17
)

// From an exemplar on the histogram of gradient norms, two links lead to the request that
// sent the frame with the worst seed.
func TestFromAnExemplarToTheRequest(t *testing.T) {
	j := startJaeger(t)
	broker, err := embedded.Start(t.Context(), embedded.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = broker.Close() })
	brokers := "--brokers=" + broker.Addrs[0]
	oona(t, "topics", "apply", brokers, "--partitions=2")

	overGRPC := []string{brokers, "--trace-exporter=otlp-grpc", "--trace-endpoint=http://" + j.grpc}
	overHTTP := []string{brokers, "--trace-exporter=otlp-http", "--trace-endpoint=http://" + j.http}
	listen, exporter, ingestAdmin, aggregateAdmin := freeAddress(t), freeAddress(t), freeAddress(t), freeAddress(t)
	start(t, "exporter", append(overHTTP, "--admin-address="+exporter)...)
	start(t, "aggregate", append(overGRPC, "--admin-address="+aggregateAdmin)...)
	start(t, "ingest", append(overGRPC, "--admin-address="+ingestAdmin, "--listen="+listen)...)
	for _, admin := range []string{exporter, aggregateAdmin, ingestAdmin} {
		eventually(t, "a worker is ready", func() error { return fetch(t, "http://"+admin+"/readyz", nil) })
	}

	prometheus := startPrometheus(t, exporter)
	trainer := sendFrames(t, "http://"+listen)
	exemplar := findExemplar(t, "http://"+exporter)
	if prometheus != "" {
		eventually(t, "Prometheus stores the exemplar", func() error { return hasExemplar(t, prometheus, exemplar) })
	}
	if exemplar["seed_id"] != fmt.Sprint(worstSeed) {
		t.Fatalf("the exemplar is of seed %s, want %d", exemplar["seed_id"], worstSeed)
	}

	// The first click: the window.
	window := j.span(t, exemplar["trace_id"], "process kasmina.telemetry.seed.metrics")
	if window.tag("oona.run") != "traced" || window.tag("oona.layer") != "enc.0" || window.tag("oona.window.start") == "" || window.tag("span.kind") != "consumer" {
		t.Errorf("the window's span has %v", window.Tags)
	}
	worst := regexp.MustCompile(`^seed (\d+), trace ([0-9a-f]{32}), span ([0-9a-f]{16})$`).FindStringSubmatch(window.tag("oona.worst.gradient_norm"))
	if worst == nil || worst[1] != exemplar["seed_id"] {
		t.Fatalf("of the worst seed, the window's span has %q", window.tag("oona.worst.gradient_norm"))
	}
	// In Jaeger, links are references besides the one of the parent.
	if link := (reference{"FOLLOWS_FROM", worst[2], worst[3]}); len(window.References) == 0 || window.References[0] != link {
		t.Errorf("the window's span refers to %v, and not to %v first", window.References, link)
	}
	for _, topic := range []string{"kasmina.telemetry.layer.health", "kasmina.telemetry.layer.performance"} {
		export := j.span(t, exemplar["trace_id"], "process "+topic)
		if !slices.Contains(export.References, reference{"CHILD_OF", window.TraceID, window.SpanID}) || export.tag("oona.window.start") != window.tag("oona.window.start") {
			t.Errorf("the export span of %s has %v and %v", topic, export.References, export.Tags)
		}
	}

	// The second click: the request.
	send := j.span(t, worst[2], "send kasmina.telemetry.seed.metrics")
	server := j.span(t, worst[2], "POST /v1/frames")
	if send.SpanID != worst[3] || !slices.Contains(send.References, reference{"CHILD_OF", send.TraceID, server.SpanID}) {
		t.Errorf("the span that published the frame is %+v", send)
	}
	if of := trainer[worstRequest]; server.TraceID != of.Trace.String() || !slices.Contains(server.References, reference{"CHILD_OF", of.Trace.String(), of.Span.String()}) {
		t.Errorf("the request of the worst seed's frame is %+v, want one of the trainer's trace %s", server, of.Trace)
	}
	if server.tag("oona.layer") != "enc.0" || server.tag("oona.run") != "traced" {
		t.Errorf("the request's span has %v", server.Tags)
	}
}

// sendFrames sends a frame for each second of two windows and more, as a trainer that is
// traced, and returns the contexts of its spans.
func sendFrames(t *testing.T, ingest string) (spans []tracing.Context) {
	t.Helper()
	began := time.Now().Add(-time.Minute).Truncate(10 * time.Second)
	for i := range 30 {
		f := model.Frame{
			Run: "traced", Layer: "enc.0", Producer: "trainer", Epoch: model.MicrosOf(began), Sequence: int64(i), Step: int64(i),
			ObservedAt: model.MicrosOf(began.Add(time.Duration(i) * time.Second)),
			Metrics:    []model.Column{{Name: "gradient_norm"}},
		}
		for seed := range 32 {
			f.Seeds, f.States = append(f.Seeds, model.SeedID(seed)), append(f.States, model.Training)
			value := float32(1 + seed%7)
			if i == worstRequest && seed == worstSeed {
				value = 1000
			}
			f.Metrics[0].Values = append(f.Metrics[0].Values, value)
		}
		spans = append(spans, tracing.NewTrace(true))
		r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, ingest+"/v1/frames", bytes.NewReader(avro.AppendFrame(nil, &f)))
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Content-Type", "application/avro")
		r.Header.Set("Traceparent", spans[i].String())
		answer, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(answer.Body)
		answer.Body.Close()
		if answer.StatusCode != http.StatusOK {
			t.Fatalf("frame %d is answered with %d %s", i, answer.StatusCode, body)
		}
	}
	return spans
}

var errNoExemplar = errors.New("the histogram of gradient norms has no exemplar above 500")

// findExemplar scrapes the exporter, as Prometheus does for native histograms, until the
// histogram of gradient norms has an exemplar with the worst value.
func findExemplar(t *testing.T, exporter string) (labels map[string]string) {
	t.Helper()
	eventually(t, "an exemplar", func() error {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, exporter+"/metrics", nil)
		if err != nil {
			return err
		}
		r.Header.Set("Accept", "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited")
		answer, err := http.DefaultClient.Do(r)
		if err != nil {
			return err
		}
		defer answer.Body.Close()
		decoder := expfmt.NewDecoder(answer.Body, expfmt.ResponseFormat(answer.Header))
		for {
			var family dto.MetricFamily
			if err := decoder.Decode(&family); errors.Is(err, io.EOF) {
				return errNoExemplar
			} else if err != nil {
				return err
			}
			if labels = exemplarOf(&family); labels != nil {
				return nil
			}
		}
	})
	return labels
}

func exemplarOf(family *dto.MetricFamily) map[string]string {
	if family.GetName() != "kasmina_layer_health" {
		return nil
	}
	for _, m := range family.Metric {
		for _, e := range m.GetHistogram().GetExemplars() {
			if e.GetValue() < 500 || e.Timestamp == nil {
				continue
			}
			labels := make(map[string]string)
			for _, l := range e.Label {
				labels[l.GetName()] = l.GetValue()
			}
			return labels
		}
	}
	return nil
}

// span is a span as Jaeger's API has it.
type span struct {
	TraceID       string      `json:"traceID"`
	SpanID        string      `json:"spanID"`
	OperationName string      `json:"operationName"`
	References    []reference `json:"references"`
	Tags          []struct {
		Key   string `json:"key"`
		Value any    `json:"value"`
	} `json:"tags"`
}

type reference struct {
	RefType string `json:"refType"`
	TraceID string `json:"traceID"`
	SpanID  string `json:"spanID"`
}

func (s *span) tag(key string) string {
	for _, t := range s.Tags {
		if t.Key == key {
			return fmt.Sprint(t.Value)
		}
	}
	return ""
}

var errNoSpan = errors.New("the trace has no such span yet")

// span returns the span of a name in a trace, when Jaeger has it.
func (j *jaeger) span(t *testing.T, trace, name string) (found *span) {
	t.Helper()
	eventually(t, name, func() error {
		var answer struct {
			Data []struct {
				Spans []span `json:"spans"`
			} `json:"data"`
		}
		if err := fetch(t, "http://"+j.query+"/api/traces/"+trace, &answer); err != nil {
			return err
		}
		for _, d := range answer.Data {
			for i := range d.Spans {
				if d.Spans[i].OperationName == name {
					found = &d.Spans[i]
					return nil
				}
			}
		}
		return errNoSpan
	})
	return found
}
