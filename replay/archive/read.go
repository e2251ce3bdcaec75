package archive

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/linkedin/goavro/v2"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/bus"
)

// ErrForm is returned for a file that is not an archive file, or is damaged.
var ErrForm = errors.New("not a whole archive file")

// Reader reads one file.
type Reader struct {
	Header Header

	name string
	file *os.File
	in   *goavro.OCFReader
}

// Open opens a file. The caller closes the Reader.
func Open(name string) (*Reader, error) {
	file, err := os.Open(name)
	if err != nil {
		return nil, fmt.Errorf("archive: %w", err)
	}
	r := &Reader{name: name, file: file}
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
		return fmt.Errorf("%w: its metadata lack %q", ErrForm, headerKey)
	}
	if err := json.Unmarshal(text, &r.Header); err != nil {
		return fmt.Errorf("%w: its %q: %w", ErrForm, headerKey, err)
	}
	return nil
}

// Close closes the file.
func (r *Reader) Close() error { return r.file.Close() }

// Each calls take with the records of the file, in order. It ends with the error of take.
// Messages and positions are as the bus would return them.
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

// nativeRecord is a record in goavro's form. It keeps the first error.
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
