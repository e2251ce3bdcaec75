package main

import (
	"context"
	"fmt"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/internal/bus"
)

type topicsCommand struct {
	Bus        bus.Config `embed:"" group:"Bus"`
	Prefix     string     `group:"Bus" placeholder:"PREFIX" help:"What topic names begin with."`
	Partitions int32      `group:"Bus" help:"Partitions of the topics that need them."`

	Apply applyTopics `cmd:"" help:"Make the topics that are missing and mend the configuration of the others. Partitions are never changed."`
	Check checkTopics `cmd:"" help:"Say what is wrong with the topics, and how to mend it; the exit status is 1 where something is."`
}

type (
	applyTopics struct{}
	checkTopics struct{}
)

func defaultTopics() topicsCommand {
	return topicsCommand{Prefix: oona.DefaultPrefix, Partitions: 12}
}

func (c *topicsCommand) specs() ([]oona.TopicSpec, error) {
	topics, err := oona.NewTopics(c.Prefix)
	if err != nil {
		return nil, err
	}
	if c.Partitions < 1 {
		return nil, &oona.FieldError{Field: "--partitions", Reason: fmt.Sprintf("is %d; give at least 1", c.Partitions)}
	}
	return topics.Specs(c.Partitions), nil
}

func (applyTopics) Run(ctx context.Context, c *grammar, to streams) error {
	specs, err := c.Topics.specs()
	if err != nil {
		return err
	}
	changes, err := bus.ApplyTopics(ctx, c.Topics.Bus, specs)
	for _, change := range changes {
		fmt.Fprintln(to.out, change)
	}
	if err != nil {
		return err
	}
	fmt.Fprintf(to.out, "%d topics are as they must be.\n", len(specs))
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
