package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/grafana/grafana-foundation-sdk/go/dashboard"
)

// Each series that a panel asks for is one that a worker serves, or that a rule of the
// project records.
func TestSeriesExist(t *testing.T) {
	known := served(t)
	for file, text := range files(t) {
		var d dashboard.Dashboard
		if err := json.Unmarshal(text, &d); err != nil {
			t.Fatal(err)
		}
		for _, p := range panels(d) {
			for _, q := range queries(p) {
				found := false
				for _, sums := range []string{"kasmina", "run:kasmina"} {
					query, _ := substituted(d, strings.NewReplacer("$histogram", "()", "${sums}", sums).Replace(q.Expr))
					all := true
					for _, name := range names(t, query) {
						all = all && matchesOne(name, known)
					}
					found = found || all
				}
				if !found {
					t.Errorf("%s, panel %q, query %s: nobody serves one of its series: %s", file, value(p.Title), value(q.RefId), q.Expr)
				}
			}
		}
	}
	annotated := 0
	for file, text := range files(t) {
		var d dashboard.Dashboard
		if err := json.Unmarshal(text, &d); err != nil {
			t.Fatal(err)
		}
		for _, a := range d.Annotations.List {
			query, _ := substituted(d, value(a.Expr))
			for _, name := range names(t, query) {
				if annotated++; !matchesOne(name, known) {
					t.Errorf("%s, annotation %q: nobody serves %s", file, a.Name, name)
				}
			}
			if a.UseValueForTime == nil || !*a.UseValueForTime {
				t.Errorf("%s, annotation %q: it is not at the time of its value", file, a.Name)
			}
		}
	}
	if annotated != 8 {
		t.Errorf("%d annotations ask for series", annotated)
	}
	if len(known) < 100 {
		t.Errorf("only %d series are known", len(known))
	}
	if matchesOne("oona_ingest_byte_total", known) {
		t.Error("a series that nobody serves is known")
	}
}

func matchesOne(pattern string, known map[string]bool) bool {
	re := regexp.MustCompile("^(?:" + pattern + ")$")
	for name := range known {
		if re.MatchString(name) {
			return true
		}
	}
	return false
}

// served returns the names of series that are served or recorded.
func served(t *testing.T) map[string]bool {
	t.Helper()
	known := map[string]bool{"ALERTS": true, "process_cpu_seconds_total": true, "process_resident_memory_bytes": true, "process_start_time_seconds": true}
	for path, pattern := range map[string]string{
		"../../internal/lint/testdata/names.txt": `(?m)^metric /metrics (\w+)\{`,
		"../prometheus/network-recording.yml":    `(?m)record: ([\w:]+)`,
	} {
		text, err := os.ReadFile(filepath.FromSlash(path))
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range regexp.MustCompile(pattern).FindAllStringSubmatch(string(text), -1) {
			known[m[1]] = true
		}
	}
	return known
}
