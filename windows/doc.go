// Package windows folds the log of one partition into rollups over windows of event
// time.
//
// Rollups are a function of the log alone. An [Engine] has no clock, no goroutine and
// no I/O. An engine that folds the same records a day later makes the same rollups,
// byte for byte. testdata/scripts has logs with the rollups that an engine makes of
// them; they are a good place to start.
//
// # Glossary
//
// Terms of Beam and Flink are used where they exist.
//
//   - Frame: the readings of a layer's seeds at one instant, in columns. It is one
//     record of the log.
//   - Rollup: the content of one window of one layer. There are two, one with the
//     metrics of the group health and one with those of the group performance.
//   - Append time: when the bus received a record. Event time: when a frame was observed.
//   - Log clock: a clock that advances with the append times: see package logtime.
//   - Window: an interval of event time of one timeline. Windows are tumbling: each
//     begins where the one before ends.
//   - Timeline: a run, or a rank of a run that owns its layers. It has one watermark.
//   - Producer and path: the sender of a frame, and the ingest or raw topic through
//     which the frame reached the bus.
//   - Frontier: the progress of a producer on a path. It is the latest event time of
//     its frames that were seen within the idle horizon.
//   - Idle: not seen for the idle horizon, by the log clock.
//   - Watermark: the event time up to which no more frames of a timeline are expected.
//   - Floor: the greatest watermark of any timeline that was forgotten.
//   - Late: observed in a window that has closed.
//   - Accumulator: the state of one layer in one open window.
//   - Sealed: a sealed window gets no further layer.
//   - Configuration epoch: an interval of event time with one configuration.
//   - Trigger: the place where a rollup was emitted: the log's incarnation, the offset
//     of the record that closed the window, and an index.
//   - Incarnation: a number of the log itself. A log that was made again, or has lost
//     records at its end, gets a new one.
//   - Commit: the state that a worker stores so that the next one can continue. Its
//     offset is the safe offset, from which a replay starts.
//   - Recovery: the state of an engine that was restarted after records were lost.
//
// # Time
//
// The log clock advances with the records' append times, never backwards and by at
// most two tick intervals per record. Append times are equal within a batch and may
// step in either direction when the leader of the partition changes. Because of the
// limit, an outage of the bus makes no producer idle. Records without a frame advance
// the clock, too, for example the ticks that the owner of a quiet partition writes. A
// record that advances the clock into a new tick interval, or into a new quarter of
// the idle horizon, first evaluates all timelines, whatever run the record is of. So
// the last windows of a run that has ended close under the traffic of another run.
//
// # Watermarks
//
// The watermark of a timeline is the least frontier of its active producers, less the
// allowed out-of-orderness. It never goes back. It does not wait for a producer that
// has been silent for the idle horizon. When all producers are idle, the watermark
// advances just far enough to close the open windows, and no further. So if a trainer
// was disconnected for an hour and then sends the frames of its spool, the windows
// after its last one are still open. (Frames in that last window that were observed
// after the disconnection are late.)
//
// A producer has a frontier on each path. So while a spool is sent on one path, the
// watermark waits for it, even if newer frames arrive on another path.
//
// A window closes when the watermark has passed its end by the allowed lateness. It
// closes once, and emits one rollup of each layer and group.
//
// # Outcomes of a record
//
// [Engine.Fold] decides in this order. The [Outcome] says which case it was.
//
//  1. Passed: the record has no frame.
//  2. Quarantined: the event time is further from the append time than MaxDelay or
//     MaxSkew allows, or belongs to a configuration that has expired. Such a frame
//     changes nothing.
//  3. Overflowed: there would be too many timelines. In all cases that follow, the
//     frame advances the frontier of its producer.
//  4. Late: the window has closed.
//  5. Duplicate, or Quarantined: a frame of the same producer, epoch and sequence was
//     folded into the same window, with the same bytes or with others.
//  6. Overflowed: there would be too many layers, metrics or seeds, or the window is
//     sealed and does not have the layer. Such a frame changes nothing in the window.
//  7. Folded.
//
// Then the watermark advances, and the windows that it closes are emitted. So a record
// may close windows twice: before and after it is folded itself. The index of its
// trigger continues from the first time to the second. Each time, windows are ordered
// by end, run and timeline, and within a window by layer.
//
// # Forgetting timelines
//
// A timeline is quiet if it has no open windows and no active producers. A quiet
// timeline is forgotten when its watermark is so far behind the greatest append time
// that no acceptable frame can be before it, or when a full partition needs space for
// a new one. A timeline that is new, or comes back, starts at the floor, so no window
// is emitted twice.
//
// # Caps
//
// The caps on layers, metrics and seeds depend only on a window's own records: the
// first ones are accepted. So every reader of the log decides in the same way. The cap
// on accumulators depends on the other open windows. A window that would exceed it is
// sealed: it gets no further layer, even when other windows have closed. Seals are kept
// in the commit until the watermark passes them.
//
// # Configurations
//
// A configuration record ([Configuration]) changes how windows are made, from an event
// time on that no frame has reached. The new windows begin where an old one ends, so
// none is cut and nothing is folded twice. The event time of a frame or a window
// determines its configuration. The settings of the log clock and the idle horizon
// change at the record itself. A configuration epoch expires when no acceptable frame
// can belong to it any more. From then on, frames of its time are stale.
//
// # Commits and replays
//
// [Engine.Commit] returns the offset from which the log must be read again to rebuild
// the open windows, and the state that a replay cannot rebuild: watermarks, seals, the
// timelines with the offsets of their first records, the floor, the configurations,
// and the log clock at that offset. [Resume] makes an engine from a commit. That engine
// replays the records that had been processed, without emitting anything again, and
// then continues as the first engine would have.
//
// If the log has lost records, [Restart] makes an engine that folds the remaining
// ones. It emits no window that may have been emitted before or may lack records.
//
// # Reducers
//
// Package reduce computes the content of a rollup: moments, a histogram and the worst
// seeds of each metric, and a census of the seeds. Sums are made in the order of the
// log, so they do not depend on the machine that computes them.
package windows
