// Package windows folds the log of one partition into rollups over windows of
// event time. Emission is a pure function of the log: an [Engine] has no
// clock, no goroutine and no I/O, so that whoever folds the same records, now
// or a day later, comes to the same rollups, byte for byte.
//
// The terms are those of Beam and Flink. Event time is when a frame was
// observed; processing time is the log's. Windows are tumbling, and keyed by
// run, timeline and layer. The trigger is the watermark: a window fires once,
// with one pane, when the watermark has passed its end and the allowed
// lateness, which here keeps a window open that much longer instead of firing
// it again. Late frames go to a side output.
//
// # Time
//
// The log clock goes on with the records' append times, never backwards and by
// at most two tick intervals a record: append times are equal within a batch
// and step either way when the partition's leader changes, and an outage of
// the bus makes nobody idle. Records without a frame, such as the ticks that
// the partition's owner writes in real quiet, let it go on too. A record that
// carries it into a new tick interval (or a new quarter of the idle horizon)
// first has all timelines evaluated, whatever run the record is of: so the last
// windows of a run that has ended close under the traffic of another.
//
// # Watermarks
//
// A timeline is what has one watermark: a run, or a rank of it that owns its
// layers. Within it, each producer on each path into the bus has a frontier,
// the latest event time that it reached within the idle horizon. The watermark
// is the least frontier less the allowed out-of-orderness, and never goes
// backwards. A producer that was silent for the horizon is idle and holds it no
// more. When all are idle, it goes just far enough to close what is open and no
// further: a trainer that was cut off for an hour and then drains its spool
// finds the windows after its last one open. (What it observed in that last
// window after it was cut off is late.) The path is part of it so that a spool
// that drains over one path holds the watermark against new frames on another.
//
// # What becomes of a record
//
// [Engine.Fold] decides in this order, and its [Outcome] says which:
//
//  1. Passed: no frame.
//  2. Quarantined: the event time is further from the append time than clocks
//     and spools explain, or of a configuration that is out of reach. Such a
//     frame touches nothing.
//  3. Overflowed: its timeline is one too many. From here on the frame advances
//     the frontier of its producer, whatever becomes of it.
//  4. Late: its window has closed.
//  5. Duplicate, or Quarantined: a frame of the same producer, epoch and
//     sequence was folded into the same window, from the same bytes, or from
//     others.
//  6. Overflowed: a layer, metric or seed too many, or a layer that the window
//     was sealed against. Such a frame leaves no trace in the window.
//  7. Folded.
//
// Then the watermark advances, and what it closes is emitted. So a record
// closes windows at up to two moments, before and after it is folded itself;
// the index of its trigger counts through both. At each, windows are ordered by
// end, run and timeline, and within a window by layer.
//
// # Timelines that come and go
//
// A timeline without open windows and active producers is quiet. It is forgotten
// once its watermark is further behind the greatest append time than spools and
// clocks explain, or to make room for another in a full partition. Whoever comes
// back, or is new, starts at the floor, the greatest watermark of any that was
// forgotten: so no window is emitted twice.
//
// # Caps
//
// All caps are such that whoever reads only a window's own records decides the
// same: the first layers, metrics and seeds get in. How many layers' windows are
// open in the whole partition is another matter. The window that would open one
// too many is sealed: it gets no further layer, also when there is room again,
// and the seal is remembered until the watermark passes it.
//
// # Configurations
//
// A configuration record ([Configuration]) changes how windows are made from an
// instant of event time on that no frame has reached, and at a seam between
// windows: none is cut, and nothing is folded twice. Frames and windows go by the
// configuration of their own event time; the log clock and the idle horizon change
// at the record itself. One that no frame can come into any
// more goes out of reach, and frames of its time are stale from then on.
//
// # Commits
//
// [Engine.Commit] says from which offset on the log has to be read again to
// rebuild what is open, and holds what that cannot show: watermarks, seals, the
// timelines and their admissions, the floor, and the log clock as it was at that
// offset. [Resume] makes an engine of it, which replays what had been processed,
// without deciding or emitting anything anew, and then goes on as the first one
// would have. Where the log's beginning or the commit is lost, [Restart] makes
// one that folds what is left, and emits nothing that may have been emitted or
// may lack records.
//
// # Reducers
//
// A layer's window keeps for each metric moments, an exponential histogram and
// the worst seeds, and of the seeds a census; each has a file of its own. They
// take a column at a time and use no map and no memory per reading. Sums are
// made in the order of the log, and products that are summed are rounded first,
// so that results do not depend on the processor's instructions.
package windows
