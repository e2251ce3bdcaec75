package export_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/bus"
)

// The stage says how many records it has not read, and since when it had read all.
func TestLag(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := start(t, nil)
		health := []string{"topic=" + topics.LayerHealth, "partition=0"}
		quiet := []string{"topic=" + topics.LayerPerformance, "partition=0"}
		f.absent("oona_exporter_lag_records", health...)
		ends := func(of int64) {
			f.stage.SetEnds(map[string][]bus.Extent{topics.LayerHealth: {{End: of}}, topics.LayerPerformance: {{}}}, time.Now())
		}
		expect := func(records, seconds float64) {
			t.Helper()
			f.expect(records, "oona_exporter_lag_records", health...)
			f.expect(seconds, "oona_exporter_lag_seconds", health...)
			f.expect(0, "oona_exporter_lag_records", quiet...)
			f.expect(0, "oona_exporter_lag_seconds", quiet...)
		}
		f.send(rollup(oona.Health, "r", "l"))
		ends(1)
		expect(0, 0)
		time.Sleep(10 * time.Second)
		ends(3) // two records that do not come
		expect(2, 10)
		time.Sleep(10 * time.Second)
		ends(4)
		expect(3, 20)
		for range 3 {
			f.send(rollup(oona.Health, "r", "l"))
		}
		expect(0, 0)
		time.Sleep(10 * time.Second)
		ends(4)
		time.Sleep(5 * time.Second)
		ends(5)
		expect(1, 5)
	})
}
