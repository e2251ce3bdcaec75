package windows

import (
	"math/rand/v2"
	"testing"

	"github.com/morphogenetic/oona"
)

// What follows is for the tests in package windows_test, which compare the engine
// with package model. (Tests in package windows cannot import that, as it imports
// windows.)

var (
	ScheduleCount = scheduleCount
	ScheduleFirst = scheduleFirst
	TestCatalogue = testCatalogue
	CountVerdicts = countVerdicts
	Conserved     = conserved
	CopyRollup    = copyRollup
)

// RandomLog returns the log of a schedule and the configuration it begins with.
func RandomLog(seed uint64) (Config, []Record) {
	s := newSchedule(seed)
	return s.cfg, s.make(scheduleRecords)
}

// TruncatedLog is what is left of a log that has lost its beginning, and what an
// engine made of it that was told where the log ended.
type TruncatedLog struct {
	Config   Config
	End      int64 // offset where the log ended when the engine was made
	Log      []Record
	Outcomes []Outcome
	Rollups  [][]oona.Rollup // of each record
}

// TruncateAtRandom truncates the log of a schedule in several ways.
func TruncateAtRandom(t *testing.T, seed uint64, check func(TruncatedLog) error) {
	t.Helper()
	truncateAtRandom(t, seed, func(_ *schedule, whole *clean, cut *truncation, cfg Config, _ *rand.Rand) error {
		return check(TruncatedLog{cfg, whole.log[cut.end].Offset, cut.rest.log, cut.rest.outcomes, cut.rest.rollups})
	})
}
