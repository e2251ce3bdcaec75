// Package simulate tests the promise of the window engine: whatever happens to the
// workers that fold a partition's log, they publish the same rollups and side records as
// one worker that folds the log without faults. The package has only tests.
//
// A schedule is a list of events, made from a seed. Producers append records to the log of
// one partition. Some of the records are configurations, and some of these are void.
// Owners of the partition crash at any record: before they publish, before they commit,
// or after that. Zombies (former owners that do not know that they are no longer owners)
// fold, publish, tick and commit. Commits may be of any age. Sometimes they are lost, with
// or without the beginning of the log.
//
// Every fold of every owner is compared with package windows/model, which shares no code
// with the engine. Then the topics are read as readers do. These checks also notice
// errors that engine and model might share: a frame that is folded twice, windows that
// overlap, and windows that are emitted again after a loss. If a schedule fails, it is
// shortened as far as possible and printed.
//
// A short run of random schedules may not have the rare events. So there is also a
// hand-written schedule for each kind of event, in which it must occur
// (TestDirectedSchedules).
//
// TestMutantsDie shows that the schedules notice errors. It puts each error that the design
// names into the engine's source, and requires that a schedule fails.
package simulate
