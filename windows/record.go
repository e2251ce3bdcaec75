package windows

import "github.com/morphogenetic/oona"

// Record is one record of the partition's log.
type Record struct {
	Offset     int64
	AppendedAt oona.Micros
	// Path is the path on which the frame came into the bus (oona.HeaderPath).
	Path string
	// Checksum is the checksum of the frame's encoded body, without its framing.
	Checksum uint64
	// Frame must have passed Validate. It is nil for Oona's own records and for
	// records that cannot be decoded; they only let time pass. The engine does
	// not keep the frame's slices.
	Frame *oona.Frame
	// Configuration is the content of a configuration record. Such a record
	// has no frame.
	Configuration *Configuration
	// Incarnation is the content of an incarnation record. Such a record has no
	// frame.
	Incarnation *oona.IncarnationStart
}

// Verdict says what became of a record. Each record has exactly one.
type Verdict uint8

// The verdicts.
const (
	Folded      Verdict = iota // into one window of its layer
	Duplicate                  // a repeat of a frame that was folded into a window which is still open
	Late                       // its window has closed
	Quarantined                // its event time or its identity cannot be right
	Overflowed                 // beyond a cap
	Passed                     // no frame, or a record that was processed before
	Replayed                   // processed before the commit that the engine was resumed from
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

// Reason says why a frame was not folded, in a word that is used in headers and as
// the label of counters.
type Reason string

// The reasons.
const (
	ReasonNone       Reason = ""             // Folded, Passed or Replayed
	ReasonConfigured Reason = "configured"   // Passed: a configuration that holds
	ReasonBegun      Reason = "begun"        // Passed: an incarnation of the log begins
	ReasonVoid       Reason = "void"         // Passed: a configuration or an incarnation that does not hold
	ReasonProcessed  Reason = "processed"    // Passed: a redelivery of a record below ProcessedTo; its frame was not looked at
	ReasonDuplicate  Reason = "duplicate"    // Duplicate
	ReasonLate       Reason = "late"         // Late
	ReasonLost       Reason = "lost-history" // Late: its window may have been emitted or may lack records, after a loss
	ReasonFuture     Reason = "future"       // Quarantined: observed later than appended, by more than MaxSkew
	ReasonStale      Reason = "stale"        // Quarantined: observed before it was appended, by more than MaxDelay, or in the time of a configuration that has expired
	ReasonConflict   Reason = "conflict"     // Quarantined: the identity of another frame, with other bytes
	ReasonTimelines  Reason = "timelines"    // Overflowed: MaxTimelines, none of them quiet
	ReasonLayers     Reason = "layers"       // Overflowed: MaxLayers
	ReasonMetrics    Reason = "metrics"      // Overflowed: MaxMetrics
	ReasonSeeds      Reason = "seeds"        // Overflowed: MaxSeeds
	ReasonSealed     Reason = "sealed"       // Overflowed: MaxAccumulators or MaxTimelineAccumulators, now or when the window was sealed
)

// Outcome is what Fold returns for a record.
type Outcome struct {
	Verdict Verdict
	Reason  Reason
	Detail  string // a sentence with the numbers; empty without a Reason
}
