package ingest

import (
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"slices"
	"testing"

	"github.com/klauspost/compress/zstd"
	twmb "github.com/twmb/avro"
	"github.com/twmb/avro/ocf"

	"github.com/morphogenetic/oona/schemas/avro"
)

// Bodies as trainers make them, made with other libraries than the stage uses.

func gzipped(body []byte) []byte {
	var out bytes.Buffer
	w, _ := gzip.NewWriterLevel(&out, gzip.BestSpeed) // the level exists
	_, _ = w.Write(body)                              // a buffer takes everything
	_ = w.Close()
	return out.Bytes()
}

func zstandarded(t testing.TB, body []byte) []byte {
	t.Helper()
	w, err := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1))
	if err != nil {
		t.Fatal(err)
	}
	return w.EncodeAll(body, nil)
}

// containerOf returns an object container file of frames that are given in single-object
// encoding, with three frames per block.
func containerOf(t testing.TB, singles ...[]byte) []byte {
	t.Helper()
	return containerWith(t, "kasmina.telemetry.SeedMetrics", singles...)
}

func containerWith(t testing.TB, record string, singles ...[]byte) []byte {
	t.Helper()
	return containerBy(t, record, ocf.DeflateCodec(1), singles...)
}

func containerBy(t testing.TB, record string, codec ocf.Codec, singles ...[]byte) []byte {
	t.Helper()
	schemas := avro.Schemas()
	i := slices.IndexFunc(schemas, func(s avro.Schema) bool { return s.Name == record })
	schema, err := twmb.Parse(schemas[i].Text)
	if err != nil {
		t.Fatal(err)
	}
	var file bytes.Buffer
	w, err := ocf.NewWriter(&file, schema, ocf.WithBlockCount(3), ocf.WithCodec(codec), ocf.WithSyncMarker([16]byte{1, 2, 3}))
	if err != nil {
		t.Fatal(err)
	}
	for _, single := range singles {
		if _, err := w.Write(single[10:]); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return file.Bytes()
}

// fourSeeds is the encoded array of seed ids of a good frame.
var fourSeeds = []byte{8, 0, 2, 4, 6, 0}

// arrays returns the beginning of a good frame, up to its arrays, followed by varints.
func arrays(good []byte, varints ...int64) []byte {
	head, _, _ := bytes.Cut(good, fourSeeds)
	head = bytes.Clone(head)
	for _, v := range varints {
		head = binary.AppendVarint(head, v)
	}
	return head
}
