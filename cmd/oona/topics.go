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
	"github.com/morphogenetic/oona/bus"
	"github.com/morphogenetic/oona/bus/kafka"
	"github.com/morphogenetic/oona/internal/history"
	"github.com/morphogenetic/oona/internal/settings"
	"github.com/morphogenetic/oona/internal/size"
	"github.com/morphogenetic/oona/internal/worker"
	"github.com/morphogenetic/oona/pipeline/aggregate"
	"github.com/morphogenetic/oona/windows"
)

type topicsCommand struct {
	Bus        kafka.Config `embed:"" group:"Bus"`
	Prefix     string       `group:"Bus" placeholder:"PREFIX" help:"Prefix of topic names."`
	Group      string       `group:"Bus" placeholder:"NAME" help:"Consumer group of the aggregators. Its commits say how far the logs were read and with which windows."`
	Partitions int32        `group:"Bus" help:"Number of partitions of the partitioned topics. Without this flag, apply keeps the number that the topic of frames has, and check accepts any number that is the same for all of them."`

	MaxMessageBytes int `type:"size" group:"Bus" help:"Largest --max-message-bytes of any ingest. The topic of frames must accept records of that size."`

	Apply applyTopics `cmd:"" help:"Create the topics that are missing and correct the configuration of the others. It returns when every broker knows them. An empty partition of the topic of frames gets its first records: the start of an incarnation and the configuration of the windows. Partitions are never changed, nor the windows of those that are not empty: where they differ from the settings that are given, it says so and exits with 1."`
	Check checkTopics `cmd:"" help:"Check the topics, and whether the logs, the rollups and the settings topic agree. For each fault, it says what to do. The exit status is 1 if there is a fault. It asks all brokers, and reports a fault if all of them report it for three seconds."`
}

type (
	applyTopics struct {
		NoCreate       bool   `env:"-" help:"Do not create or change topics. Only write the first records and the catalogue into existing topics."`
		NewIncarnation bool   `name:"new-incarnation" env:"-" help:"Start a new incarnation of the log in every partition that has records, even if nothing seems wrong. Use it when readers drop rollups because they take them for those of an earlier log (OonaLogMadeAgain). Versions of Oona without incarnations stop at it."`
		Catalogue      string `placeholder:"FILE" help:"YAML file of metrics (groups, units, directions) over the newest built-in catalogue. It is kept in the settings topic, and the configurations of empty partitions name it; the aggregators read it there. Also: the hash of a catalogue that is kept there, or built-in. Default: built-in."`

		Windows windows.Config `embed:"" group:"Windows of empty partitions"`
		Memory  memoryFlags    `embed:"" group:"Windows of empty partitions"`
	}
	checkTopics struct{}
)

func defaultTopics() topicsCommand {
	return topicsCommand{Prefix: oona.DefaultPrefix, Group: aggregate.DefaultGroup, Partitions: 12, MaxMessageBytes: oona.DefaultRecordBytes, Apply: applyTopics{Windows: windows.DefaultConfig()}}
}

// Validate is called by kong when flags, environment and file have been read.
func (a *applyTopics) Validate() error {
	return worker.NameFlag(a.Windows, aggregate.CheckWindows(a.Windows))
}

// Validate is called by kong when flags, environment and file have been read.
func (c *topicsCommand) Validate() error {
	if c.Partitions < 1 {
		return &oona.FieldError{Field: "--partitions", Reason: fmt.Sprintf("is %d; give at least 1", c.Partitions)}
	}
	if c.MaxMessageBytes < 1 {
		return &oona.FieldError{Field: "--max-message-bytes", Reason: fmt.Sprintf("is %s; give the --max-message-bytes of ingest", size.Text(c.MaxMessageBytes))}
	}
	return nil
}

