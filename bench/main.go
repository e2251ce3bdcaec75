// Command bench measures Oona, and describes the machine. It takes each figure once per
// round, so that other load on the machine affects all figures alike. Compare only
// figures of the same run.
//
//	go run ./bench                              the engine, and the embedded broker
//	go run ./bench --kafka HOST:PORT            also real brokers
//	go run ./bench --peers                      also other programs for the same purpose
//
// docs/performance.md explains the figures.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/alecthomas/kong"

	"github.com/morphogenetic/oona/bus/kafka"
	"github.com/morphogenetic/oona/bus/kafka/embedded"
)

type config struct {
	JSON     bool           `name:"json" help:"Print one JSON object instead of the table."`
	Rounds   int            `default:"5" help:"Number of rounds. Each figure is taken once per round."`
	Kafka    []string       `env:"OONA_BENCH_KAFKA" placeholder:"HOST:PORT" help:"Measure on these brokers, too. The bench creates its own topics there, and deletes them."`
	Security kafka.Security `embed:""`
	Peers    bool           `help:"Measure VictoriaMetrics, Telegraf and Kafka Streams on the same samples, too. The bench downloads and builds them."`
	Only     []string       `placeholder:"NAME" help:"Take only these figures: verdict, scrape, remote-write, fold, replay, memory, layers, archive, spool, drain, parquet, sustained, commits, latency, spool-drain, hostile, peers. hostile is taken only if it is named."`
	Layers   int            `default:"1024" help:"Number of layers. Each sends frames of 1,000 seeds by 8 metrics."`
	Steps    int            `default:"25" help:"Number of frames per layer, one second of event time apart."`

	Unmeasured float64  `hidden:"" help:"Share of the seeds without a measurement."`
	PublishTo  string   `hidden:"" help:"Publish the frames to this topic when a byte arrives on stdin, and exit."`
	FoldOf     string   `name:"fold-archive" hidden:"" help:"Fold this archive, print what it took, and exit."`
	IngestTo   string   `hidden:"" help:"Accept frames over HTTP for this topic until stdin is closed."`
	SpoolOf    string   `name:"ingest-spool" hidden:"" help:"Directory of a spool for --ingest-to."`
	IngestFor  string   `name:"ingest-access" hidden:"" help:"Access file of the clients of --ingest-to."`
	Hostile    []string `placeholder:"NAME" help:"With --only hostile: only these hostile clients."`
	Attack     string   `hidden:"" help:"Be this kind of hostile client until stdin is closed, and print how much was done."`
	AttackAt   string   `hidden:"" help:"Address of the ingest."`
	Token      string   `name:"attack-token" hidden:"" help:"Token of the hostile client."`
	ProduceTo  string   `hidden:"" help:"Produce records to this topic from the time on that stdin says, and exit."`

	ProduceRequest int `hidden:"" help:"Records that are due at one time, for --produce-to."`
	ProduceFrames  int `hidden:"" help:"Records in all, for --produce-to."`
}

func (c *config) Validate() error {
	switch {
	case c.Rounds < 1:
		return fmt.Errorf("--rounds is %d; give at least 1", c.Rounds)
	case slices.ContainsFunc(c.Only, func(name string) bool { return !slices.Contains(measures, name) }):
		return fmt.Errorf("--only is %s; names are %s", strings.Join(c.Only, ","), strings.Join(measures, ", "))
	case slices.Contains(c.Only, "peers") && !c.Peers:
		return errors.New("--only peers needs --peers")
	case c.Layers < 1 || c.Layers > 4096:
		return fmt.Errorf("--layers is %d; give 1 to 4096", c.Layers)
	case c.Security.SASL != "" && c.Security.SASL != "none":
		return errors.New("--bus-sasl is given; the bench can only use TLS")
	case c.Security.TLS && c.Peers:
		return errors.New("--peers and --bus-tls are given; the peers cannot use TLS")
	case c.Steps < 12:
		return fmt.Errorf("--steps is %d, too few for a window to close; give at least 12", c.Steps)
	}
	return nil
}

