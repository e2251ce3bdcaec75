package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/bus"
	"github.com/morphogenetic/oona/bus/kafka"
	"github.com/morphogenetic/oona/internal/watch"
	"github.com/morphogenetic/oona/replay/manifest"
	"github.com/morphogenetic/oona/replay/whatif"
	"github.com/morphogenetic/oona/schemas/avro"
)

type replayPublish struct {
	Publish     bool   `env:"-" group:"Rollups" help:"With --aggregate: publish the rollups to the rollup topics of --prefix, which must not be the prefix of the frames. That is given by the SOURCE, or by OONA_PREFIX. What the topics have of the same replay is not published again. Nothing is compared."`
	Create      bool   `env:"-" group:"Rollups" help:"With --publish: create the rollup topics if they do not exist."`
	OpenMetrics string `name:"openmetrics" env:"-" group:"Rollups" placeholder:"FILE" help:"With --aggregate: write the rollups as OpenMetrics text, for promtool tsdb create-blocks-from openmetrics. Nothing is compared."`
	DryRun      bool   `env:"-" group:"Result" help:"Only print what would be read, and about how much that is. With --publish: fold, and print what would be published."`
	Yes         bool   `env:"-" group:"Result" help:"With --publish: do not ask for confirmation. With --to-topic: send even to a topic that belongs to Oona, whose workers or readers then take the records as new ones."`
}

// check returns an error if flags do not fit together.
func (p *replayPublish) check(aggregate, lines, parquet, avro bool) error {
	n := 0
	for _, given := range []bool{lines && aggregate, parquet && aggregate, avro && aggregate, p.Publish, p.OpenMetrics != ""} {
		if given {
			n++
		}
	}
	switch {
	case n > 1:
		return errors.New("with --aggregate, --lines, --parquet, --avro, --publish and --openmetrics exclude each other")
	case (p.Publish || p.OpenMetrics != "") && !aggregate:
		return errors.New("--publish and --openmetrics need --aggregate")
	case !p.Publish && p.Create:
		return errors.New("--create needs --publish")
	}
	return nil
}

// framesPrefix returns the prefix of the frames. With --publish, --prefix is that of the
// rollups.
func (c *replayCommand) framesPrefix(sources []string) (string, error) {
	if !c.Run.Out.Publish {
		return c.Prefix, nil
	}
	known, err := oona.NewTopics(oona.DefaultPrefix)
	if err != nil {
		return "", err
	}
	suffix := strings.TrimPrefix(known.SeedMetrics, oona.DefaultPrefix)
	names := sources
	if len(sources) > 0 && isDirectory(sources[0]) {
		m, err := manifest.Read(sources[0])
		if err != nil {
			return "", err
		}
		names = nil
		for _, t := range m.Topics {
			names = append(names, t.Name)
		}
	}
	prefix := oona.DefaultPrefix
	if v := os.Getenv("OONA_PREFIX"); v != "" {
		prefix = v
	}
	for _, name := range names {
		if p, found := strings.CutSuffix(name, suffix); found {
			prefix = p
		}
	}
	if prefix == c.Prefix {
		return "", fmt.Errorf("%w: both have the prefix %s; give --prefix P, which is that of the rollups", errOwnTopics, prefix)
	}
	return prefix, nil
}

// errOwnTopics is returned if rollups would go to the topics of the aggregators.
var errOwnTopics = errors.New("a replay does not publish to the log's own rollup topics")

// sink is where rollups go.
type sink interface {
	Rollup(partition int32, r *oona.Rollup) error
	// Close is called when all rollups were given, and Abort after an error.
	Close() error
	Abort() error
	// results returns where the results are printed.
	results(to streams) io.Writer
}

// sink returns where the rollups go that are asked for. It is nil if nowhere.
func (r *replayRun) sink(ctx context.Context, job *replaying, partitions int, to streams) (sink, error) {
	switch {
	case r.Lines:
		return &rollupLines{json.NewEncoder(to.out)}, nil
	case r.Parquet.Parquet != "":
		return r.rollupTables(ctx, job)
	case r.Avro.Avro != "":
		return r.rollupRecords(ctx, job)
	case r.Out.OpenMetrics != "":
		return openOpenMetrics(r.Out.OpenMetrics, job.Prefix)
	case r.Out.Publish:
		return r.publication(ctx, job, partitions, to)
	}
	return nil, nil
}

// publishing publishes rollups.
type publishing struct {
	*whatif.Publication
	ctx       context.Context
	publisher bus.PinnedPublisher
	prefix    string
	to        streams
}

