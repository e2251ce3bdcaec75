package main

import (
	"context"
	"fmt"
	"slices"

	"github.com/alecthomas/kong"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/internal/bus"
	"github.com/morphogenetic/oona/internal/worker"
	"github.com/morphogenetic/oona/windows"
)

type topicsCommand struct {
	Bus        bus.Config `embed:"" group:"Bus"`
	Prefix     string     `group:"Bus" placeholder:"PREFIX" help:"What topic names begin with."`
	Partitions int32      `group:"Bus" help:"Partitions of the topics that need them."`

	Apply applyTopics `cmd:"" help:"Make the topics that are missing and mend the configuration of the others. Partitions are never changed."`
	Check checkTopics `cmd:"" help:"Say what is wrong with the topics, and how to mend it; the exit status is 1 where something is."`
}

type (
	applyTopics struct {
		Windows windows.Config `embed:"" group:"Windows of empty partitions"`
		Memory  memoryFlags    `embed:"" group:"Windows of empty partitions"`
	}
	checkTopics struct{}
)

func defaultTopics() topicsCommand {
	return topicsCommand{Prefix: oona.DefaultPrefix, Partitions: 12, Apply: applyTopics{Windows: windows.DefaultConfig()}}
}

// Validate is called once flags, environment and file are read.
func (a *applyTopics) Validate() error { return worker.NameFlag(a.Windows, a.Windows.Validate()) }

func (c *topicsCommand) specs() ([]oona.TopicSpec, error) {
	topics, err := oona.NewTopics(c.Prefix)
	if err != nil {
		return nil, err
	}
	if c.Partitions < 1 {
		return nil, &oona.FieldError{Field: "--partitions", Reason: fmt.Sprintf("is %d; give at least 1", c.Partitions)}
	}
	return append(topics.Specs(c.Partitions), topics.RawSpecs(c.Partitions)...), nil
}

func (a *applyTopics) Run(ctx context.Context, c *grammar, command *kong.Context, to streams) error {
	specs, err := c.Topics.specs()
	if err != nil {
		return err
	}
	if a.Windows, err = a.Memory.cap(a.Windows, int(c.Topics.Partitions), given(command)); err != nil {
		return err
	}
	changes, err := bus.ApplyTopics(ctx, c.Topics.Bus, specs)
	for _, change := range changes {
		fmt.Fprintln(to.out, change)
	}
	if err != nil {
		return err
	}
	if err := a.configure(ctx, &c.Topics, to); err != nil {
		return err
	}
	fmt.Fprintf(to.out, "%d topics are as they must be.\n", len(specs))
	return nil
}

// configure writes the first configuration into those partitions of the
// seed-metrics topic that never had a record. A record that comes between makes
// it void, as it is of a time long past: then the aggregators' own settings
// hold.
func (a *applyTopics) configure(ctx context.Context, c *topicsCommand, to streams) error {
	topics, err := oona.NewTopics(c.Prefix)
	if err != nil {
		return err
	}
	ends, err := bus.HighWater(ctx, c.Bus, topics.SeedMetrics)
	if err != nil {
		return err
	}
	var empty []int32
	for partition, end := range ends[topics.SeedMetrics] {
		if end == 0 {
			empty = append(empty, partition)
		}
	}
	if len(empty) == 0 {
		return nil
	}
	slices.Sort(empty)
	first := windows.Configuration{Config: a.Windows}
	first.Config.Generation = 1
	if err := writeConfiguration(c.Bus, topics.SeedMetrics, empty, first); err != nil {
		return err
	}
	fmt.Fprintf(to.out, "%s: generation 1 of the windows is the first record of %d partitions, with room for %d layers' windows each\n", topics.SeedMetrics, len(empty), a.Windows.MaxAccumulators)
	return nil
}

func (checkTopics) Run(ctx context.Context, c *grammar, to streams) error {
	specs, err := c.Topics.specs()
	if err != nil {
		return err
	}
	if err := bus.CheckTopics(ctx, c.Topics.Bus, specs); err != nil {
		return err
	}
	fmt.Fprintf(to.out, "%d topics are as they must be.\n", len(specs))
	return nil
}