func main() {
	var cfg config
	kong.Parse(&cfg, kong.Name("bench"), kong.Description("Measures Oona. The figures are medians of the rounds. Compare only figures of the same run."))
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, &cfg, os.Stdout, os.Stderr)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, cfg *config, out, progress io.Writer) error {
	logger := slog.New(slog.NewTextHandler(progress, &slog.HandlerOptions{Level: slog.LevelError}))
	w := wire{bus: kafka.Config{Brokers: cfg.Kafka, ClientID: "oona-bench", Security: cfg.Security}, logger: logger}
	switch {
	case cfg.FoldOf != "":
		return foldArchive(ctx, cfg.FoldOf, cfg.Layers)
	case cfg.IngestTo != "":
		return w.ingestUntilTold(ctx, cfg.IngestTo, cfg.SpoolOf, cfg.IngestFor)
	case cfg.ProduceTo != "":
		return w.produceWhenTold(ctx, cfg.ProduceTo, volley{rate: tenThousand.rate, request: cfg.ProduceRequest, frames: cfg.ProduceFrames})
	case cfg.Attack != "":
		return attackUntilTold(ctx, cfg.Attack, cfg.AttackAt, cfg.Token)
	case cfg.PublishTo != "":
		return w.publishWhenTold(ctx, cfg.PublishTo, newCorpus(cfg.Layers, cfg.Steps, cfg.Unmeasured))
	}
	c := newCorpus(cfg.Layers, cfg.Steps, cfg.Unmeasured)
	on := thisMachine()
	var all figures
	b := bench{cfg: cfg, corpus: c, sparse: newCorpus(cfg.Layers, cfg.Steps, recordedIdle), all: &all, progress: progress, logger: logger}
	if len(cfg.Kafka) > 0 { // now, and not after minutes of other measurements
		if err := w.reach(); err != nil {
			return err
		}
	}
	failed := b.measure(ctx)
	if failed != nil && len(all.list) == 0 {
		return failed
	}
	on.LoadAfter = load()
	if cfg.JSON {
		return errors.Join(failed, writeJSON(out, on, cfg.Rounds, &all))
	}
	fmt.Fprintf(out, "%s\nmedians of %d rounds\n\n", on, cfg.Rounds)
	return errors.Join(failed, all.print(out))
}

func writeJSON(out io.Writer, on machine, rounds int, all *figures) error {
	object := map[string]any{"machine": on, "rounds": rounds}
	for _, f := range all.list {
		object[f.name] = f.median()
	}
	encoder := json.NewEncoder(out)
	encoder.SetIndent("", "  ")
	return encoder.Encode(object)
}

// bench takes the figures, one round after the other.
type bench struct {
	cfg      *config
	corpus   *corpus
	sparse   *corpus
	all      *figures
	progress io.Writer
	logger   *slog.Logger
	others   others
	fio      string // the program, "" without it
}

func (b *bench) measure(ctx context.Context) error {
	if b.cfg.Peers {
		dir, err := os.MkdirTemp("", "oona-bench-")
		if err != nil {
			return fmt.Errorf("make a directory to build the peers in: %w", err)
		}
		defer func() {
			if err := os.RemoveAll(dir); err != nil {
				fmt.Fprintln(b.progress, "bench:", err)
			}
		}()
		if err := b.prepareOthers(ctx, dir); err != nil {
			return err
		}
	}
	if err := b.rollups(ctx); err != nil {
		return err
	}
	if err := b.engine(ctx); err != nil {
		return err
	}
	if err := b.archives(ctx); err != nil {
		return err
	}
	if err := b.spools(ctx); err != nil {
		return err
	}
	if !b.chosen("drain", "parquet", "sustained", "commits", "latency", "spool-drain", "hostile", "peers") {
		return nil
	}
	broker, err := embedded.Start(ctx, embedded.Options{Logger: b.logger})
	if err != nil {
		return err
	}
	err = b.wire(ctx, &wire{bus: kafka.Config{Brokers: broker.Addrs, ClientID: "oona-bench"}, logger: b.logger})
	if err = errors.Join(err, broker.Close()); err != nil {
		return err
	}
	if len(b.cfg.Kafka) > 0 {
		if err := b.wire(ctx, &wire{suffix: kafkaSuffix, bus: kafka.Config{Brokers: b.cfg.Kafka, ClientID: "oona-bench", Security: b.cfg.Security}, logger: b.logger}); err != nil {
			return err
		}
	}
	return nil
}

