// Package memory implements package bus in memory, for tests and simulations. It has
// methods that make it fail.
//
// It uses time.Now and waits only on channels and timers. So it is deterministic in a
// bubble of testing/synctest. It keeps times in milliseconds. After the Close of a
// Publisher, a Member or a Reader, none of its goroutines is left.
//
// Groups rebalance eagerly: when a member joins or leaves, each member gives up all
// partitions, and they are assigned again. A member with an instance gets no grace time
// when it leaves.
package memory
