package model

// Mutant is a plausible error in the design.
type Mutant int

// The mutants.
const (
	Faithful           Mutant = iota
	MaximumTimestamp          // the watermark follows the fastest producer
	NoIdleness                // a producer never becomes idle
	NoDuplicateCheck          // a repeat is folded again
	NoPath                    // a producer has one frontier for all its paths
	OwnTrafficOnly            // a record evaluates only its own timeline
	IdleToTheEnd              // when all are idle, the watermark advances to the log's time
	LateFramesStay            // a late frame leaves its producer's frontier where it is
	UnboundedClock            // an outage counts as silence
	ExclusiveLateness         // late only once the watermark is above the window's end and lateness
	RejectedIdentities        // a frame beyond a cap is remembered
	IdentitiesAcross          // a frame is a repeat of one in another window
	NoFloor                   // a timeline that comes back starts from the beginning
	NoEviction                // a full partition admits no timeline
	NoForgetting              // a timeline is forgotten only to make room for another
	EarlyConfiguration        // a configuration holds from an instant that frames may have passed
	CutWindows                // a configuration does not wait for the end of a window
	OldBuckets                // sightings stay in buckets of the old horizon
	NoSeals                   // a window opens a layer as soon as there is room again
	StepsAsTheyCame           // steps rise from one frame in the log to the next
	StepsAcrossEpochs         // a producer that begins again continues where it was
	FallsCount                // the time in which a step falls counts
	FarthestFromZero          // the worst seeds of a neutral metric are those with the greatest values
	AllNotMeasured            // seeds in any state are taken for active ones
	WorstOfLast               // a worst value is from the last frame that has it
	mutantCount
)

// MutantCount is the number of mutants, the faithful model included.
const MutantCount = mutantCount

var mutantNames = [...]string{
	"faithful", "maximum timestamp", "no idleness", "no duplicate check", "no path", "own traffic only", "idle to the end",
	"late frames stay", "unbounded clock", "exclusive lateness", "rejected identities", "identities across windows", "no floor",
	"no eviction", "no forgetting", "early configuration", "cut windows", "buckets of an old horizon", "no seals",
	"steps as they came", "steps across epochs", "falls count", "farthest from zero", "not measured, active or not", "offset of the last worst",
}

// String returns the mutant's name.
func (m Mutant) String() string { return mutantNames[m] }
