package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/schemas/avro"
)

var (
	victoriaSpeed = figure{name: "victoriametrics_msamples_core", unit: "M samples/s",
		about: "VictoriaMetrics' remote write and stream aggregation; any labels, but no event time and no duplicates"}
	telegrafSpeed = figure{name: "telegraf_msamples_core", unit: "M samples/s",
		about: "Telegraf's line protocol, basicstats and t-digest; any tags, but no event time and no duplicates"}
	overVictoria = figure{name: "decode_fold_over_victoriametrics", goal: 80,
		about: "ratio; Oona gets columns of 1,000 seeds, the peers one series per seed"}
)

// peers is the built program of bench/peers, with the frames that it folds. They are those
// of the textbook.
type peers struct {
	program string
	frames  []byte
}

// buildPeers builds the program in a directory.
func buildPeers(ctx context.Context, sources, dir string, c *corpus) (*peers, error) {
	p := &peers{program: filepath.Join(dir, "peers")}
	build := exec.CommandContext(ctx, "go", "build", "-C", sources, "-o", p.program, ".")
	if output, err := build.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("build bench/peers: %w\n%s", err, bytes.TrimSpace(output))
	}
	start := windowStart(time.Now())
	for i := range textbookLayers * c.steps {
		f := c.frame("bench", start, i/textbookLayers, i%textbookLayers)
		payload := avro.AppendFrame(nil, &f)
		p.frames = binary.LittleEndian.AppendUint32(p.frames, uint32(len(payload)))
		p.frames = append(p.frames, payload...)
	}
	return p, nil
}

// measure runs the program once. The program warms up, measures, and checks the aggregates
// of each peer against the samples.
func (p *peers) measure(ctx context.Context, into *figures) error {
	var out, messages bytes.Buffer
	run := exec.CommandContext(ctx, p.program)
	run.Stdin, run.Stdout, run.Stderr = bytes.NewReader(p.frames), &out, &messages
	if err := run.Run(); err != nil {
		return fmt.Errorf("run bench/peers: %w\n%s", err, bytes.TrimSpace(messages.Bytes()))
	}
	var speeds map[string]float64
	if err := json.Unmarshal(out.Bytes(), &speeds); err != nil {
		return fmt.Errorf("parse the output of bench/peers: %w", err)
	}
	for _, f := range []figure{victoriaSpeed, telegrafSpeed} {
		speed, ok := speeds[f.name]
		if !ok {
			return fmt.Errorf("the output of bench/peers has no %s", f.name)
		}
		into.take(f, speed)
	}
	into.takeRatio(overVictoria, decodeFold, victoriaSpeed)
	return nil
}

// others are the programs of --peers that could be built.
type others struct {
	peers   *peers   // nil if skipped
	streams *streams // nil if skipped
}

// fold measures the programs that need no bus, right after Oona.
func (o *others) fold(ctx context.Context, into *figures) error {
	if o.peers == nil {
		return nil
	}
	return o.peers.measure(ctx, into)
}

// drain measures the programs that need a real bus, on the topic that was just drained.
func (o *others) drain(ctx context.Context, w *wire, topics oona.Topics, c *corpus, into *figures) error {
	if o.streams == nil || w.suffix != kafkaSuffix {
		return nil
	}
	return w.measureStreams(ctx, o.streams, topics, c, into)
}

// prepareOthers builds the other programs in a directory. It prints which ones it has to
// skip.
func (b *bench) prepareOthers(ctx context.Context, dir string) error {
	sources, err := peersSources(ctx)
	if err != nil {
		b.skip("VictoriaMetrics, Telegraf and Kafka Streams", err)
		return nil
	}
	fmt.Fprintf(b.progress, "%s  building the peers\n", time.Now().Format(time.TimeOnly))
	if b.others.peers, err = buildPeers(ctx, sources, dir, b.corpus); err != nil {
		b.skip("VictoriaMetrics and Telegraf", err)
	}
	if len(b.cfg.Kafka) == 0 {
		b.skip("Kafka Streams", errors.New("it needs a real Kafka; give --kafka"))
	} else if b.others.streams, err = buildStreams(ctx, sources, dir); err != nil {
		b.skip("Kafka Streams", err)
	}
	return ctx.Err()
}

func (b *bench) skip(what string, why error) {
	fmt.Fprintf(b.progress, "SKIPPED: %s: %v\n", what, why)
}

// peersSources returns the directory with the sources of the peers.
func peersSources(ctx context.Context) (string, error) {
	const module = "github.com/morphogenetic/oona"
	root, err := exec.CommandContext(ctx, "go", "list", "-m", "-f", "{{.Dir}}", module).Output()
	if err != nil {
		return "", fmt.Errorf("find the sources of %s (run this inside a clone of it): %w", module, err)
	}
	return filepath.Join(strings.TrimSpace(string(root)), "bench", "peers"), nil
}
