// Package simulate holds the window engine to its promise: whatever becomes of
// the workers that fold a partition's log, the rollups and side records that
// they publish are those of a clean run over that log. It has tests only.
//
// A schedule is a list of events made from a seed: records that producers get
// into the log of one partition, configurations among them, some of which are
// void, and what becomes of the log's owners. Owners crash at any record, before
// they publish, before they commit or after it; zombies go on folding, publishing,
// ticking and committing after another owner has taken over; commits are of any
// age, and sometimes lost, with the log's beginning or without. Every fold of
// every owner is compared with package windows/model, which shares no code with the
// engine; then what was published is looked at as its readers
// do, also for what the two might have wrong together: that no frame is folded
// twice, no window overlaps another, and none is emitted again after a loss. A
// schedule that fails is made as short as it can be and printed.
//
// TestMutantsDie shows that the schedules notice what they are there for: each
// error that the design names is put into the engine's source, and the same
// test must fail.
package simulate
