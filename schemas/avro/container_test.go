package avro

import (
	"bytes"
	"compress/flate"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/klauspost/compress/snappy"
	"github.com/klauspost/compress/zstd"
	"github.com/linkedin/goavro/v2"
	"github.com/twmb/avro/ocf"

	"github.com/morphogenetic/oona"
)

const roomy = 1 << 20 // bytes; more than any container of these tests

// decodeContainer returns the single objects of a container. Each must equal the frame that
// was decoded with it.
func decodeContainer(t testing.TB, d *FrameDecoder, file []byte, limit int) ([][]byte, error) {
	var singles [][]byte
	var f, again oona.Frame
	err := d.DecodeContainer(file, limit, nil, &f, func(single []byte) error {
		if rest, err := new(FrameDecoder).Decode(single, &again); err != nil || len(rest) > 0 {
			t.Fatalf("a single object cannot be read: %v, %d bytes are left", err, len(rest))
		}
		equalFrames(t, &f, &again)
		singles = append(singles, single)
		return nil
	})
	return singles, err
}

func containerFrames() [][]byte {
	blocky := frameHead().long(-3, 3, 5, 6, 7, 1, 8, 0).raw(0, 0, 0) // seed_ids in two blocks
	return [][]byte{AppendFrame(nil, sampleFrame()), blocky, AppendFrame(nil, layerFrame(300)), AppendFrame(nil, sampleFrame())}
}

