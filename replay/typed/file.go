package typed

import (
	"bufio"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
	"path/filepath"

	twmb "github.com/twmb/avro"
	"github.com/twmb/avro/ocf"

	"github.com/morphogenetic/oona/replay/manifest"
	"github.com/morphogenetic/oona/schemas/avro"
)

// metaKey is the name of the entry in a file's metadata that says, as JSON, where its records come from.
const metaKey = "oona.replay"

// blockBytes is the size, before compression, at which a block ends.
const blockBytes = 256 << 10

// file is a file that is being written. It has a temporary name.
type file struct {
	schema  avro.Schema
	dir     string
	folder  string
	file    *os.File
	buffer  *bufio.Writer
	out     *ocf.Writer
	digest  hash.Hash
	written int64
	records int64
	rows    int64 // number of readings of the records
	bytes   int64 // size of the records
}

// create begins a file for records of a schema.
func (w *writer) create(schemaName string) (*file, error) {
	schema, ok := avro.Latest(schemaName)
	if !ok {
		return nil, fmt.Errorf("typed: %q is not one of Oona's schemas", schemaName)
	}
	folder := filepath.Join(w.Dir, w.folder)
	if err := os.MkdirAll(folder, 0o777); err != nil {
		return nil, fmt.Errorf("typed: %w", err)
	}
	at, err := os.Create(filepath.Join(folder, fmt.Sprintf("%020d", w.next)+extension+manifest.Temporary))
	if err != nil {
		return nil, fmt.Errorf("typed: %w", err)
	}
	f := &file{schema: schema, dir: w.Dir, folder: w.folder, file: at, digest: sha256.New()}
	f.buffer = bufio.NewWriterSize(io.MultiWriter(at, f.digest, (*size)(&f.written)), 1<<20)
	if err := f.begin(w); err != nil {
		return nil, errors.Join(fmt.Errorf("typed: begin %s: %w", at.Name(), err), f.abort())
	}
	return f, nil
}

func (f *file) begin(w *writer) error {
	parsed, err := twmb.Parse(f.schema.Text)
	if err != nil {
		return err
	}
	about, err := json.Marshal(struct {
		Topic     string  `json:"topic"`
		Partition int32   `json:"partition"`
		First     int64   `json:"first"`
		Version   int     `json:"schema_version"`
		Options   Options `json:"options"`
	}{w.topic, w.number, w.next, f.schema.Version, w.Options})
	if err != nil {
		return err
	}
	marker := sha256.Sum256(about) // not random, so that the same records give the same bytes
	options := []ocf.WriterOpt{
		ocf.WithMetadata(map[string][]byte{metaKey: about}), ocf.WithSyncMarker([16]byte(marker[:16])), ocf.WithBlockBytes(blockBytes),
	}
	if w.codec != nil {
		options = append(options, ocf.WithCodec(w.codec))
	}
	f.out, err = ocf.NewWriter(f.buffer, parsed, options...)
	return err
}

// append writes a record in single-object encoding that has the given number of readings.
func (f *file) append(single []byte, readings int64) error {
	body, err := avro.Body(single)
	if err == nil {
		_, err = f.out.Write(body)
	}
	if err != nil {
		return fmt.Errorf("typed: write %s: %w", f.file.Name(), err)
	}
	f.records++
	f.rows += readings
	f.bytes += int64(len(body))
	return nil
}

// finish ends the file, which has all records from the offset first up to end. The file is on disk
// under its name when finish returns.
func (f *file) finish(first, end int64) (manifest.File, error) {
	name := filepath.Join(f.folder, fmt.Sprintf("%020d-%020d%s", first, end-1, extension))
	final := filepath.Join(f.dir, name)
	err := f.out.Close()
	if err == nil {
		err = f.buffer.Flush()
	}
	err = errors.Join(err, f.file.Sync(), f.file.Close())
	if err == nil {
		err = os.Rename(f.file.Name(), final)
	}
	if err == nil {
		err = manifest.SyncDir(filepath.Dir(final))
	}
	if err != nil {
		return manifest.File{}, fmt.Errorf("typed: finish %s: %w", final, err)
	}
	return manifest.File{Name: filepath.ToSlash(name), First: first, End: end, Records: f.records, Rows: f.rows, Bytes: f.written, SHA256: hex.EncodeToString(f.digest.Sum(nil))}, nil
}

// abort removes the file.
func (f *file) abort() error {
	return errors.Join(f.file.Close(), os.Remove(f.file.Name()))
}

// size counts the bytes that are written to it.
type size int64

func (s *size) Write(p []byte) (int, error) {
	*s += size(len(p))
	return len(p), nil
}
