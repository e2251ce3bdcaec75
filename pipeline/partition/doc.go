// Package partition runs machines over the partitions of a topic: one machine for
// each partition that is assigned to this worker.
//
//	assigned --> open a machine --> record --> Fold --> outbox --> other topics
//	                                  ^                   |
//	                                  |                   +-- when it is empty, every second --> commit
//	                                  +-- tick <-- no records arrive, and the time of the log must advance
//
// A Machine is a pure function of the partition's log. It reads no clock and does
// not use the bus. The state that it needs besides the log is in its commit. Its output
// waits in an outbox until the bus has acknowledged it. Only then is anything committed.
// After a crash, the next owner of the partition makes a machine from the last commit,
// folds the later records again, and emits the same output.
package partition
