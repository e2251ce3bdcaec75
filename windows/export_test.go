package windows

import (
	"math/rand/v2"
	"testing"

	"github.com/morphogenetic/oona"
)

// The functions below are for the tests in package windows_test, which compare the engine
// with package model. Tests in package windows cannot import package model, because it imports
// windows.

var (
	ScheduleCount = scheduleCount
	ScheduleFirst = scheduleFirst
	TestCatalogue = testCatalogue
	CountVerdicts = countVerdicts
	Conserved     = conserved
	CopyRollup    = copyRollup
)

// RandomLog returns the log of a schedule, and the configuration with which it begins.
func RandomLog(seed uint64) (Config, []Record) {
	s := newSchedule(seed)
	return s.cfg, s.make(scheduleRecords)
}

// TruncatedLog is the rest of a log that has lost its beginning, and the results of an engine that
// has folded it. The engine knows where the log ended when it was made.
type TruncatedLog struct {
	Config   Config
	End      int64 // offset at which the log ended when the engine was made
	Log      []Record
	Outcomes []Outcome
	Rollups  [][]oona.Rollup // rollups that each record has closed
}

// TruncateAtRandom truncates the log of a schedule in several ways.
func TruncateAtRandom(t *testing.T, seed uint64, check func(TruncatedLog) error) {
	t.Helper()
	truncateAtRandom(t, seed, func(_ *schedule, whole *clean, cut *truncation, cfg Config, _ *rand.Rand) error {
		return check(TruncatedLog{cfg, whole.log[cut.end].Offset, cut.rest.log, cut.rest.outcomes, cut.rest.rollups})
	})
}
