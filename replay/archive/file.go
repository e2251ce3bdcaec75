package archive

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/linkedin/goavro/v2"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/bus"
	"github.com/morphogenetic/oona/replay/manifest"
	"github.com/morphogenetic/oona/schemas/avro"
)

// headerKey is the name of the entry with the Header, as JSON, in the metadata of the Avro object
// container file.
const headerKey = "oona.archive"

// Header says what a file has. It is written before the first record, so it does not say where the
// file ends. The name of a finished file does.
type Header struct {
	Topic       string           `json:"topic"`
	Partition   int32            `json:"partition"`
	Partitions  int32            `json:"partitions"`  // number of partitions of the topic
	First       int64            `json:"first"`       // offset from which the file holds all records
	Incarnation oona.Incarnation `json:"incarnation"` // of the log before the first record; 0 if it is not known
	// Snapshot is the state of the window engine before the first record that was asked
	// for. It is nil if the state is not known, or if the topic is not folded.
	Snapshot *Snapshot `json:"snapshot,omitempty"`
	// Windows is the configuration of the windows that was last written to the partition
	// when the file was written, as avro.AppendWindowConfiguration encodes it. It is set only
	// if the topic is folded and the Snapshot is not known.
	Windows []byte `json:"windows,omitempty"`
}

// Snapshot is the commit that an aggregator would make at an offset.
type Snapshot struct {
	Offset   int64  `json:"offset"`   // offset of the first record that is needed
	Metadata string `json:"metadata"` // see aggregate.ParseCommit
}

// Codecs are the codecs of blocks, by their names in Avro.
var Codecs = []string{goavro.CompressionNullLabel, goavro.CompressionDeflateLabel, goavro.CompressionSnappyLabel}

// Limits of a block. goavro has them as global variables. They bound the memory that a damaged file
// can take. A block of this package has one record.
const (
	maxBlockRecords = 1 << 16
	maxBlockBytes   = 64 << 20
)

func init() {
	goavro.MaxBlockCount, goavro.MaxBlockSize = maxBlockRecords, maxBlockBytes
}

// codec returns the Avro codec of the archive's records.
func codec() (*goavro.Codec, error) {
	for _, s := range avro.Schemas() {
		if s.Name == "kasmina.archive.Record" {
			return goavro.NewCodec(s.Text)
		}
	}
	return nil, errors.New("archive: the schema of the archive's records is missing from this program")
}

// Writer writes one file. The file has a temporary name until Finish.
type Writer struct {
	header  Header
	dir     string
	disk    *disk
	out     *goavro.OCFWriter // nil if blocks are not compressed
	marker  [markerBytes]byte // written after each block
	head    []byte            // buffer of Append
	records int64
	latest  int64
	last    manifest.Last
}

// folder returns the folder of a partition's files, relative to the directory.
func folder(topic string, partition int32) string {
	return filepath.Join(topic, fmt.Sprintf("partition-%05d", partition))
}

// fileName matches the names of files, finished or not.
var fileName = regexp.MustCompile(`^[0-9]{20}(-[0-9]{20}\.avro|` + regexp.QuoteMeta(manifest.Temporary) + `)$`)

// Sweep removes the files of a partition that a killed program has left: files that are not
// finished, and a finished file that is not in the manifest yet.
func Sweep(dir, topic string, partition int32, files []manifest.File) error {
	at := folder(topic, partition)
	entries, err := os.ReadDir(filepath.Join(dir, at))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("archive: %w", err)
	}
	for _, e := range entries {
		name := filepath.ToSlash(filepath.Join(at, e.Name()))
		known := slices.ContainsFunc(files, func(f manifest.File) bool { return f.Name == name })
		if known || !fileName.MatchString(e.Name()) {
			continue
		}
		if err := remove(filepath.Join(dir, at, e.Name())); err != nil {
			return fmt.Errorf("archive: %w", err)
		}
	}
	return nil
}

// Create begins a file in a directory. The bytes of the file depend only on the header, the
// codec and the records.
func Create(dir string, h Header, codecName string) (*Writer, error) {
	meta, err := json.Marshal(h)
	if err != nil {
		return nil, fmt.Errorf("archive: write the header: %w", err)
	}
	avroCodec, err := codec()
	if err != nil {
		return nil, err
	}
	at := filepath.Join(dir, folder(h.Topic, h.Partition))
	if err := os.MkdirAll(at, 0o777); err != nil {
		return nil, fmt.Errorf("archive: %w", err)
	}
	file, err := os.Create(filepath.Join(at, fmt.Sprintf("%020d", h.First)+manifest.Temporary))
	if err != nil {
		return nil, fmt.Errorf("archive: %w", err)
	}
	w := &Writer{header: h, dir: dir, disk: newDisk(file)}
	if err := w.begin(meta, avroCodec, codecName); err != nil {
		return nil, errors.Join(fmt.Errorf("archive: begin %s: %w", file.Name(), err), w.Abort())
	}
	return w, nil
}

