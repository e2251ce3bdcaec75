package main

import (
	"errors"
	"fmt"
	"os"
	"reflect"
	"time"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/internal/bus"
	"github.com/morphogenetic/oona/internal/catalogue"
	"github.com/morphogenetic/oona/internal/worker"
	"github.com/morphogenetic/oona/windows"
)

// config is all that the aggregator can be told.
type config struct {
	worker.Config

	Bus       bus.Config  `embed:"" group:"Bus"`
	Prefix    string      `group:"Bus" placeholder:"PREFIX" help:"What topic names begin with."`
	Group     string      `group:"Bus" placeholder:"NAME" help:"Consumer group: its members share the partitions."`
	Instance  string      `name:"group-instance" group:"Bus" placeholder:"ID" help:"Static membership: a worker that restarts under this name within the session timeout keeps its partitions. Unique in the group; empty: none."`
	WorkerID  string      `name:"worker" group:"Bus" placeholder:"ID" help:"This worker's name in ticks; empty: the host's name."`
	Catalogue string      `placeholder:"FILE" help:"YAML file of metrics: groups, units, directions; empty: the built-in catalogue."`
	Windows   windowFlags `embed:"" group:"Windows"`
}

// windowFlags are windows.Config with names and help. All workers of a group
// must have the same.
type windowFlags struct {
	Length          time.Duration `name:"window-length" help:"Length of a window of event time."`
	OutOfOrderness  time.Duration `name:"out-of-orderness" help:"How far the frames of one producer may be out of order."`
	AllowedLateness time.Duration `name:"allowed-lateness" help:"How much longer a window stays open once the watermark has passed its end."`
	TickInterval    time.Duration `name:"tick-interval" help:"How often time is looked at, and how soon a quiet partition gets a tick."`
	IdleHorizon     time.Duration `name:"idle-horizon" help:"How long a producer must be silent before the others go on without it."`
	MaxSkew         time.Duration `name:"max-skew" help:"How far a frame may be ahead of its append time before it is quarantined."`
	MaxDelay        time.Duration `name:"max-delay" help:"How far a frame may be behind its append time before it is quarantined."`
	MaxTimelines    int           `name:"max-timelines" help:"Timelines (runs, or ranks that own layers) a partition."`

	MaxAccumulators         int `name:"max-accumulators" help:"Layers' windows that may be open in a partition; they bound its memory."`
	MaxTimelineAccumulators int `name:"max-timeline-accumulators" help:"Layers' windows that may be open in a timeline."`

	MaxLayers     int   `name:"max-layers" help:"Layers a window."`
	MaxMetrics    int   `name:"max-metrics" help:"Metrics a layer."`
	MaxSeeds      int   `name:"max-seeds" help:"Distinct seeds a layer and window."`
	FrontierSlots int   `name:"frontier-slots" help:"Hash slots for the producers of a timeline."`
	WorstSeeds    int   `name:"worst-seeds" help:"How many of the worst seeds a rollup names, for each metric."`
	Generation    int32 `kong:"-"`
}

func defaults() *config {
	return &config{
		Config:  worker.Config{AdminAddress: "127.0.0.1:9102"},
		Prefix:  oona.DefaultPrefix,
		Group:   "oona-aggregate",
		Windows: windowFlags(windows.DefaultConfig()),
	}
}

// Validate is called once flags, environment and file are read.
func (c *config) Validate() error {
	if c.WorkerID == "" {
		host, err := os.Hostname()
		if err != nil {
			return fmt.Errorf("the host has no name, give --worker: %w", err)
		}
		c.WorkerID = host
	}
	if err := oona.CheckID("--worker", c.WorkerID); err != nil {
		return err
	}
	if c.Group == "" {
		return &oona.FieldError{Field: "--group", Reason: "is empty; give the consumer group a name"}
	}
	if _, err := oona.NewTopics(c.Prefix); err != nil {
		return err
	}
	if _, err := catalogue.Open(c.Catalogue); err != nil {
		return err
	}
	return c.Windows.validate()
}

// validate names the flag of the field that is wrong.
func (w windowFlags) validate() error {
	err := windows.Config(w).Validate()
	if wrong, ok := errors.AsType[*oona.FieldError](err); ok {
		field, _ := reflect.TypeFor[windowFlags]().FieldByName(wrong.Field)
		return &oona.FieldError{Field: "--" + field.Tag.Get("name"), Reason: wrong.Reason}
	}
	return err
}
