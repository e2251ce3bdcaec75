// Package partition runs machines over the partitions of a topic: one machine for
// each partition that this worker is assigned.
//
//	assigned --> Open a machine --> record --> Fold --> outbox --> other topics
//	                                  ^                   |
//	                                  |                   +-- every second, once it is empty --> commit
//	                                  +-- tick <-- no record comes, and time has to go on
//
// A Machine is a pure function of the partition's log: it neither looks at a clock
// nor talks to the bus. What it needs besides the log is in its commit. What it
// emits waits in an outbox until the bus has acknowledged it, and only then is
// anything committed. After a crash the next owner makes a machine of the last
// commit: it folds again what came after, and emits the same.
package partition
