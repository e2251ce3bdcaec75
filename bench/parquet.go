package main

import (
	"bytes"
	"context"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/bus"
	"github.com/morphogenetic/oona/bus/kafka"
	"github.com/morphogenetic/oona/internal/catalogue"
	"github.com/morphogenetic/oona/replay"
	"github.com/morphogenetic/oona/replay/parquet"
)

var (
	parquetSpeed = figure{name: "parquet_mrows_core", unit: "M rows/s", goal: 3,
		about: "a partition of the corpus read from the broker and written as Parquet files, by processor time"}
	parquetSize = figure{name: "parquet_bytes_row", unit: "B", about: "size of these files by row"}
)

// parquetWriters are other programs that write the same rows from memory.
var parquetWriters = []figure{
	{name: "pyarrow_split_mrows_core", unit: "M rows/s", about: "the same rows from memory by pyarrow, with the same encodings and compression"},
	{name: "pyarrow_split_bytes_row", unit: "B"},
	{name: "pyarrow_default_mrows_core", unit: "M rows/s", about: "the same with pyarrow's default encodings: dictionaries; zstd"},
	{name: "pyarrow_default_bytes_row", unit: "B"},
	{name: "duckdb_mrows_core", unit: "M rows/s", about: "the same rows from memory by DuckDB; zstd"},
	{name: "duckdb_bytes_row", unit: "B"},
}

//go:embed parquet.py
var parquetScript []byte

// measureParquet writes a partition as Parquet files.
func (w *wire) measureParquet(ctx context.Context, topics oona.Topics, all *figures) (err error) {
	dir, err := os.MkdirTemp("", "oona-bench-")
	if err != nil {
		return fmt.Errorf("make a directory for Parquet files: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	speed, size, err := writeParquet(ctx, kafka.New(w.bus, w.logger), topics, filepath.Join(dir, "out"))
	if err != nil {
		return err
	}
	all.take(w.named(parquetSpeed), speed)
	all.take(w.named(parquetSize), size)
	if w.suffix != "" {
		return nil // the others do not read from a bus
	}
	return w.measureParquetMemory(ctx, topics, all)
}

// writeParquet writes the first partition of a log. It returns the million rows per second
// of processor time, and the bytes per row.
func writeParquet(ctx context.Context, log replay.Log, topics oona.Topics, dir string) (speed, size float64, err error) {
	known, err := catalogue.Default()
	if err != nil {
		return 0, 0, err
	}
	extents, err := log.Extents(ctx, topics.SeedMetrics)
	if err != nil {
		return 0, 0, err
	}
	part := bus.Range{Partition: 0, End: extents[topics.SeedMetrics][0].End}
	output := &parquet.Output{Dir: dir, Options: parquet.DefaultOptions(), Oona: "bench", Topics: topics, Prefix: strings.TrimSuffix(topics.Settings, ".oona.settings"), Metric: known.Metric}
	extraction := &replay.Extraction{Log: log, Output: output}
	used, _, err := metered(func() error { return extraction.Extract(ctx, topics.SeedMetrics, part) })
	if err != nil {
		return 0, 0, err
	}
	var bytes, rows int64
	for _, f := range output.Manifest().Topics[0].Partitions[0].Files {
		bytes, rows = bytes+f.Bytes, rows+f.Rows
	}
	if want := part.End * seedsPerFrame; rows != want {
		return 0, 0, fmt.Errorf("the Parquet files have %d rows, want %d", rows, want)
	}
	return float64(rows) / 1e6 / used.Seconds(), float64(bytes) / float64(rows), nil
}

func (w *wire) measureParquetWriters(ctx context.Context, dir string, all *figures) error {
	if err := exec.CommandContext(ctx, "python3", "-c", "import duckdb, pyarrow").Run(); err != nil {
		w.logger.Error("SKIPPED: pyarrow and DuckDB; make python installs them", "err", err)
		return nil
	}
	var out, messages bytes.Buffer
	run := exec.CommandContext(ctx, "python3", "-", dir)
	run.Stdin, run.Stdout, run.Stderr = bytes.NewReader(parquetScript), &out, &messages
	if err := run.Run(); err != nil {
		return fmt.Errorf("write Parquet files with pyarrow and DuckDB: %w\n%s", err, bytes.TrimSpace(messages.Bytes()))
	}
	var found map[string]float64
	if err := json.Unmarshal(out.Bytes(), &found); err != nil {
		return fmt.Errorf("parse what pyarrow and DuckDB took: %w", err)
	}
	for _, f := range parquetWriters {
		all.take(f, found[f.name])
	}
	return nil
}
