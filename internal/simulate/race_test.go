//go:build race

package simulate

// Under the race detector, which costs tenfold and looks at other errors,
// schedules are fewer.
const (
	underRaceDetector = true
	defaultSchedules  = 500
)