// publication asks for confirmation, and begins to publish.
func (r *replayRun) publication(ctx context.Context, job *replaying, partitions int, to streams) (sink, error) {
	topics, err := oona.NewTopics(job.Prefix)
	if err != nil {
		return nil, err
	}
	b := job.bus
	if b == nil {
		b = kafka.New(job.Bus, job.logger)
	}
	p := &publishing{Publication: &whatif.Publication{Topics: topics, DryRun: r.Out.DryRun}, ctx: ctx, prefix: job.Prefix, to: to}
	if !r.Out.DryRun {
		if err := confirm(to, r.Out.Yes, fmt.Sprintf("Publish rollups of %s to %s and %s?", job.topics.SeedMetrics, topics.LayerHealth, topics.LayerPerformance)); err != nil {
			return nil, err
		}
	}
	if r.Out.Create && !r.Out.DryRun {
		if err := createRollupTopics(ctx, b, topics, int32(partitions), to); err != nil {
			return nil, err
		}
	}
	switch err = p.Begin(ctx, b, partitions); {
	case errors.Is(err, bus.ErrNoTopic) && r.Out.Create && r.Out.DryRun:
		fmt.Fprintf(to.messages, "%s and %s do not exist, and would be created\n", topics.LayerHealth, topics.LayerPerformance)
		p.Empty(partitions)
	case errors.Is(err, bus.ErrNoTopic):
		return nil, fmt.Errorf("%w; give --create, or run oona topics apply --prefix %s --partitions %d", err, job.Prefix, partitions)
	case errors.Is(err, bus.ErrPartitions):
		return nil, fmt.Errorf("the rollups of a partition go to the partition of the same number: %w; give another --prefix", err)
	case err != nil:
		return nil, err
	}
	if !r.Out.DryRun {
		if p.publisher, err = b.Publisher(bus.RollupOptions()); err != nil {
			return nil, err
		}
		p.Publisher = p.publisher
	}
	return p, nil
}

func createRollupTopics(ctx context.Context, b bus.Bus, topics oona.Topics, partitions int32, to streams) error {
	var specs []oona.TopicSpec
	for _, spec := range topics.Specs(partitions) {
		if spec.Name == topics.LayerHealth || spec.Name == topics.LayerPerformance {
			spec.PartitionsOf = ""
			specs = append(specs, spec)
		}
	}
	changes, err := b.Apply(ctx, specs)
	for _, change := range changes {
		fmt.Fprintln(to.messages, change)
	}
	return err
}

func (p *publishing) Rollup(partition int32, r *oona.Rollup) error {
	return p.Publication.Rollup(p.ctx, partition, r)
}

// Close publishes what waits, and says what was done.
func (p *publishing) Close() error {
	if err := p.End(p.ctx); err != nil {
		return errors.Join(err, p.Abort())
	}
	done := "were published to"
	if p.DryRun {
		done = "would be published to"
	}
	fmt.Fprintf(p.to.messages, "%d rollups %s the topics of prefix %s; they had %d already\n", p.Published, done, p.prefix, p.Present)
	return p.Abort()
}

// Abort closes the publisher. What was published stays.
func (p *publishing) Abort() error {
	if p.publisher == nil {
		return nil
	}
	return p.publisher.Close()
}

func (p *publishing) results(to streams) io.Writer { return to.out }

// rollupsTo gives the rollups that the engine of the aggregators emits to a sink.
func rollupsTo(out sink, topics oona.Topics) func(string, int32, *message.Message) error {
	return func(topic string, partition int32, msg *message.Message) error {
		if topics.Schema(topic) != oona.RollupSchema {
			return nil
		}
		var r oona.Rollup
		if _, err := avro.DecodeRollup(msg.Payload, &r); err != nil {
			return fmt.Errorf("read back an emitted rollup: %w", err)
		}
		return out.Rollup(partition, &r)
	}
}

// rollupLines prints rollups as JSON lines.
type rollupLines struct{ out *json.Encoder }

func (l *rollupLines) Rollup(partition int32, r *oona.Rollup) error {
	line := struct {
		Kind      string `json:"kind"`
		Partition int32  `json:"partition"`
		Rollup    any    `json:"rollup"`
	}{"rollup", partition, watch.RollupJSON(r)}
	if err := l.out.Encode(line); err != nil {
		return fmt.Errorf("write a rollup: %w", err)
	}
	return nil
}

func (*rollupLines) Close() error                 { return nil }
func (*rollupLines) Abort() error                 { return nil }
func (*rollupLines) results(to streams) io.Writer { return to.messages }
