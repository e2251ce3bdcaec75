// Package pressure tests an ingest whose clients need more memory than it has: the real binary, on the
// embedded broker. `make pressure` at the root runs the test, which takes 20 seconds and needs only Go.
package pressure
