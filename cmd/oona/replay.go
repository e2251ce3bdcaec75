package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/alecthomas/kong"
	"github.com/alecthomas/units"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/bus"
	"github.com/morphogenetic/oona/bus/kafka"
	"github.com/morphogenetic/oona/claimcheck"
	"github.com/morphogenetic/oona/internal/catalogue"
	"github.com/morphogenetic/oona/internal/settings"
	"github.com/morphogenetic/oona/internal/size"
	"github.com/morphogenetic/oona/pipeline/aggregate"
	"github.com/morphogenetic/oona/replay"
	"github.com/morphogenetic/oona/replay/archive"
	"github.com/morphogenetic/oona/replay/manifest"
	"github.com/morphogenetic/oona/windows"
)

type replayCommand struct {
	Bus    kafka.Config `embed:"" group:"Bus"`
	Prefix string       `group:"Bus" placeholder:"PREFIX" help:"Prefix of topic names."`
	Group  string       `group:"Bus" placeholder:"NAME" help:"Consumer group of the aggregators. If the log has lost its beginning, folding starts from its commits."`

	Run    replayRun    `cmd:"" default:"withargs" help:"Read a range of topics again: write an archive of it, or compute its rollups again."`
	Verify replayVerify `cmd:"" help:"Read an archive, and compare it with its manifest and with the log."`
}

// Help is shown by oona replay --help.
func (*replayCommand) Help() string {
	return "oona replay alone is oona replay run. What it can do, and all of its flags, are shown by: oona replay run --help"
}

func defaultReplay() replayCommand {
	return replayCommand{Prefix: oona.DefaultPrefix, Group: aggregate.DefaultGroup, Run: replayRun{FileSize: 256 << 20, Tensors: replayResolve{Store: claimcheck.DefaultConfig()}, Windows: windows.DefaultConfig()}}
}

type replayRun struct {
	Source     []string         `arg:"" optional:"" help:"Topics or addresses; or the directory of an archive, with or without topics in it. Default: the frames and both topics of rollups, or all of the archive."`
	From       bound            `env:"-" default:"beginning" placeholder:"beginning|TIME|OFFSET" help:"Where to begin, in each partition: beginning, a time such as 2026-11-27T18:00:00Z, a duration ago such as 2h, or offset:N."`
	Until      bound            `env:"-" default:"now" placeholder:"now|TIME|OFFSET" help:"Where to end, in each partition, not included."`
	Partition  []int32          `env:"-" placeholder:"N" help:"Only these partitions. Default: all."`
	Archive    string           `env:"-" group:"What to do" placeholder:"DIR" help:"Write an exact archive. If the directory has one already, it is continued."`
	Avro       replayAvro       `embed:""`
	Parquet    replayParquet    `embed:""`
	Lines      bool             `env:"-" group:"What to do" help:"Print each record as a line of JSON, as oona watch --json does. With --aggregate: print the rollups in this way, and the results on standard error; nothing is compared."`
	Send       replaySend       `embed:""`
	Aggregate  bool             `env:"-" group:"What to do" help:"Compute the rollups of the frames again, and compare them with those on the topics, byte for byte. The exit status is 1 if they differ."`
	JSON       bool             `name:"json" env:"-" group:"Result" help:"Print the result as JSON."`
	NoProgress bool             `env:"-" group:"Result" help:"Do not show the progress of the replay on the terminal."`
	Select     replaySelection  `embed:"" group:"Selection"`
	Codec      string           `env:"-" group:"Archive" default:"null" enum:"null,deflate,snappy" placeholder:"null|deflate|snappy" help:"Compression of the archive's blocks."`
	FileSize   units.Base2Bytes `env:"-" group:"Archive" placeholder:"SIZE" help:"Size from which a file of the archive, or of --avro, is ended and the next one begun; of --avro, before compression."`
	What       replayWhatIf     `embed:""`
	Out        replayPublish    `embed:""`
	Tensors    replayResolve    `embed:""`
	Snapshot   bool             `env:"-" group:"Archive" negatable:"" default:"true" help:"Fold the frames on the way, so that the archive can be folded again from where it begins. Without it, only later windows can be computed from an archive that does not begin at the beginning of the log."`
	Catalogue  string           `group:"Windows" placeholder:"FILE" help:"YAML file of metrics that the aggregators have. It is used only for logs that do not name a catalogue."`
	Windows    windows.Config   `embed:"" group:"Windows"`
}

