package typed

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/klauspost/compress/zstd"
	"github.com/twmb/avro/ocf"

	"github.com/morphogenetic/oona/bus"
	"github.com/morphogenetic/oona/replay"
	"github.com/morphogenetic/oona/replay/manifest"
	"github.com/morphogenetic/oona/replay/records"
)

// Options determine, together with the records, the files and their content.
type Options struct {
	Codec     string            `json:"codec"`      // one of Codecs
	FileBytes int64             `json:"file_bytes"` // a file ends when its records have this size before compression
	Selection records.Selection `json:"selection"`
}

// Codecs are the codecs of blocks, by their names in Avro.
var Codecs = []string{"null", "deflate", "snappy", "zstandard"}

// Errors for a directory or a range that cannot be used.
var (
	// ErrOptions is returned for a directory that was written with other options.
	ErrOptions = errors.New("the directory was written with other options; give the same, or use another directory")
	// ErrGap is returned if a range does not continue what the directory has.
	ErrGap = errors.New("the range begins before what the directory has, or leaves a gap")
	// ErrForeign is returned for a directory that has files, but no manifest.
	ErrForeign = errors.New("the directory is not empty, and no replay has written it")
)

// form is the value of Form in the manifest.
const form = "avro"

// Form is the value of Form in the manifest of a directory that this package has written.
const Form = form

// Output writes the files. It is not safe for concurrent use.
type Output struct {
	Dir     string
	Options Options
	Oona    string // version of the program

	manifest *manifest.Manifest
	codec    ocf.Codec
}

// Manifest returns the manifest of the directory, or nil before the first Open.
func (o *Output) Manifest() *manifest.Manifest { return o.manifest }

// Open begins or resumes a range of a partition.
func (o *Output) Open(_ context.Context, topic string, r bus.Range) (replay.Writer, int64, error) {
	if o.manifest == nil {
		if err := o.begin(); err != nil {
			return nil, 0, fmt.Errorf("typed: %s: %w", o.Dir, err)
		}
	}
	done := o.manifest.Partition(topic, r.Partition)
	if done.From == done.End { // the directory has nothing of the partition
		done.Asked, done.From, done.End = r.From, r.From, r.From
	}
	if r.From < done.Asked || r.From > done.End {
		return nil, 0, fmt.Errorf("typed: %s: %w: it has the offsets %d to %d of %s/%d, and the range begins at %d; use another directory", o.Dir, ErrGap, done.Asked, done.End-1, topic, r.Partition, r.From)
	}
	folder := filepath.Join(topic, fmt.Sprintf("partition-%05d", r.Partition))
	if err := o.sweep(folder, done); err != nil {
		return nil, 0, fmt.Errorf("typed: remove the files of an interrupted replay: %w", err)
	}
	return &writer{Output: o, topic: topic, number: r.Partition, folder: folder, next: done.End}, min(done.End, r.End), o.manifest.Write(o.Dir)
}

// begin reads the manifest, or writes a new one.
func (o *Output) begin() (err error) {
	if o.codec, err = codecOf(o.Options.Codec); err != nil {
		return err
	}
	options, err := json.Marshal(o.Options)
	if err != nil {
		return err
	}
	m, err := manifest.Read(o.Dir)
	if errors.Is(err, manifest.ErrNone) {
		m = &manifest.Manifest{Form: form, Codec: o.Options.Codec, Options: options}
		err = errors.Join(o.checkEmpty(), os.MkdirAll(o.Dir, 0o777))
	}
	if err != nil {
		return err
	}
	if m.Form != form {
		return fmt.Errorf("%w: form is %q, not %q", ErrOptions, m.Form, form)
	}
	if field, held, asked := manifest.Difference(m.Options, options); field != "" {
		return fmt.Errorf("%w: %s is %s, not %s", ErrOptions, field, held, asked)
	}
	m.Oona, o.manifest = o.Oona, m
	return m.Write(o.Dir)
}

// checkEmpty returns an error if the directory has other files.
func (o *Output) checkEmpty() error {
	entries, err := os.ReadDir(o.Dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	for _, e := range entries {
		if name := e.Name(); name != manifest.Name+manifest.Temporary && name != manifest.LockName {
			return fmt.Errorf("%w: it has %s; use another directory", ErrForeign, name)
		}
	}
	return nil
}

// sweep removes the files of a partition that the manifest does not name.
func (o *Output) sweep(folder string, done *manifest.Partition) error {
	entries, err := os.ReadDir(filepath.Join(o.Dir, folder))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	named := make(map[string]bool, len(done.Files))
	for _, f := range done.Files {
		named[f.Name] = true
	}
	for _, e := range entries {
		name := filepath.Join(folder, e.Name())
		if e.IsDir() || named[filepath.ToSlash(name)] || !strings.HasSuffix(strings.TrimSuffix(name, manifest.Temporary), extension) {
			continue
		}
		if err := os.Remove(filepath.Join(o.Dir, name)); err != nil {
			return err
		}
	}
	return nil
}

// extension is the end of the names of files.
const extension = ".avro"

func codecOf(name string) (ocf.Codec, error) {
	switch name {
	case "null":
		return nil, nil
	case "deflate":
		const level = 6
		return ocf.DeflateCodec(level), nil
	case "snappy":
		return ocf.SnappyCodec(), nil
	case "zstandard":
		codec, err := ocf.ZstdCodec([]zstd.EOption{zstd.WithEncoderConcurrency(1)}, nil)
		if err != nil {
			return nil, err
		}
		return ocf.NopCloser(codec), nil // all files share the codec, so no file may close it
	}
	return nil, fmt.Errorf("no codec is named %q; use one of %s", name, strings.Join(Codecs, ", "))
}
