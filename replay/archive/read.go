package archive

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"hash/crc32"
	"io"
	"os"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/linkedin/goavro/v2"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/bus"
	"github.com/morphogenetic/oona/replay/manifest"
)

// ErrForm is returned for a file that is not an archive file, or is damaged.
var ErrForm = errors.New("not a complete archive file, or it is damaged")

// Reader reads one file.
type Reader struct {
	Header Header

	name string
	file *hashed
	in   *goavro.OCFReader
}

// hashed is a file that hashes all bytes that are read from it.
type hashed struct {
	*os.File
	digest hash.Hash
	size   int64 // number of bytes that were read
}

// Read reads the next bytes.
func (h *hashed) Read(p []byte) (int, error) {
	n, err := h.File.Read(p)
	h.digest.Write(p[:n]) // it returns no error
	h.size += int64(n)
	return n, err
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Open opens a file. The caller closes the Reader.
func Open(name string) (*Reader, error) { return open(name, crc32.New(castagnoli)) }

// open opens a file, and hashes the bytes that are read from it.
func open(name string, digest hash.Hash) (*Reader, error) {
	file, err := os.Open(name)
	if err != nil {
		return nil, fmt.Errorf("archive: %w", err)
	}
	r := &Reader{name: name, file: &hashed{File: file, digest: digest}}
	if err := r.begin(); err != nil {
		return nil, errors.Join(fmt.Errorf("archive: %s: %w", name, err), file.Close())
	}
	return r, nil
}

func (r *Reader) begin() (err error) {
	if r.in, err = goavro.NewOCFReader(bufio.NewReaderSize(r.file, 1<<20)); err != nil {
		return fmt.Errorf("%w: %w", ErrForm, err)
	}
	text, found := r.in.MetaData()[headerKey]
	if !found {
		return fmt.Errorf("%w: its metadata has no %q", ErrForm, headerKey)
	}
	if err := json.Unmarshal(text, &r.Header); err != nil {
		return fmt.Errorf("%w: its %q: %w", ErrForm, headerKey, err)
	}
	return r.checkHeader(text)
}

// checkHeader returns an error if the header was changed. The marker of blocks, which is at the end of
// the file, is the hash of the header. The check is separate because sometimes only the header of a
// file is read.
func (r *Reader) checkHeader(text []byte) error {
	info, err := r.file.Stat()
	if err != nil {
		return err
	}
	var marker [markerBytes]byte
	if _, err := r.file.ReadAt(marker[:], info.Size()-markerBytes); err != nil {
		return err
	}
	if marker != markerOf(text) {
		return fmt.Errorf("%w: its header or its end was changed", ErrForm)
	}
	return nil
}

// quickest returns the hash with which a file is checked during a replay. SHA-256 takes a
// quarter of the time of folding the records, and CRC-32C much less. Archives of earlier
// versions have only SHA-256.
func quickest(f manifest.File) hash.Hash {
	if f.CRC32C == "" {
		return sha256.New()
	}
	return crc32.New(castagnoli)
}

// check reads the rest of the file, and returns an error if its size or hash differs from the
// manifest.
func (r *Reader) check(f manifest.File) error {
	if _, err := io.Copy(io.Discard, r.file); err != nil {
		return fmt.Errorf("archive: %s: %w", r.name, err)
	}
	return compare(r.name, r.file.size, r.file.digest, f)
}

// compare returns an error if the size or the hash of a file differs from the manifest.
func compare(name string, size int64, digest hash.Hash, f manifest.File) error {
	kind, want := "SHA-256", f.SHA256
	if digest.Size() == crc32.Size {
		kind, want = "CRC-32C", f.CRC32C
	}
	if sum := hex.EncodeToString(digest.Sum(nil)); sum != want || size != f.Bytes {
		return fmt.Errorf("archive: %w: %s has %d bytes with the %s %s, and the manifest says %d and %s", ErrForm, name, size, kind, sum, f.Bytes, want)
	}
	return nil
}

// Close closes the file.
func (r *Reader) Close() error { return r.file.Close() }

// Each calls take with the records of the file, in order, until take returns an error. Messages and
// positions are the same as from the bus.
func (r *Reader) Each(take func(*message.Message, bus.Position) error) error {
	for r.in.Scan() {
		datum, err := r.in.Read()
		if err != nil {
			return r.damaged(err)
		}
		msg, at, err := fromNative(datum)
		if err != nil {
			return r.damaged(err)
		}
		if err := take(msg, at); err != nil {
			return err
		}
	}
	if err := r.in.Err(); err != nil {
		return r.damaged(err)
	}
	return nil
}

func (r *Reader) damaged(err error) error {
	return fmt.Errorf("archive: %s: %w: %w", r.name, ErrForm, err)
}

// fromNative is the inverse of native.
func fromNative(datum any) (*message.Message, bus.Position, error) {
	fields, _ := datum.(map[string]any)
	f := nativeRecord{fields: fields}
	at := bus.Position{
		Topic: field[string](&f, "topic"), Partition: field[int32](&f, "partition"), Offset: field[int64](&f, "offset"),
		Appended: oona.MicrosOf(field[time.Time](&f, "append_time")), Incarnation: oona.Incarnation(field[int64](&f, "incarnation")),
		Key: f.optional("key"),
	}
	msg := message.NewMessage("", f.optional("value"))
	for _, h := range field[[]any](&f, "headers") {
		header := nativeRecord{}
		header.fields, _ = h.(map[string]any)
		msg.Metadata.Set(field[string](&header, "name"), string(field[[]byte](&header, "value")))
		if f.wrong == nil {
			f.wrong = header.wrong
		}
	}
	msg.SetContext(bus.WithPosition(context.Background(), at))
	return msg, at, f.wrong
}

// nativeRecord is a record in goavro's form. Its methods keep the first error.
type nativeRecord struct {
	fields map[string]any
	wrong  error
}

// field returns a field of a record, or the zero value if it is of another type.
func field[T any](r *nativeRecord, name string) (v T) {
	v, ok := r.fields[name].(T)
	if !ok && r.wrong == nil {
		r.wrong = fmt.Errorf("the field %s is %T", name, r.fields[name])
	}
	return v
}

// optional returns a field that is bytes or null.
func (r *nativeRecord) optional(name string) []byte {
	if v, found := r.fields[name]; found && v == nil {
		return nil
	}
	union := field[map[string]any](r, name)
	inner := nativeRecord{fields: union}
	b := field[[]byte](&inner, "bytes")
	if r.wrong == nil {
		r.wrong = inner.wrong
	}
	if b == nil {
		b = []byte{}
	}
	return b
}