// action is something that a replay can do.
type action struct {
	flag  string
	given bool
	run   func(ctx context.Context, job *replaying, to streams) error
	// narrows says that the selection applies.
	narrows bool
}

func (r *replayRun) actions() []action {
	return []action{
		{"--archive DIR", r.Archive != "", r.archive, false},
		{"--avro DIR", r.Avro.Avro != "" && !r.Aggregate, r.avro, true},
		{"--parquet DIR", r.Parquet.Parquet != "" && !r.Aggregate, r.parquet, true},
		{"--lines", r.Lines && !r.Aggregate, r.lines, true},
		{"--to-topic TOPIC", r.Send.ToTopic != "", r.send, true},
		{"--aggregate", r.Aggregate, r.aggregate, false},
	}
}

// action returns what to do.
func (r *replayRun) action() (chosen action, err error) {
	var all, given []string
	for _, a := range r.actions() {
		all = append(all, a.flag)
		if a.given {
			given, chosen = append(given, a.flag), a
		}
	}
	switch {
	case len(given) == 0:
		err = fmt.Errorf("say what to do: %s", strings.Join(all, ", "))
	case len(given) > 1:
		err = fmt.Errorf("%s exclude each other; to do several things with a range, archive it (--archive DIR), and then replay the archive", strings.Join(given, " and "))
	case !chosen.narrows && !r.Select.isEmpty():
		err = fmt.Errorf("%s takes all records, so --run, --layer, --seed, --metric and --state are not for it", chosen.flag)
	}
	return chosen, err
}

// Validate is called by kong when flags, environment and file have been read.
func (r *replayRun) Validate() error {
	if _, err := r.action(); err != nil {
		return err
	}
	switch {
	case r.Until.isBefore(r.From, time.Now()):
		return fmt.Errorf("--until %s is before --from %s; exchange them", r.Until.text, r.From.text)
	case r.Tensors.Resolve && (r.Parquet.Parquet == "" && r.Avro.Avro == "" || r.Aggregate):
		return errNoFolder
	case r.Parquet.RowGroupRows < 1:
		return fmt.Errorf("--row-group-rows is %d; give a number of rows such as 128000", r.Parquet.RowGroupRows)
	case r.FileSize < 1:
		return fmt.Errorf("--file-size is %s; give a size such as 256MiB", size.Text(r.FileSize))
	case r.Out.Yes && !r.Out.Publish && r.Send.ToTopic == "":
		return errors.New("--yes needs --publish or --to-topic")
	case (len(r.Send.ToBrokers) > 0 || r.Send.SamePartition) && r.Send.ToTopic == "":
		return errors.New("--to-brokers and --same-partition need --to-topic")
	case r.JSON && r.Lines && !r.Aggregate:
		return errors.New("--json is for a result, and --lines prints JSON anyway")
	}
	return errors.Join(r.What.check(r.Aggregate), r.Out.check(r.Aggregate, r.Lines, r.Parquet.Parquet != "", r.Avro.Avro != ""))
}

// replaying is a replay that runs.
type replaying struct {
	*replayCommand
	log      replay.Log
	bus      *kafka.Bus         // nil: the log is an archive
	held     *archive.Directory // nil: the log is a bus
	topics   oona.Topics
	sources  []string
	commits  []bus.Commit
	out      io.Writer
	messages io.Writer
	logger   *slog.Logger
}

