package main

import (
	"fmt"
	"time"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/bus/kafka"
	"github.com/morphogenetic/oona/internal/catalogue"
	"github.com/morphogenetic/oona/internal/worker"
	"github.com/morphogenetic/oona/pipeline/export"
)

// config is the configuration of the exporter.
type config struct {
	worker.Config

	Bus       kafka.Config  `embed:"" group:"Bus"`
	Lookback  time.Duration `group:"Bus" help:"How far back to read at the start; 0 reads everything in the topics. Must be at least --series-silent-after."`
	Catalogue string        `group:"Series" placeholder:"FILE" help:"YAML file of metrics: what is judged of each, and help texts. Default: the built-in catalogue. Give the file that the aggregators have."`
	Series    seriesFlags   `embed:"" group:"Series"`

	RemoteWrite remoteWriteFlags `embed:"" group:"Remote write"`
}

// seriesFlags are the flags for export.Config without its topics. The names of limits begin
// with series-, so that their variables differ from those of the aggregator's limits.
type seriesFlags struct {
	MaxRuns        int           `name:"series-max-runs" help:"Maximum number of runs with separate series. Further runs are merged under \"other\"."`
	MaxLayers      int           `name:"series-max-layers" help:"Maximum number of layers of a run with separate series."`
	MaxTotalLayers int           `name:"series-max-total-layers" help:"Maximum number of layers of all runs with separate series. It bounds the size of a scrape."`
	MaxMetrics     int           `name:"series-max-metrics" help:"Maximum number of metrics of all layers with separate series."`
	Expected       []string      `name:"series-expected" placeholder:"METRICS" help:"Metrics whose expected range is shown, or all, or none. Each costs up to 4 series per layer. While a layer is unhealthy because of a metric, the range of that metric is shown anyway."`
	WorstSeeds     int           `name:"series-worst-seeds" help:"Number of worst seeds to show for each metric."`
	SilentAfter    time.Duration `name:"series-silent-after" help:"How long to show a layer after its last window."`
	RunKept        time.Duration `name:"run-kept" help:"How long to show that a run is silent, after its last rollup. After a restart, runs are known that were heard of within --lookback."`
	Buckets        buckets       `name:"series-buckets" placeholder:"BUCKETS" help:"Classic histogram buckets: default (bounds a factor of 4 apart), fine (a factor of 2, and 20 more series per layer and metric), or a list of upper bounds, ascending, such as 0,0.5,1. Counts are exact at 0 and at powers of two."`
}

func defaults() *config {
	d := export.DefaultConfig()
	return &config{
		Config:   worker.Config{AdminAddress: "127.0.0.1:9103"},
		Lookback: time.Hour,
		Series:   seriesFlags{d.MaxRuns, d.MaxLayers, d.MaxTotalLayers, d.MaxMetrics, d.Expected, d.WorstSeeds, d.SilentAfter, d.RunKept, d.Buckets},

		RemoteWrite: remoteWriteFlags{Group: "oona-remote-write"},
	}
}

// Validate is called by kong when flags, environment and file have been read.
func (c *config) Validate() error {
	if err := c.Bus.Security.Check(); err != nil {
		return err
	}
	if _, err := catalogue.Open(c.Catalogue); err != nil {
		return err
	}
	if c.Lookback != 0 && c.Lookback < c.Series.SilentAfter {
		return &oona.FieldError{Field: "--lookback", Reason: fmt.Sprintf("is %s; give at least --series-silent-after (%s), or layers are missing after a restart", c.Lookback, c.Series.SilentAfter)}
	}
	if err := c.RemoteWrite.validate(); err != nil {
		return err
	}
	stage, err := c.stage()
	if err != nil {
		return worker.AsFlag("--prefix", err)
	}
	return worker.NameFlag(c.Series, stage.Validate())
}

// Warnings adds to those of all workers what is said of the connections to the bus.
func (c *config) Warnings() []*oona.FieldError {
	return append(c.Config.Warnings(), c.Bus.Security.Warnings()...)
}

// stage returns the configuration of the stage.
func (c *config) stage() (export.Config, error) {
	topics, err := oona.NewTopics(c.Prefix)
	s := c.Series
	return export.Config{
		Topics:         topics,
		MaxRuns:        s.MaxRuns,
		MaxLayers:      s.MaxLayers,
		MaxTotalLayers: s.MaxTotalLayers,
		MaxMetrics:     s.MaxMetrics,
		Expected:       s.Expected,
		WorstSeeds:     s.WorstSeeds,
		SilentAfter:    s.SilentAfter,
		RunKept:        s.RunKept,
		Buckets:        s.Buckets,
	}, err
}

// from returns the time to read the topics from, or zero for their beginning. It
// returns no time before 1970, as Kafka uses such times for special positions.
func (c *config) from(now time.Time) time.Time {
	from := now.Add(-c.Lookback)
	if c.Lookback == 0 || !from.After(time.Unix(0, 0)) {
		return time.Time{}
	}
	return from
}
