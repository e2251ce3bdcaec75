// Package oona is the vocabulary of Oona, the telemetry bus of
// morphogenetic neural networks. It holds what every other package speaks of
// and imports nothing but the standard library.
//
// A morphogenetic network has layers of about a thousand seeds: small modules
// that wake, train, are grafted into the network and become permanent, or are
// culled. A trainer reports the seeds of a layer at one instant as a [Frame],
// a table of columns: the seeds' ids, their lifecycle [State]s, and for each
// metric one value a seed. One seed at one instant is a reading; one value is
// a sample.
//
//	trainer --HTTP--> ingest --> seed metrics --> aggregate --> layer rollups --> exporter --> Prometheus
//	                             (Kafka topic)        |         (Kafka topics)
//	                                                  +--> late, quarantine, overflow, dead letters
//
// Ingest validates frames ([Frame.Validate]) and publishes each as one record
// of the seed-metrics topic, keyed by run and layer ([Key]). Aggregate folds
// the records of a partition into windows of event time, one set of windows
// per timeline (a run, or a rank of it that owns its layers), and emits one
// [Rollup] of health and one of performance per layer and window once the
// timeline's watermark has passed the window's end and the allowed lateness.
//
// The log of a partition is the only input of a window: time is the records'
// append times, quiet is written into the log as a [Tick] before it acts, and how
// windows are made as a [WindowConfiguration].
// So whoever reads the log, now or a day later, comes to the same rollups, and
// a reader may drop any rollup whose [Trigger] is not above the highest that
// it has seen of that partition.
//
// The names of the topics are in [Topics], the lifecycle and its allowed
// transitions in [State].
package oona
