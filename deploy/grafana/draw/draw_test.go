package draw

import (
	"math"
	"slices"
	"testing"
)

func TestUnit(t *testing.T) {
	for _, c := range []struct {
		value float64
		unit  string
		want  string
	}{
		{0.125, "percentunit", "12.5%"}, {0, "s", "0 s"}, {0.00025, "s", "250 µs"}, {0.25, "s", "250 ms"}, {90, "s", "90 s"}, {600, "s", "10 min"},
		{86_400, "s", "24 hours"}, {1536, "bytes", "1.5 KiB"}, {2e6, "Bps", "2 MB/s"}, {12, "reqps", "12 req/s"}, {1500, "short", "1.5 K"},
		{123456, "none", "123456"}, {math.NaN(), "s", "NaN"}, {math.Inf(1), "s", "+∞"}, {1000 * 1000, "dateTimeFromNow", "17 minutes ago"}, {2100 * 1000, "dateTimeFromNow", "in 2 minutes"},
	} {
		if got := unit(c.value, c.unit, 2000); got != c.want {
			t.Errorf("%v in %s is %q, want %q", c.value, c.unit, got, c.want)
		}
	}
}

func TestAxis(t *testing.T) {
	plain := axis{low: 0, high: 10, from: 100, to: 0}
	if got := plain.at(2.5); got != 75 {
		t.Errorf("2.5 is at %v, want 75", got)
	}
	if got := plain.ticks(5); !slices.Equal(got, []float64{0, 2, 4, 6, 8, 10}) {
		t.Errorf("ticks %v", got)
	}
	decades := axis{low: 0, high: 200, from: 100, to: 0, threshold: 0.1}
	if a, b, c := decades.at(1), decades.at(10), decades.at(100); math.Abs((a-b)-(b-c)) > 2 || decades.at(0) != 100 {
		t.Errorf("decades are %v and %v apart", a-b, b-c)
	}
}

// Rows of several queries with the same labels become one, sorted as the panel says.
func TestTable(t *testing.T) {
	d, err := Read([]byte(`{"panels": [{"type": "table", "targets": [{"refId": "A"}, {"refId": "B"}], "options": {"sortBy": [{"displayName": "Level", "desc": true}]},
		"transformations": [{"id": "merge"}, {"id": "organize", "options": {"renameByName": {"Value #A": "Level", "layer": "Layer", "Value #B": "Median"}, "indexByName": {"Value #A": 0, "layer": 1, "Value #B": 2}}}]}]}`))
	if err != nil {
		t.Fatal(err)
	}
	of := func(layer string, v float64) Series {
		return Series{Metric: map[string]string{"layer": layer}, Value: &Point{V: v}}
	}
	columns, rows := Answer{panel: &d.Panels[0], Targets: []Answered{
		{Target: d.Panels[0].Targets[0], Series: []Series{of("a", 1), of("b", 2)}}, {Target: d.Panels[0].Targets[1], Series: []Series{of("a", 7)}},
	}}.Table()
	if !slices.Equal(columns, []string{"Level", "Layer", "Median"}) || len(rows) != 2 {
		t.Fatalf("columns %q, %d rows", columns, len(rows))
	}
	if rows[0].Text["Layer"] != "b" || rows[1].Values["Median"] != 7 || len(rows[0].Values) != 1 {
		t.Errorf("rows %v", rows)
	}
}

func TestLegend(t *testing.T) {
	if got := legend("{{verdict}} {{reason}} {{gone}}", map[string]string{"verdict": "late", "reason": "old"}); got != "late old" {
		t.Errorf("the legend is %q", got)
	}
}

// Classic buckets are cumulative; a heatmap shows their differences.
func TestClassicBuckets(t *testing.T) {
	bucket := func(le string, v float64) Series {
		return Series{Metric: map[string]string{"le": le}, Values: []Point{{T: 1, V: v}}}
	}
	all, width := ofClassic([]Series{bucket("+Inf", 12), bucket("4", 10), bucket("1", 3)})
	if len(all) != 1 || all[0].counts[-width] != 3 || all[0].counts[0] != 7 || len(all[0].counts) != 2 {
		t.Errorf("counts %v, width %d", all, width)
	}
}

// What is not stored is a gap, and states that go on are one.
func TestGaps(t *testing.T) {
	over := Span{Step: 1e9}
	points := []Point{{1, 0}, {2, 0}, {3, 1}, {6, 1}}
	if parts := unbroken(points, over); len(parts) != 2 || len(parts[0]) != 3 {
		t.Errorf("parts %v", parts)
	}
	over.To = over.To.AddDate(3000, 0, 0)
	if got := states(points, over); len(got) != 3 || got[0].to != 3 || got[1].to != 4 {
		t.Errorf("states %v", got)
	}
}

func TestSubstitute(t *testing.T) {
	if got := (Values{"run": "r", "page": ""}).Substitute(`a{run="$run"} ${page}/${run:raw} $other`); got != `a{run="r"} /r $other` {
		t.Errorf("%s", got)
	}
}
