package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"

	"github.com/alecthomas/kong"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/internal/bus"
	"github.com/morphogenetic/oona/internal/worker"
	"github.com/morphogenetic/oona/pipeline/aggregate"
	"github.com/morphogenetic/oona/windows"
)

type topicsCommand struct {
	Bus        bus.Config `embed:"" group:"Bus"`
	Prefix     string     `group:"Bus" placeholder:"PREFIX" help:"What topic names begin with."`
	Partitions int32      `group:"Bus" help:"Partitions of the topics that need them. Without this flag, check takes any number that these topics agree in."`

	MaxMessageBytes int `group:"Bus" help:"The greatest --max-message-bytes of any ingest: the topic of frames must take as much."`

	Apply applyTopics `cmd:"" help:"Make the topics that are missing and correct the configuration of the others. It returns when every broker knows them. Partitions are never changed, nor the windows of those that are not empty: where they differ from the settings that are given, it says so and exits with 1."`
	Check checkTopics `cmd:"" help:"Say what is wrong with the topics, and what to do about it; the exit status is 1 if anything is. All brokers are asked, and a fault counts if all of them report it for three seconds."`
}

type (
	applyTopics struct {
		Group string `group:"Bus" placeholder:"NAME" help:"Consumer group of the aggregators, whose commits tell the windows of partitions that are not empty."`

		Windows windows.Config `embed:"" group:"Windows of empty partitions"`
		Memory  memoryFlags    `embed:"" group:"Windows of empty partitions"`
	}
	checkTopics struct{}
)

func defaultTopics() topicsCommand {
	return topicsCommand{Prefix: oona.DefaultPrefix, Partitions: 12, MaxMessageBytes: oona.DefaultRecordBytes, Apply: applyTopics{Group: aggregate.DefaultGroup, Windows: windows.DefaultConfig()}}
}

// Validate is called once flags, environment and file are read.
func (a *applyTopics) Validate() error {
	return worker.NameFlag(a.Windows, aggregate.CheckWindows(a.Windows))
}

// Validate is called once flags, environment and file are read.
func (c *topicsCommand) Validate() error {
	if c.Partitions < 1 {
		return &oona.FieldError{Field: "--partitions", Reason: fmt.Sprintf("is %d; give at least 1", c.Partitions)}
	}
	if c.MaxMessageBytes < 1 {
		return &oona.FieldError{Field: "--max-message-bytes", Reason: fmt.Sprintf("is %d; give that of ingest", c.MaxMessageBytes)}
	}
	return nil
}

// specs lists the topics that there must be, with so many partitions; 0: any
// number.
func (c *topicsCommand) specs(partitions int32) ([]oona.TopicSpec, error) {
	topics, err := oona.NewTopics(c.Prefix)
	if err != nil {
		return nil, err
	}
	specs := append(topics.Specs(partitions), topics.RawSpecs(partitions)...)
	for i := range specs {
		if specs[i].Name == topics.SeedMetrics {
			specs[i].LeastMessageBytes = c.MaxMessageBytes
		}
	}
	return specs, nil
}

func (a *applyTopics) Run(ctx context.Context, c *grammar, command *kong.Context, to streams, logger *slog.Logger) error {
	specs, err := c.Topics.specs(c.Topics.Partitions)
	if err != nil {
		return err
	}
	set := given(command)
	if a.Windows, err = a.Memory.cap(a.Windows, int(c.Topics.Partitions), set); err != nil {
		return err
	}
	changes, err := bus.ApplyTopics(ctx, c.Topics.Bus, specs)
	for _, change := range changes {
		fmt.Fprintln(to.out, change)
	}
	if err != nil {
		return err
	}
	if set["memory-limit"] {
		set["max-accumulators"], set["max-timeline-accumulators"] = true, true
	}
	if err := a.configure(ctx, &c.Topics, set, to, logger); err != nil {
		return err
	}
	fmt.Fprintf(to.out, "%d topics are as they must be.\n", len(specs))
	return nil
}

// configure writes the first configuration into those partitions of the
// seed-metrics topic that never had a record. A record that comes between makes
// it void, as it is of a time long past: then the aggregators' own settings
// hold. The others it leaves as they are, and returns an error where they are not
// as the settings say that are given.
func (a *applyTopics) configure(ctx context.Context, c *topicsCommand, given map[string]bool, to streams, logger *slog.Logger) error {
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
	if len(empty) > 0 {
		slices.Sort(empty)
		first := windows.Configuration{Config: a.Windows}
		first.Config.Generation = 1
		if err := writeConfiguration(c.Bus, topics.SeedMetrics, empty, first); err != nil {
			return err
		}
		fmt.Fprintf(to.out, "%s: generation 1 of the windows is the first record of %d partitions, with room for %d layers' windows each\n", topics.SeedMetrics, len(empty), a.Windows.MaxAccumulators)
	}
	asked := slices.ContainsFunc(settingsOf(a.Windows), func(s setting) bool { return given[s.name] })
	if len(empty) == len(ends[topics.SeedMetrics]) || !asked {
		return nil
	}
	return a.compare(ctx, &windowsCommand{Bus: c.Bus, Prefix: c.Prefix, Group: a.Group}, given, to, logger)
}

var errOtherWindows = errors.New("the windows of partitions that are not empty stay as they are; to change them: oona windows apply, with the same settings and --from")

// compare says where windows are not as the settings say that are given. It reads
// the log only where a partition has no commit.
func (a *applyTopics) compare(ctx context.Context, log *windowsCommand, given map[string]bool, to streams, logger *slog.Logger) (err error) {
	h, topic, err := log.open(ctx, logger)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, h.close()) }()
	if slices.ContainsFunc(h.partitions, func(p *partitionHistory) bool { return p.committed.Offset == oona.NoOffset }) {
		if err := log.readOn(ctx, h, topic); err != nil {
			return err
		}
	}
	differ := false
	for _, p := range h.partitions {
		held := p.engine.Config()
		changes := differences(held, merge(held, a.Windows, given))
		switch {
		case p.unknown != "":
			fmt.Fprintf(to.messages, "partition %d: what holds there is not known: %s\n", p.partition, p.unknown)
			differ = true
		case len(changes) > 0:
			fmt.Fprintf(to.messages, "partition %d has generation %d, which stays. Asked for was %s\n", p.partition, held.Generation, strings.Join(changes, ", "))
			differ = true
		}
	}
	if differ {
		return errOtherWindows
	}
	return nil
}

func (checkTopics) Run(ctx context.Context, c *grammar, command *kong.Context, to streams) error {
	partitions := c.Topics.Partitions
	if !given(command)["partitions"] {
		partitions = 0
	}
	specs, err := c.Topics.specs(partitions)
	if err != nil {
		return err
	}
	if err := bus.CheckTopics(ctx, c.Topics.Bus, specs); err != nil {
		return err
	}
	fmt.Fprintf(to.out, "%d topics are as they must be.\n", len(specs))
	return nil
}