// Frames in a container have the same bytes as on their own, whichever library wrote it.
func TestContainers(t *testing.T) {
	want := containerFrames()
	schema := published.latest[seedMetrics]
	zstandard, err := ocf.ZstdCodec(nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	check := func(name string, file []byte, want [][]byte) {
		got, err := decodeContainer(t, &FrameDecoder{Limits: oona.DefaultFrameLimits}, file, roomy)
		if err != nil || !slices.EqualFunc(got, want, bytes.Equal) {
			t.Errorf("%s: %d of %d frames are the same, %v", name, len(got), len(want), err)
		}
	}
	for _, perBlock := range []int{1, 3, 100} {
		for _, codec := range []ocf.Codec{nil, ocf.DeflateCodec(6), ocf.SnappyCodec(), ocf.NopCloser(zstandard)} {
			var file bytes.Buffer
			options := []ocf.WriterOpt{ocf.WithBlockCount(perBlock), ocf.WithMetadata(map[string][]byte{"trainer": []byte("x")})}
			name := "null"
			if codec != nil {
				options, name = append(options, ocf.WithCodec(codec)), codec.Name()
			}
			w, err := ocf.NewWriter(&file, schema.parsed, options...)
			if err != nil {
				t.Fatal(err)
			}
			for _, single := range want {
				if _, err := w.Write(single[framingSize:]); err != nil {
					t.Fatal(err)
				}
			}
			if err := w.Close(); err != nil {
				t.Fatal(err)
			}
			check(fmt.Sprintf("%s, %d a block", name, perBlock), file.Bytes(), want)
		}
	}
	for _, codec := range []string{goavro.CompressionNullLabel, goavro.CompressionDeflateLabel, goavro.CompressionSnappyLabel} {
		var file bytes.Buffer
		w, err := goavro.NewOCFWriter(goavro.OCFConfig{W: &file, Schema: string(schema.parsed.Canonical()), CompressionName: codec})
		if err != nil {
			t.Fatal(err)
		}
		if err := w.Append([]any{nativeFrame(sampleFrame())}); err != nil {
			t.Fatal(err)
		}
		check("goavro, "+codec, file.Bytes(), want[:1])
	}
	check("no frames", container(t, schema.parsed), nil)
}

// containerHead is a file's beginning, up to its blocks.
func containerHead(codec string) wire {
	return wire(ContainerMagic).long(2).text("avro.schema").text(published.latest[seedMetrics].Text).
		text("avro.codec").text(codec).long(0).raw(zeroSync...)
}

var zeroSync = make([]byte, syncSize)

func (w wire) block(count int64, stored []byte) wire {
	return w.long(count).text(string(stored)).raw(zeroSync...)
}

func deflated(data []byte) []byte {
	var out bytes.Buffer
	w, _ := flate.NewWriter(&out, flate.BestSpeed) // the level exists
	_, _ = w.Write(data)                           // a buffer takes everything
	_ = w.Close()
	return out.Bytes()
}

func snapped(data []byte) []byte {
	return binary.BigEndian.AppendUint32(snappy.Encode(nil, data), crc32.ChecksumIEEE(data))
}

func zstandarded(t testing.TB, data []byte) []byte {
	w, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	return w.EncodeAll(data, nil)
}

func TestBadContainers(t *testing.T) {
	frame := AppendFrame(nil, sampleFrame())[framingSize:]
	good := containerHead("null").block(1, frame)
	badSum := snapped(frame)
	badSum[len(badSum)-1] ^= 1
	zeros := make([]byte, 8<<20)
	of := func(schema string) wire {
		return wire(ContainerMagic).long(1).text("avro.schema").text(schema).long(0).raw(zeroSync...).block(1, frame)
	}
	for name, c := range map[string]struct {
		file   wire
		frames int
		field  string
		want   error
	}{
		"no magic":              {wire("Obj\x02"), 0, "magic", ErrMalformed},
		"magic only":            {wire(ContainerMagic), 0, "metadata", ErrTruncated},
		"2^40 metadata":         {wire(ContainerMagic).long(1 << 40), 0, "metadata", ErrTruncated},
		"metadata in a block":   {wire(ContainerMagic).long(-1, 99).text("a").text("b"), 0, "metadata", errBlockCut},
		"no schema":             {wire(ContainerMagic).long(0).raw(zeroSync...), 0, "avro.schema", ErrMalformed},
		"not a schema":          {of("{"), 0, "avro.schema", ErrMalformed},
		"schema without end":    {of(strings.Repeat(`{"type":"array","items":`, 2000)), 0, "avro.schema", ErrMalformed},
		"large schema":          {of(`"` + strings.Repeat("x", 1<<17) + `"`), 0, "avro.schema", ErrFingerprint},
		"of ticks":              {of(published.latest[tick].Text), 0, "avro.schema", ErrFingerprint},
		"of numbers":            {of(`"long"`), 0, "avro.schema", ErrFingerprint},
		"of a union":            {of(unionOf(seedMetrics, seedEvent)), 0, "avro.schema", ErrFingerprint},
		"unpublished version":   {of(strings.Replace(published.latest[seedMetrics].Text, `"step"`, `"steps"`, 1)), 0, "avro.schema", ErrFingerprint},
		"no sync marker":        {containerHead("null")[:len(containerHead("null"))-1], 0, "sync", ErrTruncated},
		"unknown codec":         {containerHead("bzip2").block(1, frame), 0, "block", ErrMalformed},
		"wrong sync marker":     {good[:len(good)-1].raw(1), 0, "block", ErrMalformed},
		"cut in a block":        {good[:len(good)-20], 0, "block", ErrTruncated},
		"cut behind a block":    {good.block(1, frame)[:len(good)+1], 1, "block", ErrTruncated},
		"negative count":        {containerHead("null").block(-1, frame), 0, "block", ErrMalformed},
		"negative size":         {containerHead("null").long(1, -5), 0, "block", ErrMalformed},
		"2^40 bytes":            {containerHead("null").long(1, 1<<40), 0, "block", ErrTruncated},
		"2^62 frames":           {containerHead("null").block(1<<62, frame), 1, "run_id", ErrTruncated},
		"fewer frames":          {good.block(1, append(slices.Clip(frame), frame...)), 2, "block", ErrMalformed},
		"frames in an empty":    {good.block(0, frame), 1, "block", ErrMalformed},
		"bad second":            {good.block(2, append(slices.Clip(frame), 9)), 2, "run_id", ErrMalformed},
		"not deflate":           {containerHead("deflate").block(1, frame), 0, "block", ErrMalformed},
		"deflate cut off":       {containerHead("deflate").block(1, deflated(frame)[:9]), 0, "block", ErrMalformed},
		"deflate bomb":          {containerHead("deflate").block(1, deflated(zeros)), 0, "block", ErrInflated},
		"not snappy":            {containerHead("snappy").block(1, frame), 0, "block", ErrMalformed},
		"snappy without a sum":  {containerHead("snappy").block(1, []byte{1}), 0, "block", ErrMalformed},
		"snappy's other sum":    {containerHead("snappy").block(1, badSum), 0, "block", ErrMalformed},
		"snappy bomb":           {containerHead("snappy").block(1, snapped(zeros)), 0, "block", ErrInflated},
		"snappy announces much": {containerHead("snappy").block(1, append(binary.AppendUvarint(nil, math.MaxUint32), 0, 0, 0, 0)), 0, "block", ErrInflated},
		"not zstandard":         {containerHead("zstandard").block(1, frame), 0, "block", ErrMalformed},
		"zstandard cut off":     {containerHead("zstandard").block(1, zstandarded(t, frame)[:9]), 0, "block", ErrMalformed},
		"zstandard window":      {containerHead("zstandard").block(1, []byte{0x28, 0xb5, 0x2f, 0xfd, 0x00, 20 << 3, 1, 0, 0}), 0, "block", ErrMalformed},
		"zstandard bomb":        {containerHead("zstandard").block(1, zstandarded(t, zeros)), 0, "block", ErrInflated},
		"too much in all":       {good.block(1, frame).block(700, bytes.Repeat(frame, 700)), 2, "block", ErrInflated},
	} {
		t.Run(name, func(t *testing.T) {
			const limit = 1 << 16
			var frames int
			var err error
			allocated := bytesAllocated(func() {
				var f oona.Frame
				d := FrameDecoder{Limits: oona.DefaultFrameLimits}
				err = d.DecodeContainer(c.file, limit, nil, &f, func([]byte) error { frames++; return nil })
			})
			var where *DecodeError
			if !errors.As(err, &where) || !errors.Is(err, c.want) || where.Field != c.field {
				t.Errorf("error is %v of %+v, want %v of %s", err, where, c.want, c.field)
			}
			if frames != c.frames {
				t.Errorf("%d frames before it, want %d", frames, c.frames)
			}
			if most := uint64(8*limit + 64*len(c.file)); allocated > most {
				t.Errorf("%d bytes were allocated for %d bytes of data, want at most %d", allocated, len(c.file), most)
			}
		})
	}
}

// Memory is reserved before it is allocated, and returned when it is free. At the end, the
// memory of the frames is still reserved.
func TestContainerReserves(t *testing.T) {
	const count, limit = 3 * framedInPlace, 8 << 20 // some are copied
	frame := AppendFrame(nil, layerFrame(20))[framingSize:]
	data := bytes.Repeat(frame, count)
	streamed := func() []byte { // it does not say how long it is
		var out bytes.Buffer
		w, err := zstd.NewWriter(&out)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = w.Write(data) // a buffer takes everything
		_ = w.Close()
		return out.Bytes()
	}()
	for name, c := range map[string]struct {
		codec string
		block []byte
		most  int // reserved at a time
	}{
		"null":               {"null", data, 3 * len(data)},
		"deflate":            {"deflate", deflated(data), 4 * len(data)},
		"snappy":             {"snappy", snapped(data), 3 * len(data)},
		"zstandard":          {"zstandard", zstandarded(t, data), 3 * len(data)},
		"zstandard streamed": {"zstandard", streamed, limit + 3*len(data)},
	} {
		t.Run(name, func(t *testing.T) {
			file := containerHead(c.codec).block(count, c.block)
			reserved, most := 0, 0
			var singles [][]byte
			allocated := bytesAllocated(func() {
				err := new(FrameDecoder).DecodeContainer(file, limit, func(n int) error {
					reserved += n
					most = max(most, reserved)
					return nil
				}, new(oona.Frame), func(single []byte) error { singles = append(singles, single); return nil })
				if err != nil {
					t.Fatal(err)
				}
			})
			for _, single := range singles {
				if !bytes.Equal(single[framingSize:], frame) || cap(single) != len(single) {
					t.Fatalf("%x with room for %d comes of %x", single, cap(single), frame)
				}
			}
			if len(singles) != count || reserved < len(data) || reserved > 3*len(data) || most > c.most {
				t.Errorf("%d frames; for %d bytes %d are reserved, %d at most", len(singles), len(data), reserved, most)
			}
			if most := uint64(2*most + 1<<20); allocated > most { // what grew, tables of the codec, and singles
				t.Errorf("%d bytes were allocated, at most %d are allowed", allocated, most)
			}
			denied := errors.New("denied")
			err := new(FrameDecoder).DecodeContainer(file, limit, func(int) error { return denied }, new(oona.Frame), func([]byte) error { return nil })
			if err != denied { //nolint:errorlint // it is to be the same
				t.Errorf("%v", err)
			}
		})
	}
}

// An error of each ends the reading.
func TestContainerEndsWhenTold(t *testing.T) {
	enough := errors.New("enough")
	frame := AppendFrame(nil, sampleFrame())[framingSize:]
	var d FrameDecoder
	calls := 0
	err := d.DecodeContainer(containerHead("null").block(2, append(slices.Clip(frame), frame...)), roomy, nil, new(oona.Frame), func([]byte) error {
		calls++
		return enough
	})
	if err != enough || calls != 1 { //nolint:errorlint // it is to be the same
		t.Errorf("%d calls, %v", calls, err)
	}
}

// Blocks share one flate reader, and the number of blocks without frames is limited.
func TestManyBlocks(t *testing.T) {
	single := AppendFrame(nil, layerFrame(1))
	frame, nothing := deflated(single[framingSize:]), deflated(nil)
	many := containerHead("deflate")
	for range mostEmpty {
		many = many.block(0, nothing)
	}
	many = many.block(1, frame)
	allocated := bytesAllocated(func() {
		if singles, err := decodeContainer(t, new(FrameDecoder), many, roomy); err != nil || len(singles) != 1 {
			t.Fatalf("%d frames, %v", len(singles), err)
		}
	})
	if most := uint64(8 << 10 * mostEmpty); allocated > most { // a flate reader takes 40 kB
		t.Errorf("%d bytes were allocated for %d blocks, want at most %d", allocated, mostEmpty+1, most)
	}
	_, err := decodeContainer(t, new(FrameDecoder), many.block(0, nothing), roomy)
	var where *DecodeError
	if !errors.As(err, &where) || where.Field != "block" || !errors.Is(err, ErrMalformed) {
		t.Errorf("one block too many: %v", err)
	}
}

func FuzzContainer(f *testing.F) {
	frame := AppendFrame(nil, sampleFrame())[framingSize:]
	codecs := []string{"null", "deflate", "snappy", "zstandard"}
	f.Add(uint8(0), []byte(wire(nil).block(1, frame).block(0, nil)))
	f.Add(uint8(1), []byte(wire(nil).block(2, deflated(append(slices.Clip(frame), frame...)))))
	f.Add(uint8(2), []byte(wire(nil).block(1, snapped(frame))))
	f.Add(uint8(3), []byte(wire(nil).block(1, zstandarded(f, frame))))
	f.Fuzz(func(t *testing.T, codec uint8, blocks []byte) {
		const limit = 1 << 16
		file := containerHead(codecs[int(codec)%len(codecs)]).raw(blocks...)
		d := FrameDecoder{Limits: oona.FrameLimits{Seeds: 100, Metrics: 10, Tensors: 10}}
		var singles [][]byte
		var err error
		allocated := bytesAllocated(func() { singles, err = decodeContainer(t, &d, file, limit) })
		if most := uint64(64*limit + 256*len(file)); allocated > most {
			t.Fatalf("%d bytes were allocated for %d, want at most %d", allocated, len(file), most)
		}
		if err != nil {
			var where *DecodeError
			if !errors.As(err, &where) {
				t.Fatalf("error without its place: %v", err)
			}
			return
		}
		sameAsRecorded(t, singles, file)
	})
}

func sameAsRecorded(t *testing.T, singles [][]byte, file []byte) {
	r, err := NewRecordingReader(bytes.NewReader(file))
	if err != nil {
		t.Fatalf("accepted, but twmb/avro: %v", err)
	}
	for i, single := range singles {
		entry, err := r.Next()
		if err != nil {
			t.Fatalf("accepted, but twmb/avro at entry %d: %v", i, err)
		}
		var ours oona.Frame
		if _, err := new(FrameDecoder).Decode(single, &ours); err != nil {
			t.Fatal(err)
		}
		equalFrames(t, &ours, entry.Frame)
	}
	if entry, err := r.Next(); err == nil {
		t.Fatalf("twmb/avro has one more: %+v", entry)
	}
}
