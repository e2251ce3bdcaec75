package tensors

import (
	"bufio"
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/bus"
	"github.com/morphogenetic/oona/replay"
	"github.com/morphogenetic/oona/replay/records"
)

// Output resolves the tensors of the frames that it passes on to another output. Beside
// the files of the tensors it writes an index of them for each partition, in which every
// line is an Entry as JSON:
//
//	DIR/tensors/TOPIC-00003.jsonl
//
// However often a replay is interrupted and resumed, the index is the same as after a single
// run. Like other outputs, it is not safe for concurrent use.
type Output struct {
	Next     replay.Output
	Topics   oona.Topics
	Resolver *Resolver

	lost map[*oona.Tensor]error // why tensors of the frame cannot be resolved
}

// Entry is a tensor of a frame.
type Entry struct {
	Topic      string          `json:"topic"`
	Partition  int32           `json:"partition"`
	Offset     int64           `json:"offset"`
	Run        oona.RunID      `json:"run_id"`
	Layer      oona.LayerID    `json:"layer_id"`
	Timeline   oona.TimelineID `json:"timeline,omitempty"`
	Producer   oona.ProducerID `json:"producer_id"`
	Epoch      oona.Micros     `json:"producer_epoch"`
	Sequence   int64           `json:"sequence"`
	ObservedAt oona.Micros     `json:"observed_at"`
	Step       int64           `json:"step"`
	Seed       oona.SeedID     `json:"seed_id"`
	Name       string          `json:"name"`
	DType      string          `json:"dtype"`
	Shape      []int64         `json:"shape"`
	SHA256     string          `json:"sha256"`
	File       string          `json:"file,omitempty"` // in the same folder
	Lost       string          `json:"lost,omitempty"` // why there is no file
}

// indexName returns the name of the index of a partition.
func indexName(topic string, partition int32) string {
	return fmt.Sprintf("%s-%05d.jsonl", topic, partition)
}

// endSuffix is the end of the name of a file that says up to which offset an index was
// finished. Frames without tensors leave no line in the index.
const endSuffix = ".end"

// Open begins or resumes a range. It may return an offset before the one that Next needs, if tensors of
// earlier records were not resolved.
func (o *Output) Open(ctx context.Context, topic string, r bus.Range) (replay.Writer, int64, error) {
	next, from, err := o.Next.Open(ctx, topic, r)
	if err != nil || o.Topics.Schema(topic) == oona.RollupSchema {
		return next, from, err
	}
	if o.lost == nil {
		o.lost = make(map[*oona.Tensor]error)
		if told := o.Resolver.Lost; told != nil {
			o.Resolver.Lost = func(f *oona.Frame, t *oona.Tensor, why error) { o.lost[t] = why; told(f, t, why) }
		}
	}
	w := &writer{Writer: next, ctx: ctx, output: o, needs: from, name: filepath.Join(o.Resolver.Dir, Folder, indexName(topic, r.Partition))}
	resolved, err := w.open()
	from = max(r.From, min(from, resolved))
	if err == nil {
		err = w.cut(from)
	}
	if err != nil {
		return nil, 0, errors.Join(fmt.Errorf("index of tensors: %w", err), next.Abort())
	}
	return w, from, nil
}

// writer resolves the frames of a range.
type writer struct {
	replay.Writer

	ctx    context.Context // context of the range
	output *Output
	needs  int64 // first offset that the Writer needs
	name   string
	index  *os.File
}

// open opens the index, and returns the offset up to which all tensors were resolved.
func (w *writer) open() (resolved int64, err error) {
	if err := os.MkdirAll(filepath.Dir(w.name), 0o777); err != nil {
		return 0, err
	}
	if w.index, err = os.OpenFile(w.name, os.O_RDWR|os.O_CREATE, 0o666); err != nil {
		return 0, err
	}
	// The last frame may lack lines, so it is resolved again.
	_, err = w.each(func(e *Entry) bool { resolved = e.Offset; return true })
	if err == nil {
		var end []byte
		if end, err = os.ReadFile(w.name + endSuffix); err == nil {
			var n int64
			n, err = strconv.ParseInt(strings.TrimSpace(string(end)), 10, 64)
			resolved = max(resolved, n)
		} else if errors.Is(err, fs.ErrNotExist) {
			err = nil
		}
	}
	if err != nil {
		err = errors.Join(err, w.index.Close())
	}
	return resolved, err
}

