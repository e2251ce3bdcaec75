// Package memory is a bus inside the process, for tests and simulations. It does
// what package bus declares, with hooks that make it fail.
//
// It reads the time with time.Now, unless it is given another clock, and waits
// only on channels and timers, so that it is deterministic in a bubble of
// testing/synctest. Times are kept in milliseconds. Nothing outlives the Close of
// a Publisher, a Member or a Reader; a Bus itself has nothing to close.
//
// Groups rebalance as Kafka's do by default: when a member joins or leaves, each
// member gives up all partitions, and they are assigned again. A member with an
// instance that leaves is not waited for.
package memory
