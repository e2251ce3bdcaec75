// Package oona is the vocabulary of Oona, the telemetry bus of
// morphogenetic neural networks. It defines the types that all other packages
// share, and imports only the standard library.
//
// A morphogenetic network has layers of about a thousand seeds: small modules
// that wake, train, are grafted into the network and become permanent, or are
// culled. A trainer reports the seeds of a layer at one instant as a [Frame],
// a table of columns: the seeds' ids, their lifecycle [State]s, and for each
// metric one value per seed.
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
// The log of a partition is the only input of its windows. Time is the append
// time of the records. Silence is written into the log as a [Tick] before it has
// an effect. How windows are made is written there as a [WindowConfiguration].
// So every reader of the log, now or later, computes the same rollups. A reader
// of rollups may drop any rollup whose [Trigger] is not above the highest that
// it has seen of that partition.
//
// The names of the topics are in [Topics], the lifecycle and its allowed
// transitions in [State].
//
// # Glossary
//
//   - Allowed lateness: how long a window stays open after the watermark has
//     passed its end. A frame that comes later is late.
//   - Assignment: a partition while it is given to one worker. A replay at its
//     start rebuilds the windows that were open.
//   - Catalogue: a description of each metric: its group, unit and direction.
//   - Claim, or claim check: a reference to a tensor that is kept in a tensor
//     store and not in the record.
//   - Dead letter: a record that cannot be decoded, unchanged, in a topic for
//     such records, with the reason in its headers.
//   - Frontier: the greatest event time that a producer has reached on one path.
//   - Generation: the number of a [WindowConfiguration] in its partition.
//   - Idle horizon: a producer that has been silent for this long, by the log
//     clock, no longer delays the watermark.
//   - Incarnation: the number of the log that an offset belongs to; see
//     [Incarnation].
//   - Log clock: the time of a partition, which advances with the append times.
//   - Path: the way of a frame into the bus: an ingest instance, or a partition
//     of the raw topic.
//   - Reading, sample: one seed at one instant; one value of a metric.
//   - Recovery: the state of an engine whose history is incomplete. It closes
//     windows without a rollup until the missing records make no difference.
//   - Rollup: the content of one window of one layer; see [Rollup].
//   - Side topic: a topic for frames that are not folded: late, quarantine,
//     overflow.
//   - Timeline: a run, or a rank of it that owns its layers. Each timeline has
//     one watermark.
//   - Watermark: the event time that a timeline has reached: the least frontier
//     of its active producers, less the allowed out-of-orderness.
package oona