// open finds out what the sources are.
func (c *replayCommand) open(ctx context.Context, sources []string, to streams, logger *slog.Logger) (*replaying, error) {
	prefix, err := c.framesPrefix(sources)
	if err != nil {
		return nil, err
	}
	topics, err := oona.NewTopics(prefix)
	if err != nil {
		return nil, err
	}
	r := &replaying{replayCommand: c, topics: topics, out: to.out, messages: to.messages, logger: logger}
	if len(sources) > 0 && isDirectory(sources[0]) {
		return r, r.openArchive(sources[0], sources[1:])
	}
	r.bus = kafka.New(c.Bus, logger)
	r.log = r.bus
	for _, s := range sources {
		topic, err := topicOf(topics, s)
		if err != nil {
			return nil, err
		}
		r.sources = append(r.sources, topic)
	}
	if len(sources) == 0 {
		r.sources = []string{topics.SeedMetrics, topics.LayerHealth, topics.LayerPerformance}
	}
	if c.Group != "" {
		r.commits, err = r.bus.Commits(ctx, c.Group, topics.SeedMetrics)
		if errors.Is(err, bus.ErrNoTopic) { // the prefix has only rollups; those who need frames see it
			err = nil
		}
	}
	return r, err
}

// errNotAnArchive is returned for a source that a replay has written in another form.
var errNotAnArchive = errors.New("only an exact archive can be replayed")

// openArchive opens an archive, and some of its topics; none: all.
func (r *replaying) openArchive(dir string, only []string) (err error) {
	if r.held, err = archive.OpenDirectory(dir); err != nil {
		return err
	}
	if form := r.held.Manifest.Form; form != archiveForm {
		return fmt.Errorf("%s is of form %s, and %w; give the archive that it was made from, or topics of the bus, and write an archive with oona replay --archive DIR", dir, form, errNotAnArchive)
	}
	r.log = r.held
	for _, s := range only {
		topic, err := topicOf(r.topics, s)
		if err == nil && r.held.Manifest.Topic(topic) == nil {
			err = fmt.Errorf("%s: %s: %w", dir, topic, bus.ErrNoTopic)
		}
		if err != nil {
			return err
		}
		r.sources = append(r.sources, topic)
	}
	if len(only) == 0 {
		for _, t := range r.held.Manifest.Topics {
			r.sources = append(r.sources, t.Name)
		}
	}
	return nil
}

// topicOf returns the topic of a source.
func topicOf(topics oona.Topics, source string) (string, error) {
	address, err := topics.ParseAddress(source)
	switch {
	case err != nil && !strings.Contains(source, "/"):
		return source, nil // another topic, for example of events
	case err != nil:
		return "", err
	case address.Layer != "" || address.Seed != oona.AnySeed:
		return "", &oona.FieldError{Field: "SOURCE", Reason: fmt.Sprintf("%s is for one layer or seed; give %s with --layer and --seed", source, address.Topic)}
	}
	return address.Topic, nil
}

func isDirectory(name string) bool {
	info, err := os.Stat(name)
	return err == nil && info.IsDir()
}

// folder returns what folds the frames. Catalogues that it needs are kept in m.
func (r *replaying) folder(ctx context.Context, m *manifest.Manifest) (*aggregate.Folder, error) {
	settle := r.Run.Windows
	if r.held != nil && len(r.held.Manifest.Windows) > 0 {
		if err := json.Unmarshal(r.held.Manifest.Windows, &settle); err != nil {
			return nil, fmt.Errorf("the windows in the manifest: %w", err)
		}
	}
	cfg := aggregate.Config{Worker: "oona-replay", Topics: r.topics, Windows: settle, Limits: oona.DefaultFrameLimits}
	return aggregate.NewFolder(cfg, r.find(ctx).ForEngine(m), r.logger)
}

