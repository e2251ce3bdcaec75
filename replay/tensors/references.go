package tensors

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/bus"
	"github.com/morphogenetic/oona/claimcheck"
	"github.com/morphogenetic/oona/intake"
	"github.com/morphogenetic/oona/schemas/avro"
)

// Digest is the SHA-256 of a tensor's elements.
type Digest = [sha256.Size]byte

// Place is the position of a record.
type Place struct {
	Topic     string `json:"topic"`
	Partition int32  `json:"partition"`
	Offset    int64  `json:"offset"`
}

func (p Place) String() string {
	return fmt.Sprintf("%s/%d at offset %d", p.Topic, p.Partition, p.Offset)
}

// Use says how the records that were read use a tensor.
type Use struct {
	Records int64 // number of records that refer to it
	First   Place
	// Accepted says that one of the records is a frame that ingest has accepted. So ingest has
	// stored the tensor, or has found it in the store.
	Accepted bool
	// Tensor is the description of the tensor in the first frame that was decoded, and Run and Layer
	// are the run and the layer of this frame. Tensor is nil if no frame was decoded.
	Run    oona.RunID
	Layer  oona.LayerID
	Tensor *oona.Tensor
}

// References has the tensors to which records refer. Nothing is removed from it: a record that is
// deleted from its topic still counts.
type References struct {
	Uses    map[Digest]*Use
	Records int64 // number of records that were read
	Claims  int64 // number of claims in decoded frames

	// Opaque is the number of records that may refer to tensors that are not in Uses, because their
	// value is compressed and cannot be read. FirstOpaque has the places of the first of them.
	Opaque      int64
	FirstOpaque []Place
}

// mostPlaces limits FirstOpaque.
const mostPlaces = 5

// NewReferences returns References of no records.
func NewReferences() *References { return &References{Uses: make(map[Digest]*Use)} }

// Add counts a record at a place that refers to a tensor.
func (r *References) Add(digest Digest, at Place) *Use {
	use := r.Uses[digest]
	if use == nil {
		use = &Use{First: at}
		r.Uses[digest] = use
	}
	use.Records++
	return use
}

// Log is the source of records, such as a bus or an archive.
type Log interface {
	Extents(ctx context.Context, topics ...string) (map[string][]bus.Extent, error)
	Read(ctx context.Context, topic string, r bus.Range, take func(*message.Message) error) error
}

// Reading reads topics of a log to their ends, and later from there to their new ends.
type Reading struct {
	Log  Log
	Into *References
	// Progress is called after each record. May be nil.
	Progress func()

	next map[string][]int64 // offset to continue from, by topic and partition
}

// ErrShrunk means that a partition ends before an offset that has been read.
var ErrShrunk = errors.New("the log has lost its end")

// Topic reads a topic from where an earlier call has ended to its end. accepted says that
// its records are frames that ingest has accepted. The records of other topics may have any
// form.
func (r *Reading) Topic(ctx context.Context, topic string, accepted bool) error {
	extents, err := r.Log.Extents(ctx, topic)
	if err != nil {
		return err
	}
	if r.next == nil {
		r.next = make(map[string][]int64)
	}
	find := &finder{into: r.Into, raw: !accepted, found: make(map[Digest]*Use)}
	for p, held := range extents[topic] {
		if p >= len(r.next[topic]) {
			r.next[topic] = append(r.next[topic], held.Start)
		}
		from := r.next[topic][p]
		if from > held.End {
			return fmt.Errorf("%s/%d: %w: it ends at offset %d, and was read up to %d", topic, p, ErrShrunk, held.End, from)
		}
		err := r.Log.Read(ctx, topic, bus.Range{Partition: int32(p), From: max(from, held.Start), End: held.End}, func(msg *message.Message) error {
			at, err := bus.PositionOf(msg)
			if err != nil {
				return err
			}
			find.record(msg, Place{topic, at.Partition, at.Offset})
			if r.Progress != nil {
				r.Progress()
			}
			return nil
		})
		if err != nil {
			return fmt.Errorf("read %s/%d to its end: %w", topic, p, err)
		}
		r.next[topic][p] = held.End
	}
	return nil
}

// finder finds the tensors to which a record refers. A record that cannot be decoded counts, too: it
// may be in a side topic because it has an error, and be sent again when the error is corrected. So
// finder searches every value for keys, and decodes it in addition.
type finder struct {
	into *References
	raw  bool

	found  map[Digest]*Use // of the record
	frames avro.FrameDecoder
	frame  oona.Frame
	bodies *intake.Decoder
}

// record adds the tensors to which a record refers.
func (f *finder) record(msg *message.Message, at Place) {
	f.into.Records++
	if !f.raw && msg.Metadata.Get(oona.HeaderRecord) != "" {
		return // one of Oona's own records; in other topics, the header proves nothing
	}
	clear(f.found)
	note := func(digest Digest) *Use {
		use := f.found[digest]
		if use == nil {
			use = f.into.Add(digest, at)
			f.found[digest] = use
			use.Accepted = use.Accepted || !f.raw
		}
		return use
	}
	value := []byte(msg.Payload)
	if rest, err := f.frames.Decode(value, &f.frame); err == nil && len(rest) == 0 {
		f.describe(note)
	}
	keys(value, note)
	if f.raw || intake.IsContainer(value) {
		f.body(value, note)
	}
	if f.opaque(value) {
		f.into.Opaque++
		if len(f.into.FirstOpaque) < mostPlaces {
			f.into.FirstOpaque = append(f.into.FirstOpaque, at)
		}
	}
}

