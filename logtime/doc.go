// Package logtime has the time that an engine derives from a partition's log:
// the log clock, and from it who has been active and who is idle.
//
// An engine folds a log and must come to the same results whenever it is read.
// So it must not look at the clock of the machine that it runs on. All that it
// knows of time are the append times of the records, and what follows from them
// here is a function of these records alone. The package has no goroutine, reads
// no clock and does no I/O. All times and durations are in microseconds.
//
// A [Clock] counts the log time that has passed since the first record. Append
// times are equal within a batch, may step back when the leader of a partition
// changes, and leap after an outage of the bus. The clock never goes back, and
// advances by at most a limit per record, so an outage makes nobody idle.
//
// An idle horizon is how long someone must be silent, by the log clock, before it
// counts as idle. It is measured in buckets of the log clock, [BucketsPerHorizon]
// of them, numbered from 0. So whoever is silent becomes idle after 1 to 1.25
// horizons. An [ActiveSet] knows who has been seen within the horizon.
// [IdleBuckets] remembers where in the log each bucket began: a reader that starts
// there, with the clock of that [ReplayPoint], comes to the same active set. When
// the horizon changes, both go on under the other width: see [Rescaling].
package logtime
