package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
)

// values of the chart: windows are short, so that the test is.
const values = `
image: {tag: %s}
kafka: {brokers: ["%s"]}
topics:
  partitions: 6
  windows: {window-length: 5s, allowed-lateness: 2s, idle-horizon: 15s}
ingest: {tmp: {sizeLimit: 1Gi}}
`

func TestChart(t *testing.T) {
	w := newWorld(t)
	w.values = filepath.Join(w.dir, "values.yaml")
	if err := os.WriteFile(w.values, fmt.Appendf(nil, values, firstTag, w.kafka), 0o644); err != nil {
		t.Fatal(err)
	}
	step(t, "helm install --wait", func() error {
		output, err := w.runHelm(t.Context(), "install", release, "../oona", "--values", w.values, "--wait", "--timeout", "2m")
		t.Log(output)
		return err
	})
}