// describe adds the claims of a decoded frame.
func (f *finder) describe(note func(Digest) *Use) {
	for i := range f.frame.Tensors {
		t := &f.frame.Tensors[i]
		if t.Claim == nil {
			continue
		}
		f.into.Claims++
		use := note(t.Claim.SHA256)
		if use.Tensor == nil {
			claim := *t.Claim
			use.Run, use.Layer = f.frame.Run, f.frame.Layer
			use.Tensor = &oona.Tensor{Name: t.Name, Seed: t.Seed, DType: t.DType, Shape: slices.Clone(t.Shape), Claim: &claim}
		}
	}
}

// body adds the tensors of a value that ingest may still accept: claims, and tensors that ingest will
// put into the store. In the topic of redrives, values contain repaired frames.
func (f *finder) body(value []byte, note func(Digest) *Use) {
	if f.bodies == nil {
		f.bodies = intake.NewDecoder(anyFrame)
	}
	batch := anyBody.NewBatch()
	switch text := bytes.TrimLeft(value, " \t\r\n"); {
	case len(text) == 0:
		return
	case text[0] == '{', text[0] == '[':
		f.bodies.JSON(value, batch)
		keys(unescape(value), note)
		var redrive struct{ Frames []byte }
		if json.Unmarshal(value, &redrive) == nil {
			keys(redrive.Frames, note)
		}
	default:
		f.bodies.Avro(value, batch)
	}
	for i := range batch.Tensors { // also those before a frame that was refused
		note(batch.Tensors[i].Claim.SHA256)
	}
}

// mostInflated limits the memory for a compressed value. Beyond it, the value counts as
// one that cannot be decompressed.
const mostInflated = 256 << 20

// Limits that a record does not exceed.
var (
	anyFrame = oona.FrameLimits{Seeds: math.MaxInt32, Metrics: math.MaxInt32, Tensors: math.MaxInt32}
	anyBody  = intake.Config{Frame: anyFrame, MaxFrames: math.MaxInt32, MaxDecompressedBytes: mostInflated, MaxRecordBytes: math.MaxInt32, Claims: anyClaim{}}
)

// anyClaim makes claims of all tensors, and accepts every claim.
type anyClaim struct{}

func (anyClaim) Claim(content []byte) oona.TensorClaim {
	digest := sha256.Sum256(content)
	return oona.TensorClaim{Bucket: "any", Key: claimcheck.Key(digest), Size: int64(len(content)), SHA256: digest}
}

func (anyClaim) Check(oona.TensorClaim) error { return nil }

// compressed has the first bytes of compressed values: gzip and zstd.
var compressed = [][]byte{[]byte("\x1f\x8b"), []byte("\x28\xb5\x2f\xfd")}

// opaque reports whether a value may have keys that a search does not find: it is
// compressed, and ingest could not decompress it.
func (f *finder) opaque(value []byte) bool {
	if intake.IsContainer(value) {
		err := f.frames.DecodeContainer(value, mostInflated, nil, &f.frame, func([]byte) error { return nil })
		return err != nil && !bytes.Contains(value[:min(len(value), containerHeader)], []byte("avro.codec\x08null"))
	}
	return slices.ContainsFunc(compressed, func(magic []byte) bool { return bytes.HasPrefix(value, magic) })
}

// containerHeader is the number of bytes at the beginning of a container in which its codec is searched
// for.
const containerHeader = 64 << 10

// keys finds the keys of tensors in a text.
func keys(text []byte, note func(Digest) *Use) {
	prefix := []byte(claimcheck.Prefix)
	size := len(claimcheck.Key(Digest{}))
	for {
		i := bytes.Index(text, prefix)
		if i < 0 || len(text)-i < size {
			return
		}
		if digest, ok := claimcheck.ParseKey(string(text[i : i+size])); ok {
			note(digest)
		}
		text = text[i+len(prefix):]
	}
}

// unescape replaces the escapes of JSON that a key may be written with.
func unescape(text []byte) []byte {
	if !bytes.ContainsRune(text, '\\') {
		return nil
	}
	out := make([]byte, 0, len(text))
	for i := 0; i < len(text); i++ {
		if text[i] != '\\' || i+1 == len(text) {
			out = append(out, text[i])
			continue
		}
		i++
		var b [2]byte
		if text[i] == 'u' && i+4 < len(text) {
			if _, err := hex.Decode(b[:], text[i+1:i+5]); err == nil && b[0] == 0 {
				out = append(out, b[1])
				i += 4
				continue
			}
		}
		out = append(out, text[i])
	}
	return out
}
