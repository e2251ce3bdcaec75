// Package simulate tests the promise of the window engine: whatever happens to the
// workers that fold a partition's log, the rollups and side records that they publish
// are those of a single run over that log without faults. It has tests only.
//
// A schedule is a list of events made from a seed. Producers get records into the log of
// one partition, among them configurations, some of which are void. Owners of the
// partition crash at any record, before they publish, before they commit or after it.
// Zombies (former owners that do not know it) fold, publish, tick and commit after
// another owner has taken over. Commits are of any age, and are sometimes lost, with or
// without the beginning of the log.
//
// Every fold of every owner is compared with package windows/model, which shares no code
// with the engine. Then the topics are read as readers do. These checks also notice
// errors that engine and model might share: a frame that is folded twice, windows that
// overlap, and windows that are emitted again after a loss. If a schedule fails, it is
// shortened as far as possible and printed.
//
// TestMutantsDie shows that the schedules notice what they are there for. It puts each
// error that the design names into the engine's source, and requires that a schedule
// fails.
package simulate
