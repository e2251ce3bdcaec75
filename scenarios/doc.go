// Package scenarios breaks Oona on purpose: the real binaries run against three
// real Kafka brokers, faults are scripted, and what was published is held
// against the log.
//
// Every scenario asserts three things. Its fault fired. Every record of the log
// is accounted for exactly once, and every frame that ingest acknowledged is in
// the log. What was published is what a window engine that nobody disturbed
// makes of the same log, byte for byte.
//
// Where a scenario breaks the network, the brokers send the workers through
// proxies of its own, so that no connection goes past them.
//
// It is a module of its own, so that `go test ./...` does not take half an hour
// more. `make scenarios` at the root runs it; Java 17 and Maven are needed.
package scenarios
