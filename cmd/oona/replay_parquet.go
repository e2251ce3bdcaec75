package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"

	"github.com/alecthomas/units"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/internal/catalogue"
	"github.com/morphogenetic/oona/internal/settings"
	"github.com/morphogenetic/oona/internal/worker"
	"github.com/morphogenetic/oona/replay/manifest"
	"github.com/morphogenetic/oona/replay/parquet"
)

type replayParquet struct {
	Parquet      string `env:"-" group:"What to do" placeholder:"DIR" help:"Write Parquet files for analysis: a row for each seed and instant, a column for each metric. If the directory has some already, they are continued."`
	Compression  string `env:"-" group:"Parquet" default:"zstd" enum:"zstd,snappy,none" placeholder:"zstd|snappy|none" help:"Compression of the Parquet files."`
	RowGroupRows int    `env:"-" group:"Parquet" default:"128000" placeholder:"N" help:"Rows of a row group of the Parquet files. A file has up to eight row groups."`
}

// rowGroups is the number of row groups of a full file.
const rowGroups = 8

func (p *replayParquet) output(job *replaying, known *catalogue.Catalogue) *parquet.Output {
	options := parquet.DefaultOptions()
	options.Compression, options.RowGroupRows, options.FileRows = p.Compression, p.RowGroupRows, rowGroups*p.RowGroupRows
	return &parquet.Output{Dir: p.Parquet, Options: options, Oona: worker.ReadBuild().Version, Topics: job.topics, Prefix: job.Prefix, Metric: known.Metric, Catalogue: known.Hash()}
}

func (r *replayRun) parquet(ctx context.Context, job *replaying, to streams) (err error) {
	lock, err := manifest.Lock(r.Parquet.Parquet)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, lock.Close()) }()
	known, err := r.knownMetrics(ctx, job)
	if err != nil {
		return err
	}
	output := r.Parquet.output(job, known)
	output.Options.Selection = r.Select.selection()
	resolved, err := r.Tensors.output(job, output, r.Parquet.Parquet)
	if err != nil {
		return err
	}
	read, err := r.extract(ctx, job, resolved)
	resolved.report(to.messages)
	if err != nil {
		return err
	}
	return errors.Join(printTables(to.out, output.Manifest(), r.JSON), read.nothing)
}

// knownMetrics returns the catalogue that describes the metrics: that of the log, or the
// built-in one.
func (r *replayRun) knownMetrics(ctx context.Context, job *replaying) (*catalogue.Catalogue, error) {
	if job.held != nil {
		for _, text := range job.held.Manifest.Catalogues {
			if len(job.held.Manifest.Catalogues) == 1 {
				return catalogue.Parse([]byte(text))
			}
		}
		return catalogue.Open(r.Catalogue)
	}
	shared, err := settings.Read(ctx, job.bus, job.topics, job.logger)
	if err != nil {
		return nil, fmt.Errorf("find the catalogue of the metrics: %w", err)
	}
	for _, partition := range slices.Sorted(maps.Keys(shared.Windows)) {
		if hash := shared.Windows[partition].Catalogue; hash != (oona.CatalogueHash{}) {
			return settings.NewCatalogues(job.bus, job.topics, job.logger).Find(ctx, hash)
		}
	}
	return catalogue.Open(r.Catalogue)
}

func printTables(w io.Writer, m *manifest.Manifest, asJSON bool) error {
	if asJSON {
		return writeJSON(w, m)
	}
	for _, t := range m.Topics {
		var all manifest.Counts
		var bytes int64
		files := 0
		for _, p := range t.Partitions {
			if p.Counts != nil {
				all.Add(*p.Counts)
			}
			for _, f := range p.Files {
				bytes, files = bytes+f.Bytes, files+1
			}
		}
		fmt.Fprintf(w, "%s: %d rows of %d records in %d files of %s\n", t.Name, all.Rows, all.Records, files, units.Base2Bytes(bytes).Round(1))
		if all.Unread > 0 {
			fmt.Fprintf(w, "%s: %d records cannot be decoded, and have no rows; the archive (--archive) keeps them\n", t.Name, all.Unread)
		}
	}
	return nil
}
