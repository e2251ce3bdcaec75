package ingest

import (
	"log/slog"
	"os"
	"regexp"
	"slices"
	"testing"

	"github.com/morphogenetic/oona/internal/worker/workertest"
)

// The rows of docs/metrics.md about ingest are the series that ingest has.
func TestMetricsAreDocumented(t *testing.T) {
	page, err := os.ReadFile("../../docs/metrics.md")
	if err != nil {
		t.Fatal(err)
	}
	var documented []string
	row, series := regexp.MustCompile("(?m)^\\| `oona_ingest_[^|]*"), regexp.MustCompile("`(oona_ingest)?(_\\w+)")
	for _, cell := range row.FindAllString(string(page), -1) {
		for _, found := range series.FindAllStringSubmatch(cell, -1) {
			documented = append(documented, "oona_ingest"+found[2])
		}
	}
	d := workertest.NewSeries()
	logger, topics := slog.New(slog.DiscardHandler), rawTopics
	cfg := DefaultConfig()
	cfg.Topic, cfg.Instance, cfg.Tensors = topics.SeedMetrics, "i", new(faultyStore)
	cfg.Spool.Directory = t.TempDir()
	if cfg.Spool.Open, err = cfg.OpenSpool(logger); err != nil {
		t.Fatal(err)
	}
	defer cfg.Spool.Open.Close()
	stage, err := New(cfg, newBus(t), d, logger)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := NewRaw(stage, topics, d, logger); err != nil {
		t.Fatal(err)
	}
	slices.Sort(documented)
	if names := d.Names(); !slices.Equal(documented, names) {
		t.Errorf("docs/metrics.md has\n%v\nand ingest has\n%v", documented, names)
	}
}
