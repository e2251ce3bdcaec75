package export_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/pipeline/export"
)

// A run is live until it has been silent for as long as a layer is shown, and then
// silent until it is forgotten. After a restart it is the same as before.
func TestRunState(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := start(t, func(c *export.Config) { c.SilentAfter, c.RunKept = time.Minute, time.Hour })
		began := time.Now()
		f.send(rollup(oona.Health, "a", "1"))
		time.Sleep(30 * time.Second)
		f.send(rollup(oona.Health, "b", "1"))
		time.Sleep(30 * time.Second)
		f.expect(1, "kasmina_run_state", "run=a")
		f.expect(float64(began.Unix()), "kasmina_run_last_rollup_timestamp_seconds", "run=a")
		f.expect(float64(began.Unix()+30), "kasmina_run_last_rollup_timestamp_seconds", "run=b")

		time.Sleep(time.Second)
		check := func(f *fixture) {
			t.Helper()
			f.expect(0, "kasmina_run_state", "run=a")
			f.expect(1, "kasmina_run_state", "run=b")
			f.expect(float64(began.Unix()), "kasmina_run_last_rollup_timestamp_seconds", "run=a")
		}
		check(f)
		f.absent("kasmina_layer_frames_total", "run=a")

		restarted := startOn(t, f.tape.again(t), func(c *export.Config) { c.SilentAfter, c.RunKept = time.Minute, time.Hour })
		restarted.tape.read(t)
		check(restarted)

		time.Sleep(time.Hour - time.Minute)
		f.absent("kasmina_run_state", "run=a")
		f.expect(0, "kasmina_run_state", "run=b")
	})
}

// The number of runs is bounded. Those that have been silent for the longest time make
// room; live ones do not.
func TestRunsAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := start(t, func(c *export.Config) { c.MaxRuns, c.SilentAfter = 2, time.Minute })
		f.send(rollup(oona.Health, "a", "1"))
		time.Sleep(time.Second)
		f.send(rollup(oona.Health, "b", "1"))
		f.send(rollup(oona.Health, "c", "1"))
		f.absent("kasmina_run_state", "run=c")
		f.absent("kasmina_run_state", "run=other")

		time.Sleep(2 * time.Minute)
		f.send(rollup(oona.Health, "c", "1"))
		f.absent("kasmina_run_state", "run=a")
		f.expect(0, "kasmina_run_state", "run=b")
		f.expect(1, "kasmina_run_state", "run=c")
	})
}
