package parquet

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"

	"github.com/parquet-go/parquet-go"
	"github.com/parquet-go/parquet-go/compress"
	"github.com/parquet-go/parquet-go/compress/snappy"
	"github.com/parquet-go/parquet-go/compress/uncompressed"
	"github.com/parquet-go/parquet-go/compress/zstd"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/bus"
	"github.com/morphogenetic/oona/replay"
	"github.com/morphogenetic/oona/replay/manifest"
	"github.com/morphogenetic/oona/replay/records"
)

// Options decide, with the records, what the files are.
type Options struct {
	Compression  string            `json:"compression"`    // zstd, snappy or none
	RowGroupRows int               `json:"row_group_rows"` // rows of a row group, but for the last of a file
	FileRows     int               `json:"file_rows"`      // a file ends with the frame that reaches this
	HeldValues   int               `json:"held_values"`    // numbers that are held in memory: beyond, the largest layer's file ends
	FinishRows   int               `json:"finish_rows"`    // all files end with the frame that reaches this: where a resumed replay begins
	Selection    records.Selection `json:"selection"`
}

// DefaultOptions returns the options that are not chosen.
func DefaultOptions() Options {
	return Options{Compression: "zstd", RowGroupRows: 128_000, FileRows: 1_024_000, HeldValues: 32_000_000, FinishRows: 16_000_000}
}

// What is wrong with a directory or a range.
var (
	// ErrOptions is returned for a directory that was written with other options.
	ErrOptions = errors.New("the directory was written with other options")
	// ErrForeign is returned for a directory that has files, but no manifest.
	ErrForeign = errors.New("the directory is not empty, and no replay has written it")
	// ErrGap is returned for a range that the directory cannot be continued with.
	ErrGap = errors.New("the range begins before what the directory has, or leaves a gap")
)

// form is that of the manifest.
const form = "parquet"

// Output writes Parquet files. It is not for concurrent use.
type Output struct {
	Dir     string
	Options Options
	Oona    string // version of the program
	Topics  oona.Topics
	Prefix  string                        // of the topics
	Metric  func(name string) oona.Metric // the catalogue, which describes the metrics in the files
	// Catalogue is its hash.
	Catalogue oona.CatalogueHash

	manifest  *manifest.Manifest
	producers producers
	codec     compress.Codec
	frames    *frameEncoder   // of the file before
	unsynced  map[string]bool // folders that are not on the disk as they are
	spare     [][]float32     // columns of frames that are in files, for others
}

// Manifest returns what the directory holds, or nil before the first Open.
func (o *Output) Manifest() *manifest.Manifest { return o.manifest }

// Open begins or resumes a range of a partition.
func (o *Output) Open(_ context.Context, topic string, r bus.Range) (replay.Writer, int64, error) {
	if o.manifest == nil {
		if err := o.begin(); err != nil {
			return nil, 0, err
		}
	}
	done := o.partition(topic, r.Partition)
	if done.From == done.End { // nothing is finished
		done.Asked, done.From, done.End = r.From, r.From, r.From
	}
	if r.From < done.Asked || r.From > done.End {
		return nil, 0, fmt.Errorf("parquet: %s: %w: it has the offsets %d to %d of %s/%d, and the range begins at %d; use another directory", o.Dir, ErrGap, done.Asked, done.End-1, topic, r.Partition, r.From)
	}
	table := tableOf(o.Topics, o.Prefix, topic)
	from := min(done.End, r.End)
	if err := o.sweep(tablesOf(table), r.Partition, done); err != nil {
		return nil, 0, err
	}
	return &writer{Output: o, topic: topic, table: table, number: r.Partition, parts: map[partKey]*part{}}, from, o.manifest.Write(o.Dir)
}

// begin reads the manifest, or makes a new one.
func (o *Output) begin() error {
	options, err := json.Marshal(o.Options)
	if err != nil {
		return fmt.Errorf("parquet: %w", err)
	}
	o.unsynced = make(map[string]bool)
	if o.codec, err = codecOf(o.Options.Compression); err != nil {
		return err
	}
	m, err := manifest.Read(o.Dir)
	switch {
	case errors.Is(err, manifest.ErrNone):
		m = &manifest.Manifest{Form: form, Codec: o.Options.Compression, Options: options}
		if err := o.makeDir(); err != nil {
			return err
		}
		if err := m.Write(o.Dir); err != nil {
			return err
		}
	case err != nil:
		return err
	}
	var held bytes.Buffer
	if err := json.Compact(&held, m.Options); m.Form != form || err != nil || !bytes.Equal(held.Bytes(), options) {
		return fmt.Errorf("parquet: %s: %w: %s; use another directory", o.Dir, ErrOptions, difference(m.Form, held.Bytes(), options))
	}
	m.Oona = o.Oona
	o.manifest = m
	o.producers.load(m.Producers)
	return o.writeStates()
}

// difference says in which options a directory differs from those that are asked for.
func difference(has string, held, asked []byte) string {
	if has != form {
		return fmt.Sprintf("its form is %q, not %q", has, form)
	}
	var theirs, ours map[string]json.RawMessage
	if err := errors.Join(json.Unmarshal(held, &theirs), json.Unmarshal(asked, &ours)); err != nil {
		return err.Error()
	}
	var all []string
	for _, name := range slices.Sorted(maps.Keys(ours)) {
		if !bytes.Equal(theirs[name], ours[name]) {
			all = append(all, fmt.Sprintf("%s was %s, and is %s now", name, theirs[name], ours[name]))
		}
	}
	return strings.Join(all, "; ")
}

// makeDir makes the directory, which must be empty: what is not ours would be read as ours.
func (o *Output) makeDir() error {
	if err := o.makeFolder(o.Dir); err != nil {
		return fmt.Errorf("parquet: %w", err)
	}
	entries, err := os.ReadDir(o.Dir)
	if err != nil {
		return fmt.Errorf("parquet: %w", err)
	}
	for _, e := range entries {
		if e.Name() == manifest.Name+manifest.Temporary || e.Name() == manifest.LockName {
			continue // a replay was killed here
		}
		return fmt.Errorf("parquet: %s: %w; use another directory", o.Dir, ErrForeign)
	}
	return nil
}

// partition returns what the manifest has of a partition.
func (o *Output) partition(topic string, partition int32) *manifest.Partition {
	t := o.manifest.Topic(topic)
	if t == nil {
		o.manifest.Topics = append(o.manifest.Topics, manifest.Topic{Name: topic})
		t = o.manifest.Topic(topic)
	}
	for len(t.Partitions) <= int(partition) {
		t.Partitions = append(t.Partitions, manifest.Partition{})
	}
	return &t.Partitions[partition]
}

func codecOf(name string) (compress.Codec, error) {
	switch name {
	case "zstd":
		return &zstd.Codec{Level: zstd.SpeedFastest}, nil
	case "snappy":
		return &snappy.Codec{}, nil
	case "none":
		return &uncompressed.Codec{}, nil
	}
	return nil, fmt.Errorf("parquet: no compression is named %q; use zstd, snappy or none", name)
}

// writerOptions are those of every file.
func (o *Output) writerOptions() []parquet.WriterOption {
	return []parquet.WriterOption{
		parquet.Compression(o.codec),
		parquet.CreatedBy("oona", strings.Trim(o.Oona, "()"), ""),     // readers parse it, and parentheses are for the build
		parquet.MaxRowsPerRowGroup(2 * int64(o.Options.RowGroupRows)), // frames are written in groups of at most 1.5 times as many
	}
}
