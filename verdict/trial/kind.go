package trial

import "fmt"

// Kind says what happens in a run.
type Kind int

// The kinds of faults, and of clean runs.
const (
	LevelShift Kind = iota // the loss, gradient or weight norm jumps to 3 to 12 times, or a part
	DriftUp                // the loss or gradient rises 8 to 40 times over 60 to 100 windows
	Spike                  // the loss rises 4 to 20 times for 2 to 6 windows, and the gradient with it
	Variance               // the variance of activations falls to a 10th to 300th over 10 windows
	Exploding              // the gradient doubles every 1 to 4 windows, and the loss follows
	Vanishing              // the gradient falls to a 30th to 4000th over 5 to 20 windows
	NaNShare               // a fifth to all active seeds measure NaN
	MassDeath              // the units of a third to three quarters of the seeds die over 5 windows
	Silence                // a fifth to four fifths of the seeds no longer report
	Stall                  // the layer's windows stop, or its steps
	OneSeed                // the gradient of one seed of many is 100 to 10000 times the usual

	WarmUp // the learning rate is warmed up over 5 to 25 windows
	Resume // the run continues from a checkpoint, 10 to 60 windows back, after a pause
	Drop   // the learning rate drops twice
	Gap    // the run pauses for 20 to 500 windows and returns

	kinds
)

var names = [kinds]string{
	"level shift", "drift", "spike", "variance", "exploding", "vanishing", "NaN share", "mass death", "silence", "stall", "one seed",
	"warm-up", "checkpoint resume", "learning-rate drop", "gap and return",
}

func (k Kind) String() string {
	if k < 0 || k >= kinds {
		return fmt.Sprintf("Kind(%d)", int(k))
	}
	return names[k]
}

// Clean reports whether a run of the kind has no fault.
func (k Kind) Clean() bool { return k >= WarmUp }

// Kinds returns all kinds, first those with faults.
func Kinds() (all []Kind) {
	for k := range kinds {
		all = append(all, k)
	}
	return all
}

// Set is a set of runs. No run is in two sets.
type Set uint64

// The sets. Whoever chooses a constant of a detector may look at Tuning only. Set 1 was
// looked at before the last changes, so it is neither.
const (
	Tuning  Set = 0
	HoldOut Set = 2
)

// RunsPerKind bounds the runs of a kind in a set.
const RunsPerKind = 100_000

// Seed returns the seed of the nth run of a kind.
func (s Set) Seed(k Kind, n int) uint64 {
	return (uint64(s)*uint64(kinds)+uint64(k))*RunsPerKind + uint64(n%RunsPerKind)
}
