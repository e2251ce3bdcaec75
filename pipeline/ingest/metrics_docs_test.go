package ingest

import (
	"log/slog"
	"os"
	"regexp"
	"slices"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
)

// described keeps the names of the series of what is registered.
type described struct {
	prometheus.Registerer
	names []string
}

var seriesName = regexp.MustCompile(`fqName: "(\w+)"`)

func (d *described) Register(c prometheus.Collector) error {
	descs := make(chan *prometheus.Desc)
	go func() {
		defer close(descs)
		c.Describe(descs)
	}()
	for desc := range descs {
		d.names = append(d.names, seriesName.FindStringSubmatch(desc.String())[1])
	}
	return d.Registerer.Register(c)
}

func (d *described) MustRegister(all ...prometheus.Collector) {
	for _, c := range all {
		if err := d.Register(c); err != nil {
			panic(err)
		}
	}
}

// The rows of docs/metrics.md about ingest name the series that there are.
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
	d := &described{Registerer: prometheus.NewRegistry()}
	logger, topics := slog.New(slog.DiscardHandler), rawTopics
	cfg := DefaultConfig()
	cfg.Topic, cfg.Instance, cfg.Tensors = topics.SeedMetrics, "i", newStore(t)
	stage, err := New(cfg, &fakeBus{}, d, logger)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := NewRaw(stage, topics, d, logger); err != nil {
		t.Fatal(err)
	}
	slices.Sort(documented)
	slices.Sort(d.names)
	d.names = slices.Compact(d.names)
	if !slices.Equal(documented, d.names) {
		t.Errorf("docs/metrics.md has\n%v\nand ingest has\n%v", documented, d.names)
	}
}
