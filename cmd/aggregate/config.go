package main

import (
	"fmt"
	"os"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/bus"
	"github.com/morphogenetic/oona/bus/kafka"
	"github.com/morphogenetic/oona/internal/worker"
	"github.com/morphogenetic/oona/pipeline/aggregate"
	"github.com/morphogenetic/oona/windows"
)

// config is the configuration of the aggregator.
type config struct {
	worker.Config

	Bus       kafka.Config         `embed:"" group:"Bus"`
	Group     string               `name:"group" group:"Bus" placeholder:"NAME" help:"Consumer group. Its members share the partitions."`
	Instance  string               `name:"group-instance" group:"Bus" placeholder:"ID" help:"Group instance ID for static membership: a worker that restarts with the same ID within the session timeout keeps its partitions. It must be unique in the group: if two workers use one ID, the first exits with an error. Default: dynamic membership."`
	FromHere  bool                 `name:"from-here" group:"Bus" help:"Recover partitions whose history is incomplete, because the beginning or the end of the log is lost: start from the oldest record left. Nothing is emitted before the first window after one max-delay of the log; earlier frames go to the late topic (lost-history). Other partitions are not affected."`
	Skip      []aggregate.RecordAt `name:"skip-record" group:"Bus" placeholder:"PARTITION:OFFSET" help:"Put a record of the log into the dead letters instead of folding it: a damaged configuration, or a frame that makes every version panic. Give all aggregators the same value. Never skip a record that a later version of Oona has written."`
	WorkerID  string               `name:"worker" group:"Bus" placeholder:"ID" help:"Name of this worker in ticks. Default: the host name."`
	Catalogue string               `placeholder:"FILE" help:"YAML file of metrics (groups, units, directions) that extends the first built-in catalogue. It is used only for logs that do not name a catalogue. Default: the first built-in catalogue."`
	Windows   windows.Config       `embed:"" group:"Windows"`
}

func defaults() *config {
	return &config{
		Config:  worker.Config{AdminAddress: "127.0.0.1:9102"},
		Group:   aggregate.DefaultGroup,
		Windows: windows.DefaultConfig(),
	}
}

// Validate is called by kong when flags, environment and file have been read.
func (c *config) Validate() error {
	if err := c.Bus.Security.Check(); err != nil {
		return err
	}
	if c.WorkerID == "" {
		host, err := os.Hostname()
		if err != nil {
			return fmt.Errorf("the name of this host cannot be read; give --worker: %w", err)
		}
		c.WorkerID = host
	}
	if err := oona.CheckID("--worker", c.WorkerID); err != nil {
		return err
	}
	if err := worker.NameFlag(*c, c.group().Validate()); err != nil {
		return err
	}
	if _, err := oona.NewTopics(c.Prefix); err != nil {
		return worker.AsFlag("--prefix", err)
	}
	if _, err := ownCatalogue(c.Catalogue); err != nil {
		return err
	}
	return worker.NameFlag(c.Windows, aggregate.CheckWindows(c.Windows))
}

// Warnings adds to those of all workers what is said of the connections to the bus.
func (c *config) Warnings() []*oona.FieldError {
	return append(c.Config.Warnings(), c.Bus.Security.Warnings()...)
}

// group returns how the aggregator joins its group.
func (c *config) group() bus.MemberOptions {
	return bus.MemberOptions{Group: c.Group, Instance: c.Instance}
}
