package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// The panels of spools show the cases for which the alerts fire: a spool that may have no bytes at all,
// and damage that an ingest found when it started, which no rate shows.
func TestSpoolsThatTheAlertsFireFor(t *testing.T) {
	promtool, err := exec.LookPath("promtool")
	if err != nil {
		const missing = "promtool is not on the PATH (Debian: apt-get install prometheus)"
		if os.Getenv("OONA_REQUIRE_PROMTOOL") == "1" {
			t.Fatal(missing)
		}
		t.Skip("SKIPPED: " + missing)
	}
	plain := strings.NewReplacer(installation, `job="ing"`)
	test := plain.Replace(`
rule_files: []
tests:
  - interval: 1m
    input_series:
      - {series: 'oona_ingest_spool_bytes{job="ing", instance="none"}', values: "0x200"}
      - {series: 'oona_ingest_spool_max_bytes{job="ing", instance="none"}', values: "0x200"}
      - {series: 'oona_ingest_spool_bytes{job="ing", instance="half"}', values: "5x200"}
      - {series: 'oona_ingest_spool_max_bytes{job="ing", instance="half"}', values: "10x200"}
      - {series: 'oona_ingest_spool_damaged_ends_total{job="ing", instance="early"}', values: "2x200"}
      - {series: 'oona_ingest_spool_damaged_ends_total{job="ing", instance="late"}', values: "_x100 3x100"}
    promql_expr_test:
      - expr: '` + full() + `'
        eval_time: 150m
        exp_samples:
          - {labels: '{instance="none"}', value: 1}
          - {labels: '{instance="half"}', value: 0.5}
      - expr: '` + inLastHour("oona_ingest_spool_damaged_ends_total") + `'
        eval_time: 30m
        exp_samples: [{labels: '{}', value: 2}]
      - expr: '` + inLastHour("oona_ingest_spool_damaged_ends_total") + `'
        eval_time: 150m
        exp_samples: [{labels: '{}', value: 3}]
      - expr: '` + inLastHour("oona_ingest_spool_damaged_ends_total") + `'
        eval_time: 190m
        exp_samples: [{labels: '{}', value: 0}]
`)
	file := filepath.Join(t.TempDir(), "spool-test.yml")
	if err := os.WriteFile(file, []byte(test), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.CommandContext(t.Context(), promtool, "test", "rules", file).CombinedOutput(); err != nil {
		t.Errorf("%v: %s", err, out)
	}
}
