//go:build !race

package simulate

const (
	underRaceDetector = false
	defaultSchedules  = 10_000
)
