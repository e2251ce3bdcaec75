// Package tracing tests traces with a real Jaeger: from an exemplar on a histogram of the
// exporter to the request that sent the frame with the worst seed. `make tracing` at the root
// runs the test. It needs only Go, and builds Jaeger from the module in the folder jaeger,
// which takes minutes the first time.
package tracing