// each calls take with the entries of the index as long as take returns true. It returns the size of
// these entries. It stops at an incomplete line, which a killed process or a crash of the system may
// have left.
func (w *writer) each(take func(*Entry) bool) (size int64, err error) {
	if _, err := w.index.Seek(0, io.SeekStart); err != nil {
		return 0, err
	}
	for lines := bufio.NewReader(w.index); ; {
		line, err := lines.ReadBytes('\n')
		if err != nil && !errors.Is(err, io.EOF) {
			return 0, err
		}
		var entry Entry
		if err != nil || json.Unmarshal(line, &entry) != nil || !take(&entry) {
			return size, nil
		}
		size += int64(len(line))
	}
}

// cut removes the entries from an offset on from the index. Writing continues there.
func (w *writer) cut(offset int64) error {
	size, err := w.each(func(e *Entry) bool { return e.Offset < offset })
	if err == nil {
		err = w.index.Truncate(size)
	}
	if err == nil {
		_, err = w.index.Seek(size, io.SeekStart)
	}
	if err != nil {
		err = errors.Join(err, w.index.Close())
	}
	return err
}

// Write resolves the tensors of a frame before the frame is written.
func (w *writer) Write(r *records.Record) error {
	if r.Selected && r.Frame != nil && len(r.Frame.Tensors) > 0 {
		clear(w.output.lost)
		if err := w.output.Resolver.Frame(w.ctx, r.Frame); err != nil {
			return err
		}
		if _, err := w.index.Write(w.output.lines(r)); err != nil {
			return fmt.Errorf("index of tensors: %w", err)
		}
	}
	if r.At.Offset < w.needs {
		return nil
	}
	return w.Writer.Write(r)
}

// lines returns the lines of the index about a frame.
func (o *Output) lines(r *records.Record) []byte {
	var text bytes.Buffer
	encoder := json.NewEncoder(&text)
	f := r.Frame
	for i := range f.Tensors {
		t := &f.Tensors[i]
		digest, _ := DigestOf(t)
		entry := Entry{
			Topic: r.At.Topic, Partition: r.At.Partition, Offset: r.At.Offset,
			Run: f.Run, Layer: f.Layer, Timeline: f.Timeline, Producer: f.Producer, Epoch: f.Epoch, Sequence: f.Sequence, ObservedAt: f.ObservedAt, Step: f.Step,
			Seed: t.Seed, Name: t.Name, DType: t.DType, Shape: t.Shape, SHA256: hex.EncodeToString(digest[:]),
		}
		if entry.Shape == nil {
			entry.Shape = []int64{}
		}
		if why := o.lost[t]; why != nil {
			entry.Lost = reason(why)
		} else {
			entry.File = FileName(digest, t.DType, t.Shape)
		}
		_ = encoder.Encode(entry) // it has nothing that cannot be encoded, and a Buffer does not fail
	}
	return text.Bytes()
}

// Close ends the range. The index is on disk when it returns.
func (w *writer) Close(end int64) error {
	err := w.Writer.Close(end)
	err = errors.Join(err, w.index.Sync(), w.index.Close())
	if err != nil {
		return err
	}
	name := w.name + endSuffix
	err = os.WriteFile(name+temporary, strconv.AppendInt(nil, end, 10), 0o666)
	if err == nil {
		err = os.Rename(name+temporary, name)
	}
	if err != nil {
		return fmt.Errorf("index of tensors: %w", err)
	}
	return syncFolder(filepath.Dir(name))
}

// Abort ends the range after an error.
func (w *writer) Abort() error {
	return errors.Join(w.Writer.Abort(), w.index.Sync(), w.index.Close())
}