// begin writes the header of the Avro object container file. goavro would write the metadata in
// random order and use a random marker, so the same records would give different bytes.
func (w *Writer) begin(meta []byte, c *goavro.Codec, codecName string) (err error) {
	w.marker = markerOf(meta)
	if codecName != goavro.CompressionNullLabel {
		to := &switched{to: io.Discard}
		w.out, err = goavro.NewOCFWriter(goavro.OCFConfig{W: to, Codec: c, CompressionName: codecName, SyncMarker: w.marker})
		if err != nil {
			return err
		}
		to.to = w.disk
	}
	entries := [][2]string{{"avro.codec", codecName}, {"avro.schema", c.Schema()}, {headerKey, string(meta)}}
	head := binary.AppendVarint([]byte(avro.ContainerMagic), int64(len(entries)))
	for _, entry := range entries {
		for _, text := range entry {
			head = append(binary.AppendVarint(head, int64(len(text))), text...)
		}
	}
	head = append(append(head, 0), w.marker[:]...)
	_, err = w.disk.Write(head)
	return err
}

// markerBytes is the size of the marker after the header and each block.
const markerBytes = 16

// markerOf returns the marker of a file with a header. It is a hash, so that a reader can check the
// header.
func markerOf(header []byte) [markerBytes]byte {
	sum := sha256.Sum256(header)
	return [markerBytes]byte(sum[:markerBytes])
}

// switched is a writer whose target can be changed.
type switched struct{ to io.Writer }

func (s *switched) Write(p []byte) (int, error) { return s.to.Write(p) }

// Append writes a record as a block of its own, so that a reader needs only the memory of one
// record. The offsets of the records of a file must ascend.
func (w *Writer) Append(msg *message.Message, at bus.Position) error {
	var err error
	if w.out != nil {
		err = w.out.Append([]any{native(msg, at)})
	} else {
		err = w.appendPlain(msg, at)
	}
	if err != nil {
		return fmt.Errorf("archive: write offset %d of %s/%d: %w", at.Offset, at.Topic, at.Partition, err)
	}
	w.records++
	w.latest = max(w.latest, int64(at.Appended))
	w.last = manifest.Last{Offset: at.Offset, AppendTime: int64(at.Appended)}
	return nil
}

// appendPlain writes a record as a block that is not compressed.
func (w *Writer) appendPlain(msg *message.Message, at bus.Position) error {
	w.head = encodeHead(w.head[:0], msg, at)
	block := binary.AppendVarint(append(make([]byte, 0, 16), 2), int64(len(w.head)+len(msg.Payload))) // one record
	for _, part := range [][]byte{block, w.head, msg.Payload, w.marker[:]} {
		if _, err := w.disk.Write(part); err != nil {
			return err
		}
	}
	return nil
}

// native returns a record in goavro's form. Headers are sorted by name, because the bus does not keep
// their order. It keeps only one header of each name.
func native(msg *message.Message, at bus.Position) map[string]any {
	headers := make([]any, 0, len(msg.Metadata))
	for _, name := range slices.Sorted(maps.Keys(msg.Metadata)) {
		headers = append(headers, map[string]any{"name": name, "value": []byte(msg.Metadata[name])})
	}
	return map[string]any{
		"topic": at.Topic, "partition": at.Partition, "incarnation": int64(at.Incarnation), "offset": at.Offset,
		"append_time": at.Appended.Time(), "key": optional(at.Key), "headers": headers, "value": optional(msg.Payload),
	}
}

func optional(b []byte) any {
	if b == nil {
		return nil
	}
	return goavro.Union("bytes", b)
}

// Size returns how many bytes were written, of which some may still be in a buffer.
func (w *Writer) Size() int64 { return w.disk.size }

// Finish ends the file at an offset: the file has all records from Header.First up to end. It is on
// disk, under its final name, when Finish returns.
func (w *Writer) Finish(end int64) (manifest.File, error) {
	name := filepath.Join(folder(w.header.Topic, w.header.Partition), fmt.Sprintf("%020d-%020d.avro", w.header.First, end-1))
	final := filepath.Join(w.dir, name)
	sum, err := w.disk.finish()
	if err == nil {
		err = os.Rename(w.disk.file.Name(), final)
	}
	if err == nil {
		err = manifest.SyncDir(filepath.Dir(final))
	}
	if err != nil {
		return manifest.File{}, fmt.Errorf("archive: finish %s: %w", final, errors.Join(err, remove(w.disk.file.Name())))
	}
	return manifest.File{
		Name: filepath.ToSlash(name), First: w.header.First, End: end, Records: w.records, Bytes: w.disk.size,
		SHA256: hex.EncodeToString(sum), CRC32C: hex.EncodeToString(w.disk.check.Sum(nil)), Latest: w.latest, Last: w.last,
	}, nil
}

// Abort removes an unfinished file.
func (w *Writer) Abort() error {
	w.disk.end()
	return errors.Join(w.disk.file.Close(), remove(w.disk.file.Name()))
}

func remove(name string) error {
	if err := os.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}