func (b *bench) round(ctx context.Context, what string, n int) error {
	fmt.Fprintf(b.progress, "%s  %s, round %d of %d\n", time.Now().Format(time.TimeOnly), what, n+1, b.cfg.Rounds)
	return ctx.Err()
}

// measure takes figures. Its name is a value of --only.
type measure struct {
	name string
	take func() error
}

var measures = []string{"verdict", "scrape", "remote-write", "fold", "replay", "memory", "layers", "archive", "spool", "drain", "parquet", "sustained", "commits", "latency", "spool-drain", "hostile", "peers"}

// take runs the measures that --only selects.
func (b *bench) take(list []measure) error {
	for _, m := range list {
		if !b.chosen(m.name) {
			continue
		}
		if err := m.take(); err != nil {
			return err
		}
	}
	return nil
}

// chosen reports whether any of these measures is to be taken.
func (b *bench) chosen(names ...string) bool {
	return len(b.cfg.Only) == 0 || slices.ContainsFunc(names, func(name string) bool { return slices.Contains(b.cfg.Only, name) })
}

// rollups takes the figures of what is done with rollups. They come first, while the heap
// is as small as that of an exporter, so that the garbage collector runs as often.
func (b *bench) rollups(ctx context.Context) error {
	if !b.chosen("verdict", "scrape", "remote-write") {
		return nil
	}
	health, err := healthyLayer()
	if err != nil {
		return err
	}
	both, err := layerWindows(shownWindows)
	if err != nil {
		return err
	}
	for n := range b.cfg.Rounds {
		if err := b.round(ctx, "rollups", n); err != nil {
			return err
		}
		if err := b.take([]measure{
			{"verdict", func() error { return measureVerdict(health, judgedLayers, judgedRuns, b.all) }},
			{"scrape", func() error { return b.measureScrape(ctx, both, scrapedLayers) }},
			{"remote-write", func() error { return b.measureRemoteWrite(ctx, both, scrapedLayers) }},
		}); err != nil {
			return err
		}
	}
	return nil
}

// engine takes the figures of the window engine.
func (b *bench) engine(ctx context.Context) error {
	if !b.chosen("fold", "replay", "memory", "layers", "peers") {
		return nil
	}
	engine, err := newEngineRounds(b.corpus)
	if err != nil {
		return err
	}
	book, err := newTextbook(b.corpus, textbookLayers*b.cfg.Steps)
	if err != nil {
		return err
	}
	sparse, err := newEngineRounds(b.sparse)
	if err != nil {
		return err
	}
	for n := range b.cfg.Rounds {
		if err := b.round(ctx, "engine", n); err != nil {
			return err
		}
		if err := b.take([]measure{
			{"fold", func() error { return engine.fold(decodeFold, b.all) }},
			{"fold", func() error { return sparse.fold(sparseDecodeFold, b.all) }},
			{"fold", func() error { return book.measure(b.all) }},
			{"peers", func() error { return b.others.fold(ctx, b.all) }},
			{"replay", func() error { return measureReplay(b.corpus, b.all) }},
			{"memory", func() error { return measureOpen(b.corpus, b.all) }},
			{"layers", func() error { return measureLayers(10_000, 100, b.all) }},
		}); err != nil {
			return err
		}
	}
	return nil
}