// specs returns the topics that must exist. If partitions is 0, any number is right.
func (c *topicsCommand) specs(partitions int32) ([]oona.TopicSpec, error) {
	topics, err := oona.NewTopics(c.Prefix)
	if err != nil {
		return nil, err
	}
	specs := slices.Concat(topics.Specs(partitions), topics.RawSpecs(partitions), []oona.TopicSpec{topics.SettingsSpec(), topics.RedrivesSpec()}, topics.EventSpecs(partitions))
	for i := range specs {
		if specs[i].Name == topics.SeedMetrics {
			specs[i].LeastMessageBytes = c.MaxMessageBytes
		}
	}
	return specs, nil
}

func (a *applyTopics) Run(ctx context.Context, c *grammar, command *kong.Context, to streams, logger *slog.Logger) error {
	set := given(command)
	partitions := c.Topics.Partitions
	if a.NoCreate && !set["partitions"] {
		partitions = 0
	}
	if err := checkCatalogueFile(a.Catalogue); err != nil {
		return err
	}
	b := kafka.New(c.Topics.Bus, logger)
	specs, err := c.Topics.specs(partitions)
	if err != nil {
		return err
	}
	if !a.NoCreate {
		if partitions, err = c.Topics.fit(ctx, b, specs, set["partitions"]); err != nil {
			return err
		}
	}
	if err := a.cap(ctx, &c.Topics, partitions, set, logger); err != nil {
		return err
	}
	if err := a.make(ctx, b, specs, to); err != nil {
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

// fit gives the topics that must have as many partitions as the topic of frames its number,
// if it exists, so that those which are new fit. If no number is asked for, topics that
// exist keep theirs. It returns the number that the topic of frames has, or will have.
func (c *topicsCommand) fit(ctx context.Context, b bus.Bus, specs []oona.TopicSpec, asked bool) (int32, error) {
	topics, err := oona.NewTopics(c.Prefix)
	if err != nil {
		return 0, err
	}
	has, err := partitionsOf(ctx, b, topics.SeedMetrics, c.Partitions)
	if err != nil {
		return 0, err
	}
	raw := c.Partitions
	if !asked {
		if raw, err = partitionsOf(ctx, b, topics.SeedRaw, has); err != nil {
			return 0, err
		}
	}
	for i := range specs {
		switch s := &specs[i]; {
		case s.PartitionsOf == topics.SeedMetrics, s.AnyPartitions, !asked && s.Name == topics.SeedMetrics:
			s.Partitions = has
		case s.Name == topics.SeedRaw:
			s.Partitions = raw
		}
	}
	return has, nil
}

// partitionsOf returns how many partitions a topic has, or a number if it does not exist.
func partitionsOf(ctx context.Context, b bus.Bus, topic string, without int32) (int32, error) {
	extents, err := b.Extents(ctx, topic)
	if errors.Is(err, bus.ErrNoTopic) {
		return without, nil
	}
	return int32(len(extents[topic])), err
}

// cap sets the limits of accumulators that the memory limit allows. If partitions is 0,
// the topic exists, and its number of partitions counts.
func (a *applyTopics) cap(ctx context.Context, c *topicsCommand, partitions int32, given map[string]bool, logger *slog.Logger) (err error) {
	if partitions == 0 && a.Memory.Limit > 0 {
		topics, err := oona.NewTopics(c.Prefix)
		if err != nil {
			return err
		}
		extents, err := kafka.New(c.Bus, logger).Extents(ctx, topics.SeedMetrics)
		if err != nil {
			return err
		}
		partitions = int32(len(extents[topics.SeedMetrics]))
	}
	a.Windows, err = a.Memory.cap(a.Windows, int(partitions), given)
	return err
}

// make creates and corrects the topics. With --no-create, it only checks them.
func (a *applyTopics) make(ctx context.Context, b bus.Bus, specs []oona.TopicSpec, to streams) error {
	if a.NoCreate {
		limits, err := bus.WithoutLimits(b.Check(ctx, specs))
		for _, f := range limits {
			fmt.Fprintf(to.messages, "warning: %s %s; larger records of the topic will be lost, and counted\n", f.Topic, f.Fault)
		}
		return madeElsewhere(err)
	}
	changes, err := b.Apply(ctx, specs)
	for _, change := range changes {
		fmt.Fprintln(to.out, change)
	}
	return err
}

// madeElsewhere returns the error of Check with what to do where something else makes the
// topics: to run this command would not help.
func madeElsewhere(err error) error {
	wrong, ok := errors.AsType[*bus.TopicsError](err)
	if !ok {
		return err
	}
	for i := range wrong.Faults {
		switch f := &wrong.Faults[i]; f.Kind {
		case bus.FaultMissing:
			f.Remedy = "create it where your topics are made, or leave out --no-create"
		case bus.FaultSetting, bus.FaultSize, bus.FaultLimit, bus.FaultCopies:
			f.Remedy = "change it where your topics are made, or leave out --no-create"
		}
	}
	return err
}

// configure writes the first records of those partitions of the seed-metrics topic that
// never had a record: the start of an incarnation, and a configuration. If another
// record comes between the two, the configuration has no effect, and the aggregators'
// own settings hold. It does not change the windows of other partitions. It returns an
// error if they differ from the settings that were given.
func (a *applyTopics) configure(ctx context.Context, c *topicsCommand, given map[string]bool, to streams, logger *slog.Logger) error {
	topics, err := oona.NewTopics(c.Prefix)
	if err != nil {
		return err
	}
	b := kafka.New(c.Bus, logger)
	if err := a.resolve(ctx, b, topics, to, logger); err != nil {
		return err
	}
	first := windows.Configuration{Config: a.Windows}
	first.Config.Generation = 1
	written, err := settings.WriteFirst(ctx, b, topics, first.Record(), "oona topics apply", logger)
	if err != nil {
		return err
	}
	if len(written) > 0 {
		fmt.Fprintf(to.out, "%s: generation 1 of the windows is the first configuration (partitions: %d), with %d accumulators each, reducer %d and catalogue %s\n",
			topics.SeedMetrics, len(written), a.Windows.MaxAccumulators, a.Windows.Reducer, a.Windows.Catalogue)
	}
	log := &windowsCommand{Bus: c.Bus, Prefix: c.Prefix, Group: c.Group}
	if err := a.begin(ctx, log, written, to, logger); err != nil {
		return err
	}
	asked := given[catalogueSetting] || slices.ContainsFunc(settingsOf(a.Windows), func(s setting) bool { return given[s.name] })
	extents, err := b.Extents(ctx, topics.SeedMetrics)
	if err != nil || len(written) == len(extents[topics.SeedMetrics]) || !asked {
		return err
	}
	return a.compare(ctx, log, given, to, logger)
}

// begin begins a new incarnation of the log in those partitions whose rollups belong to
// another log or to a greater incarnation, as readers would drop new rollups. That
// happens when an older copy of the log was restored, or when the topic was made again
// and had records before `oona topics apply` wrote the first ones. With
// --new-incarnation, begin does so in all partitions except those that have just got
// their first records.
func (a *applyTopics) begin(ctx context.Context, log *windowsCommand, first []int32, to streams, logger *slog.Logger) error {
	reason := func(e *history.Examination, p *history.Partition) string {
		switch {
		case e.NeedsIncarnation(p):
			return "its rollups belong to another log, or have a greater incarnation or offset"
		case a.NewIncarnation && !slices.Contains(first, p.Number):
			return "--new-incarnation was given"
		}
		return ""
	}
	at, err := log.installation(logger)
	if err != nil {
		return err
	}
	e, err := history.Examine(ctx, at, func(e *history.Examination, p *history.Partition) bool { return reason(e, p) != "" })
	if err != nil {
		return err
	}
	for _, p := range e.History.Partitions {
		why := reason(e, p)
		if why == "" {
			continue
		}
		if err := e.BeginIncarnation(ctx, p, why); err != nil {
			return err
		}
		fmt.Fprintf(to.out, "%s: a new incarnation begins in partition %d: %s\n", e.History.Topic, p.Number, why)
		if p.Engine.Config().Generation == 0 {
			fmt.Fprintf(to.messages, "partition %d: its log has no configuration, so the aggregators' own settings hold. Write one with: oona windows apply --from TIME\n", p.Number)
		}
	}
	return nil
}

// resolve sets the reducer and the catalogue of the windows. It writes a catalogue that
// is not built in to the settings topic.
func (a *applyTopics) resolve(ctx context.Context, b bus.Bus, topics oona.Topics, to streams, logger *slog.Logger) error {
	kept, err := openShelf(ctx, b, topics, logger)
	if err != nil {
		return err
	}
	known, err := kept.find(a.Catalogue)
	if err != nil {
		return err
	}
	written, err := kept.keep(ctx, known)
	if err != nil {
		return err
	}
	if written {
		fmt.Fprintf(to.out, "%s: catalogue %s is written\n", topics.Settings, known.Hash())
	}
	a.Windows.Reducer, a.Windows.Catalogue = windows.Reducer, known.Hash()
	return nil
}

var errOtherWindows = errors.New("the windows of partitions that are not empty were not changed; to change them, run oona windows apply with the same settings and --from")

// compare returns an error if the windows of a partition differ from the settings that
// were given. It reads the log only if a partition has no commit.
func (a *applyTopics) compare(ctx context.Context, log *windowsCommand, given map[string]bool, to streams, logger *slog.Logger) error {
	h, err := log.open(ctx, logger)
	if err != nil {
		return err
	}
	if err := h.ReadUncommitted(ctx); err != nil {
		return err
	}
	differ := false
	for _, p := range h.Partitions {
		held := p.Engine.Config()
		changes := differences(held, merge(held, a.Windows, given))
		switch {
		case p.Unknown != nil:
			fmt.Fprintf(to.messages, "partition %d: it is not known which configuration holds: %s\n", p.Number, p.Unknown)
			differ = true
		case len(changes) > 0:
			fmt.Fprintf(to.messages, "partition %d keeps generation %d. The flags ask for %s\n", p.Number, held.Generation, strings.Join(changes, ", "))
			differ = true
		}
	}
	if differ {
		return errOtherWindows
	}
	return nil
}

func (checkTopics) Run(ctx context.Context, c *grammar, command *kong.Context, to streams, logger *slog.Logger) error {
	partitions := c.Topics.Partitions
	if !given(command)["partitions"] {
		partitions = 0
	}
	specs, err := c.Topics.specs(partitions)
	if err != nil {
		return err
	}
	topics, err := oona.NewTopics(c.Topics.Prefix)
	if err != nil {
		return err
	}
	b := kafka.New(c.Topics.Bus, logger)
	if err := b.Check(ctx, specs); err != nil {
		return err
	}
	notes, err := eventNotes(ctx, b, topics, nil) // there are no faults, but events may be deleted
	if err != nil {
		return err
	}
	for _, says := range notes {
		fmt.Fprintf(to.messages, "note: %s\n", says)
	}
	log := &windowsCommand{Bus: c.Topics.Bus, Prefix: c.Topics.Prefix, Group: c.Topics.Group}
	at, err := log.installation(logger)
	if err != nil {
		return err
	}
	misfits, err := history.Misfits(ctx, at, true)
	if err != nil {
		return err
	}
	for _, says := range misfits {
		fmt.Fprintln(to.messages, says)
	}
	if len(misfits) > 0 {
		return fmt.Errorf("%w: faults: %d", errMisfits, len(misfits))
	}
	fmt.Fprintf(to.out, "%d topics are as they must be.\n", len(specs))
	return nil
}

var errMisfits = errors.New("the topics do not agree with each other")
