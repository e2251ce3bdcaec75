package main

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/bus"
	"github.com/morphogenetic/oona/schemas/avro"
)

var parquetMemorySpeed = figure{name: "parquet_memory_mrows_core", unit: "M rows/s",
	about: "encoded frames from memory, decoded and written as Parquet files, by processor time"}

// The frames that are written from memory: random walks, as values of a training do not
// repeat, and dictionaries do not help.
const (
	walkLayers = 4
	walkFrames = 2048
)

// frameLog is a log of one partition in memory.
type frameLog struct {
	topic    string
	messages []*message.Message
}

func (l *frameLog) Extents(context.Context, ...string) (map[string][]bus.Extent, error) {
	return map[string][]bus.Extent{l.topic: {{End: int64(len(l.messages))}}}, nil
}

func (l *frameLog) Read(ctx context.Context, _ string, r bus.Range, take func(*message.Message) error) error {
	for _, msg := range l.messages[r.From:r.End] {
		if err := errors.Join(ctx.Err(), take(msg)); err != nil {
			return err
		}
	}
	return nil
}

func newWalk(topic string) *frameLog {
	random := rand.New(rand.NewPCG(3, 4))
	log := &frameLog{topic: topic}
	c := newCorpus(walkLayers, 1, 0)
	factor := make([]float32, 1<<12)
	for i := range factor {
		factor[i] = float32(math.Exp(0.02 * random.NormFloat64()))
	}
	for i := range walkFrames {
		f := c.frame("walk", windowStartOfWalk, i/walkLayers, i%walkLayers)
		for _, column := range f.Metrics { // the layers walk on from each other's values
			for j := range column.Values {
				column.Values[j] *= factor[random.IntN(len(factor))]
			}
		}
		msg := message.NewMessage("", avro.AppendFrame(nil, &f))
		msg.SetContext(bus.WithPosition(context.Background(), bus.Position{Topic: topic, Offset: int64(i)}))
		log.messages = append(log.messages, msg)
	}
	return log
}

const windowStartOfWalk = oona.Micros(1_790_000_000_000_000)

// measureParquetMemory writes the frames as Parquet files, then has other programs write
// the same rows.
func (w *wire) measureParquetMemory(ctx context.Context, topics oona.Topics, all *figures) (err error) {
	dir, err := os.MkdirTemp("", "oona-bench-")
	if err != nil {
		return fmt.Errorf("make a directory for Parquet files: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	tables := filepath.Join(dir, "out")
	speed, _, err := writeParquet(ctx, newWalk(topics.SeedMetrics), topics, tables)
	if err != nil {
		return err
	}
	all.take(parquetMemorySpeed, speed)
	return w.measureParquetWriters(ctx, tables, all)
}
