// Package tracing sends spans of requests, batches and windows to an OpenTelemetry
// collector.
//
//	request, batch, window ends ──▶ Record ──▶ queue ──▶ Run: OTLP over gRPC or HTTP
//	                                  │          └─ full: dropped, counted, logged
//	                                  └─ not sampled and no error: nothing
//
// A span is described as a whole when its work has ended: a [Span] with its times. Before
// that, only its [Context] exists, which is 25 bytes and travels in headers. So work that is
// not sampled has no span, and a nil [Tracer], which is one that is off, costs a comparison.
package tracing