// archives takes the figures of archives.
func (b *bench) archives(ctx context.Context) error {
	if !b.chosen("archive") {
		return nil
	}
	a, err := newArchiving(b.corpus, b.cfg.Layers)
	if err != nil {
		return err
	}
	for n := range b.cfg.Rounds {
		if err := b.round(ctx, "archives", n); err != nil {
			return err
		}
		if err := a.measure(ctx, b.all); err != nil {
			return err
		}
	}
	return nil
}

// spools takes the figures of the spool that need no broker.
func (b *bench) spools(ctx context.Context) error {
	if !b.chosen("spool") {
		return nil
	}
	var err error
	if b.fio, err = exec.LookPath("fio"); err != nil {
		fmt.Fprintf(b.progress, "bench: %s and %s are left out, as there is no fio (%v); your system has it as a package: apt-get install fio\n",
			fioSpeed.name, spoolOverFio.name, err)
	}
	for n := range b.cfg.Rounds {
		if err := b.round(ctx, "spool", n); err != nil {
			return err
		}
		if err := b.measureSpool(ctx, spoolAppends); err != nil {
			return err
		}
	}
	return nil
}

// commitMessages is the number of messages that the comparison of commits reads.
const commitMessages = 200_000

// wire takes the figures that need a broker.
func (b *bench) wire(ctx context.Context, w *wire) (err error) {
	topics, err := w.topics(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, w.forget(topics)) }()
	b.corpus.encode("bench", windowStart(time.Now()))
	if err := w.publish(ctx, topics.SeedMetrics, b.corpus, "bench"); err != nil {
		return err
	}
	small, err := w.loadCommits(ctx, commitMessages)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, w.forget(small)) }()
	for n := range b.cfg.Rounds {
		if err := b.round(ctx, "broker at "+w.bus.Brokers[0], n); err != nil {
			return err
		}
		if err := b.take([]measure{
			{"drain", func() error { return w.measureDrain(ctx, topics, b.corpus, b.all) }},
			{"drain", func() error { b.all.takeOverMedian(archiveFoldOverDrain, archiveFold, w.named(drainSpeed)); return nil }},
			{"parquet", func() error { return w.measureParquet(ctx, topics, b.all) }},
			{"peers", func() error { return b.others.drain(ctx, w, topics, b.corpus, b.all) }},
			{"sustained", func() error { return w.measureSustained(ctx, b.corpus, sustainedSpeed, b.all) }},
			{"sustained", func() error { return w.measureSustained(ctx, b.sparse, sparseSustainedSpeed, b.all) }},
			{"commits", func() error { return w.measureCommits(ctx, small.SeedMetrics, commitMessages, b.all) }},
			{"latency", func() error { return w.measureLatency(ctx, tenThousand, b.all) }},
			{"latency", func() error { return w.measureFloor(ctx, tenThousand, floorMiddle, floorTail, b.all) }},
			{"latency", func() error {
				b.all.takeRatio(w.named(latencyOverFloor), w.named(latencyTail), w.named(floorTail))
				return nil
			}},
			{"latency", func() error { return w.measureLatency(ctx, tenThousandSingly, b.all) }},
			{"hostile", func() error { return b.hostile(ctx, w) }},
			{"latency", func() error { return w.measureFloor(ctx, tenThousandSingly, floorSinglyMid, floorSinglyTail, b.all) }},
			{"latency", func() error {
				b.all.takeRatio(w.named(singlyOverFloor), w.named(singlyTail), w.named(floorSinglyTail))
				return nil
			}},
			{"spool-drain", func() error { return w.measureSpoolDrain(ctx, tenThousand, spoolAppends, b.all) }},
		}); err != nil {
			return err
		}
	}
	return nil
}
