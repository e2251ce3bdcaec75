package main

import (
	"bytes"
	"os"
	"testing"
)

func TestReportOfFio(t *testing.T) {
	report, err := os.ReadFile("testdata/fio.json") // three files of 40 batches of 426,123 bytes
	if err != nil {
		t.Fatal(err)
	}
	const total = 3 * 40 * 426_123
	if speed, err := parseFio(report, total); err != nil || speed != 141.647534 {
		t.Errorf("the speed is %v MB/s, %v; want 141.647534", speed, err)
	}
	if _, err := parseFio(report, total+1); err == nil {
		t.Error("a report of too few bytes was accepted")
	}
	for what, change := range map[string][2]string{
		"a job that failed": {`"error": 0`, `"error": 28`},
		"a missing sync":    {`"N": 119`, `"N": 118`},
		"no speed":          {`"bw_bytes": 141647534`, `"bw_bytes": 0`},
		"another format":    {`"jobs"`, `"tasks"`},
		"no JSON":           {`{`, `fio: `},
	} {
		changed := bytes.Replace(report, []byte(change[0]), []byte(change[1]), 1)
		if bytes.Equal(changed, report) {
			t.Fatalf("%s: the report has no %s", what, change[0])
		}
		if speed, err := parseFio(changed, total); err == nil {
			t.Errorf("%s: the speed is %v, want an error", what, speed)
		}
	}
}