// find returns the catalogues of the log.
func (r *replaying) find(ctx context.Context) replay.Find {
	if r.held != nil {
		return replay.FindIn(r.held.Manifest)
	}
	shared := settings.NewCatalogues(r.bus, r.topics, r.logger)
	return func(hash oona.CatalogueHash) (*catalogue.Catalogue, error) {
		if hash != (oona.CatalogueHash{}) {
			return shared.Find(ctx, hash)
		}
		first, _, err := catalogue.BuiltIn(hash)
		if err != nil {
			return nil, err
		}
		return first.Overlay(r.Run.Catalogue)
	}
}

// Run replays.
func (r *replayRun) Run(ctx context.Context, c *grammar, command *kong.Context, to streams, logger *slog.Logger) error {
	chosen, err := r.action()
	if err != nil {
		return err
	}
	job, err := c.Replay.open(ctx, r.Source, to, logger)
	if err != nil {
		return c.Replay.orDirectory(err)
	}
	return c.Replay.orDirectory(r.run(ctx, job, chosen, command, to))
}

// errNoFrames is returned if --aggregate is given a topic without frames.
var errNoFrames = errors.New("--aggregate folds the frames of the topic")

// orDirectory adds to an error that SOURCE may have been meant as a directory.
func (c *replayCommand) orDirectory(err error) error {
	if len(c.Run.Source) == 0 || isDirectory(c.Run.Source[0]) {
		return err
	}
	source := c.Run.Source[0]
	topics, wrong := oona.NewTopics(c.Prefix)
	if wrong != nil {
		return err
	}
	if _, other := topics.ParseAddress(source); other == nil { // it has the form of one
		return err
	}
	if errors.Is(err, errNoFrames) {
		return fmt.Errorf("%w (there is no directory %s)", err, source)
	}
	_, field := errors.AsType[*oona.FieldError](err)
	if address := field && strings.Contains(source, "/"); !address && !errors.Is(err, bus.ErrNoTopic) && !errors.Is(err, bus.ErrUnreachable) {
		return err
	}
	return fmt.Errorf("%w (%s was taken for a topic or an address, as there is no directory of this name; if an archive is meant, check its path)", err, source)
}

func (r *replayRun) run(ctx context.Context, job *replaying, chosen action, command *kong.Context, to streams) error {
	if r.Aggregate && job.held == nil && !slices.Contains(job.sources, job.topics.SeedMetrics) {
		return fmt.Errorf("%w %s; give this topic or none, the directory of an archive, or another --prefix", errNoFrames, job.topics.SeedMetrics)
	}
	if r.Out.DryRun && !r.Out.Publish {
		return r.dryRun(ctx, job, to)
	}
	before, err := r.finished()
	if err != nil {
		return err
	}
	if r.What.asked() {
		err = r.whatIf(ctx, job, command, to)
	} else {
		err = chosen.run(ctx, job, to)
	}
	return r.ended(err, before)
}

// ranges returns the range of each partition of a topic.
func (r *replayRun) ranges(ctx context.Context, log replay.Log, topic string) ([]bus.Range, []bus.Extent, error) {
	extents, err := log.Extents(ctx, topic)
	if err != nil {
		return nil, nil, err
	}
	var all []bus.Range
	for p, held := range extents[topic] {
		if !r.wants(int32(p)) {
			continue
		}
		if kept, ok := log.(replay.Kept); ok {
			held.Start = kept.Asked(topic, int32(p))
		}
		from, err := r.From.offset(ctx, log, topic, int32(p), held, time.Now())
		if err != nil {
			return nil, nil, err
		}
		end, err := r.Until.offset(ctx, log, topic, int32(p), held, time.Now())
		if err != nil {
			return nil, nil, err
		}
		all = append(all, bus.Range{Partition: int32(p), From: from, End: max(from, end)})
	}
	return all, extents[topic], nil
}

func (r *replayRun) wants(partition int32) bool {
	return len(r.Partition) == 0 || slices.Contains(r.Partition, partition)
}
