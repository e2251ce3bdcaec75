package windows

import "github.com/morphogenetic/oona"

// Record is one record of the partition's log.
type Record struct {
	Offset     int64
	AppendedAt oona.Micros
	// Path is the path by which the frame reached the bus (oona.HeaderPath).
	Path string
	// Checksum is the checksum of the frame's encoded body, without its framing.
	Checksum uint64
	// Frame must have passed Validate. It is nil for Oona's own records and for
	// records that cannot be decoded; these only advance the log clock. The engine
	// does not keep the frame's slices.
	Frame *oona.Frame
	// Configuration is the content of a configuration record. Such a record
	// has no frame.
	Configuration *Configuration
	// Incarnation is the content of an incarnation record. Such a record has no
	// frame.
	Incarnation *oona.IncarnationStart
}

// Verdict says how a record was handled. Each record has exactly one verdict.
type Verdict uint8

// The verdicts.
const (
	Folded      Verdict = iota // folded into one window of its layer
	Duplicate                  // a repeat of a frame that was folded into a window which is still open
	Late                       // its window has closed
	Quarantined                // its event time or its identity cannot be right
	Overflowed                 // it exceeds a limit
	Passed                     // it has no frame, or was processed before
	Replayed                   // it was processed before the commit from which the engine was resumed
)

// VerdictCount is the number of verdicts. They are numbered from 0.
const VerdictCount = int(Replayed) + 1

var verdictNames = [VerdictCount]string{"folded", "duplicate", "late", "quarantined", "overflowed", "passed", "replayed"}

func (v Verdict) String() string {
	if int(v) >= VerdictCount {
		return "unknown"
	}
	return verdictNames[v]
}

// Reason is a word that says why a frame was not folded. It is used in headers and as a label of
// counters.
type Reason string

// The reasons.
const (
	ReasonNone       Reason = ""             // Folded, Passed or Replayed
	ReasonConfigured Reason = "configured"   // Passed: a configuration that is in effect
	ReasonBegun      Reason = "begun"        // Passed: a new incarnation of the log begins
	ReasonVoid       Reason = "void"         // Passed: a configuration or an incarnation that has no effect
	ReasonProcessed  Reason = "processed"    // Passed: a redelivery of a record below ProcessedTo; its frame was not examined
	ReasonDuplicate  Reason = "duplicate"    // Duplicate
	ReasonLate       Reason = "late"         // Late
	ReasonLost       Reason = "lost-history" // Late: its window may have been emitted or may lack records, after a loss
	ReasonFuture     Reason = "future"       // Quarantined: observed later than appended, by more than MaxSkew
	ReasonStale      Reason = "stale"        // Quarantined: observed before it was appended, by more than MaxDelay, or in the time of a configuration that has expired
	ReasonConflict   Reason = "conflict"     // Quarantined: a frame with the same identity and other bytes was folded before
	ReasonTimelines  Reason = "timelines"    // Overflowed: MaxTimelines is reached, and no timeline is quiet
	ReasonLayers     Reason = "layers"       // Overflowed: MaxLayers
	ReasonMetrics    Reason = "metrics"      // Overflowed: MaxMetrics
	ReasonSeeds      Reason = "seeds"        // Overflowed: MaxSeeds
	ReasonSealed     Reason = "sealed"       // Overflowed: MaxAccumulators or MaxTimelineAccumulators, now or when the window was sealed
)

// Outcome is the result of Fold for a record.
type Outcome struct {
	Verdict Verdict
	Reason  Reason
	Detail  string // a sentence with the numbers; empty without a Reason
}
