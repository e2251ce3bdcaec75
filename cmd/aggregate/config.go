package main

import (
	"fmt"
	"os"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/bus/kafka"
	"github.com/morphogenetic/oona/internal/worker"
	"github.com/morphogenetic/oona/pipeline/aggregate"
	"github.com/morphogenetic/oona/windows"
)

// config is all that the aggregator can be told.
type config struct {
	worker.Config

	Bus       kafka.Config         `embed:"" group:"Bus"`
	Prefix    string               `group:"Bus" placeholder:"PREFIX" help:"What topic names begin with."`
	Group     string               `group:"Bus" placeholder:"NAME" help:"Consumer group: its members share the partitions."`
	Instance  string               `name:"group-instance" group:"Bus" placeholder:"ID" help:"Static membership: a worker that restarts under this name within the session timeout keeps its partitions. Unique in the group: of two workers with one, the first ends with an error. Empty: none."`
	FromHere  bool                 `name:"from-here" group:"Bus" help:"Begin anew with what the log holds, where its beginning is lost and the group's commit is too, or needs it, or where its end is lost that the commit is of. Nothing is emitted before the first window after one max-delay of the log; frames until then go to the late topic (lost-history). Other partitions are not changed by it."`
	Skip      []aggregate.RecordAt `name:"skip-record" group:"Bus" placeholder:"PARTITION:OFFSET" help:"A configuration in the log that is damaged: it goes to the dead letters, and changes nothing. Give it to all aggregators, and never for one that a later version of Oona has written."`
	WorkerID  string               `name:"worker" group:"Bus" placeholder:"ID" help:"This worker's name in ticks; empty: the host's name."`
	Catalogue string               `placeholder:"FILE" help:"YAML file of metrics: groups, units, directions, over the first built-in catalogue; empty: that catalogue. It is for logs that name no catalogue; others are folded with the one that they name."`
	Windows   windows.Config       `embed:"" group:"Windows"`
}

func defaults() *config {
	return &config{
		Config:  worker.Config{AdminAddress: "127.0.0.1:9102"},
		Prefix:  oona.DefaultPrefix,
		Group:   aggregate.DefaultGroup,
		Windows: windows.DefaultConfig(),
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
	if err := c.group().Validate(c.Bus); err != nil {
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

// group is how the aggregator joins its group, but for where a partition starts.
func (c *config) group() kafka.MemberOptions {
	return kafka.MemberOptions{Group: c.Group, Instance: c.Instance}
}
