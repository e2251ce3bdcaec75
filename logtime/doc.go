// Package logtime derives time from a partition's log: a clock, and which members are
// active or idle by it.
//
// An engine that folds a log must get the same results whenever it reads it. So it must
// not use the clock of the machine that it runs on. All it knows about time are the
// append times of the records. All results of this package are a function of them. The
// package has no goroutine, reads no clock and does no I/O. All instants and durations
// are in microseconds.
//
// A [Clock] counts the log time since the first record. Append times are equal within
// a batch, may step back when the leader of the partition changes, and leap after an
// outage of the bus. The clock never goes back, and advances by at most a limit per
// record, so an outage makes no member idle.
//
// The idle horizon is how long a member must be silent, by the log clock, before it
// counts as idle. It is measured in buckets of the log clock, [BucketsPerHorizon] of
// them, numbered from 0. So a member becomes idle after 1 to 1.25 horizons. An
// [ActiveSet] has the members that were seen within the horizon. [IdleBuckets]
// remembers where in the log each bucket began: a reader that starts there, with the
// clock of that [ReplayPoint], gets the same active set. If the horizon changes, both
// are converted by a [Rescaling].
package logtime
