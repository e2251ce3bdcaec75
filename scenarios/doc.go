// Package scenarios breaks Oona on purpose. The real binaries run against three
// real Kafka brokers, a script injects faults, and the published records are
// compared with the log.
//
// Every scenario asserts three things. Its fault really occurred. Every record of
// the log is accounted for exactly once, and every frame that ingest acknowledged
// is in the log. The published rollups equal, byte for byte, those of a window
// engine that reads the same log without any fault.
//
// Where a scenario breaks the network, the workers reach the brokers only through
// the scenario's proxies.
//
// The scenarios are a separate module, so that `go test ./...` does not take half
// an hour longer. `make scenarios` at the root runs them; Java 17 and Maven are
// needed.
package scenarios
