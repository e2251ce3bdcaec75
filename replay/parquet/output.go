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

// Options determine, together with the records, the files and their content.
type Options struct {
	Compression  string            `json:"compression"`    // zstd, snappy or none
	RowGroupRows int               `json:"row_group_rows"` // approximate number of rows of a row group
	FileRows     int               `json:"file_rows"`      // a file ends when it has so many rows
	HeldValues   int               `json:"held_values"`    // maximum number of values in memory; above it, the file of the largest layer ends
	FinishRows   int               `json:"finish_rows"`    // after so many rows, all files end; a resumed replay begins at such a place
	Selection    records.Selection `json:"selection"`
}

// DefaultOptions returns the default options.
func DefaultOptions() Options {
	return Options{Compression: "zstd", RowGroupRows: 128_000, FileRows: 1_024_000, HeldValues: 32_000_000, FinishRows: 16_000_000}
}

// Errors for a directory or a range that cannot be used.
var (
	// ErrOptions is returned for a directory that was written with other options.
	ErrOptions = errors.New("the directory was written with other options")
	// ErrForeign is returned for a directory that has files, but no manifest.
	ErrForeign = errors.New("the directory is not empty, and no replay has written it")
	// ErrGap is returned if a range does not continue what the directory has.
	ErrGap = errors.New("the range begins before what the directory has, or leaves a gap")
)

// form is the value of Form in the manifest.
const form = "parquet"

// Output writes Parquet files. It is not for concurrent use.
type Output struct {
	Dir     string
	Options Options
	Oona    string // version of the program
	Topics  oona.Topics
	Prefix  string                        // prefix of the topics
	Metric  func(name string) oona.Metric // the catalogue, which describes the metrics in the files
	// Catalogue is the hash of the catalogue.
	Catalogue oona.CatalogueHash

	manifest  *manifest.Manifest
	producers producers
	codec     compress.Codec
	frames    *frameEncoder   // encoder of the last file, to be used again
	unsynced  map[string]bool // folders with changes that were not synced
	spare     [][]float32     // memory of frames that are in files, to be used again
}

// Manifest returns the manifest of the directory, or nil before the first Open.
func (o *Output) Manifest() *manifest.Manifest { return o.manifest }

// Open begins or resumes a range of a partition.
func (o *Output) Open(_ context.Context, topic string, r bus.Range) (replay.Writer, int64, error) {
	if o.manifest == nil {
		if err := o.begin(); err != nil {
			return nil, 0, err
		}
	}
	done := o.partition(topic, r.Partition)
	if done.From == done.End { // the directory has nothing of the partition
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

// difference describes the options in which a directory differs from this replay.
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

// makeDir makes the directory. It must be empty, because tools would read other files as a part of the
// tables.
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
			continue // a killed replay has left this
		}
		return fmt.Errorf("parquet: %s: %w; use another directory", o.Dir, ErrForeign)
	}
	return nil
}

// partition returns the entry of a partition in the manifest.
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

// writerOptions returns the options of the library's writer, which are the same for all files.
func (o *Output) writerOptions() []parquet.WriterOption {
	return []parquet.WriterOption{
		parquet.Compression(o.codec),
		parquet.CreatedBy("oona", strings.Trim(o.Oona, "()"), ""),     // readers parse it, and parentheses are for the build
		parquet.MaxRowsPerRowGroup(2 * int64(o.Options.RowGroupRows)), // frames are written in groups of at most 1.5 times as many
	}
}
