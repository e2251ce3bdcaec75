package aggregate_test

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/pipeline/aggregate"
	"github.com/morphogenetic/oona/windows"
)

// counted returns the series of a counter that are not 0, with labels and values.
func (f *fixture) counted(t *testing.T, name string) (all []string) {
	t.Helper()
	families, err := f.registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, family := range families {
		if family.GetName() != name {
			continue
		}
		for _, m := range family.GetMetric() {
			var labels []string
			for _, l := range m.GetLabel() {
				labels = append(labels, fmt.Sprintf("%s=%q", l.GetName(), l.GetValue()))
			}
			if v := m.GetCounter().GetValue(); v != 0 {
				all = append(all, fmt.Sprint(labels, " ", v))
			}
		}
	}
	return all
}

func (f *fixture) wantCounted(t *testing.T, name string, want ...string) {
	t.Helper()
	if got := f.counted(t, name); !slices.Equal(got, want) {
		t.Errorf("of %s there are %v, want %v", name, got, want)
	}
}

// wantGauges checks the gauges of the only partition.
func (f *fixture) wantGauges(t *testing.T, want map[string]float64) {
	t.Helper()
	families, err := f.registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	found := 0
	for _, family := range families {
		name := strings.TrimPrefix(family.GetName(), "oona_aggregate_")
		v, wanted := want[name]
		if !wanted {
			continue
		}
		found++
		if got := family.GetMetric()[0].GetGauge().GetValue(); got != v {
			t.Errorf("%s is %v, want %v", name, got, v)
		}
	}
	if found != len(want) {
		t.Errorf("%d of the gauges %v are there", found, want)
	}
}

// Counters that alerts use exist with the value 0 from the beginning.
func TestCountersBeginAtZero(t *testing.T) {
	f := start(t, nil)
	for name, want := range map[string]int{
		"oona_aggregate_records_total":               14, // reasons, folded and duplicates apart
		"oona_aggregate_commits_total":               3,
		"oona_aggregate_unpublishable_records_total": 6,
	} {
		if n, err := testutil.GatherAndCount(f.registry, name); n != want || err != nil {
			t.Errorf("%d series of %s, %v; want %d", n, name, err, want)
		}
	}
	f.stop()
}

func TestMetricsAreDocumented(t *testing.T) {
	const prefix = "oona_aggregate_"
	page, err := os.ReadFile("../../docs/metrics.md")
	if err != nil {
		t.Fatal(err)
	}
	f := start(t, nil)
	f.send(f.frame(0))
	families, err := f.registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	ours := 0
	for _, family := range families {
		short, found := strings.CutPrefix(family.GetName(), prefix)
		if !found {
			continue
		}
		ours++
		if !strings.Contains(string(page), "`"+prefix+short) && !strings.Contains(string(page), "`_"+short) {
			t.Errorf("docs/metrics.md says nothing of %s", family.GetName())
		}
	}
	if ours < 20 {
		t.Errorf("there are %d metrics only", ours)
	}
	f.stop()
}

// If the state does not fit into a commit, this is counted, and nothing is committed. The last commit
// gets older.
func TestCommitTooLarge(t *testing.T) {
	f := start(t, func(c *aggregate.Config) { c.Windows.MaxTimelines = windows.MostTimelines })
	runs := func(from, to int) {
		for i := from; i < to; i++ {
			frame := f.frame(time.Duration(i) * 100 * time.Millisecond)
			frame.Run = oona.RunID(fmt.Sprint("run", i))
			f.send(frame)
		}
	}
	runs(0, 100)
	c, due := f.feed.commit()
	if !due {
		t.Fatal("100 runs do not fit a commit")
	}
	f.feed.consumer().Committed(c, nil)
	runs(100, windows.MostTimelines)
	if _, due := f.feed.commit(); due {
		t.Errorf("%d runs fit a commit", windows.MostTimelines)
	}
	f.wantCounted(t, "oona_aggregate_commits_total", `[result="done"] 1`, `[result="too_large"] 1`)
	f.wantGauges(t, map[string]float64{"commit_metadata_bytes": float64(len(c.Metadata))})
	if len(c.Metadata) > 4096 || len(c.Metadata) < 1000 {
		t.Errorf("100 runs take %d bytes", len(c.Metadata))
	}
	f.stop()
}

// The age of the oldest record that a restart needs depends on the last commit, and grows until the
// next one. The topic's retention is queried repeatedly.
func TestRetention(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		asked := 0
		f := start(t, func(c *aggregate.Config) {
			c.Retention = func(context.Context) (time.Duration, error) {
				if asked++; asked == 2 {
					return 0, errBusDown
				}
				return time.Duration(asked) * time.Hour, nil
			}
		})
		f.begin = time.Now()
		f.send(f.frame(0))
		f.wantGauges(t, map[string]float64{"needed_seconds": 0, "retention_seconds": 3600})
		for s := range 100 {
			time.Sleep(time.Second)
			f.send(f.frame(time.Duration(s+1) * time.Second))
		}
		// Without a commit a restart needs the log from its first record.
		f.wantGauges(t, map[string]float64{"needed_seconds": 100})
		c, due := f.feed.commit()
		if !due || c.Offset < 10 {
			t.Fatalf("to be committed is %+v, %t", c, due)
		}
		f.feed.consumer().Committed(c, nil)
		f.wantGauges(t, map[string]float64{"needed_seconds": float64(101 - c.Offset), "retention_seconds": 3600})
		time.Sleep(9 * time.Minute)
		f.wantGauges(t, map[string]float64{"needed_seconds": float64(641 - c.Offset), "retention_seconds": 3600})
		time.Sleep(time.Minute)
		f.wantGauges(t, map[string]float64{"retention_seconds": 3 * 3600})
		f.stop()
	})
}
