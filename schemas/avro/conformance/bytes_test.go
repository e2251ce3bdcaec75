package conformance_test

import (
	"bytes"
	"compress/gzip"
	"encoding/hex"
	"io"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"
	twmb "github.com/twmb/avro"
	"github.com/twmb/avro/ocf"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/schemas/avro"
	"github.com/morphogenetic/oona/schemas/avro/conformance"
)

// The bytes in the files are those of the fields beside them. OONA_UPDATE_GOLDEN=1 writes
// the bytes again, and changes nothing else in the files.
func TestBytes(t *testing.T) {
	s := readSet(t)
	for i := range s.Frames {
		f := &s.Frames[i]
		f.Avro = same(t, f.Name, f.Avro, encodeFrame(t, &f.Frame))
	}
	for i := range s.Events {
		e := &s.Events[i]
		e.Avro = same(t, e.Name, e.Avro, encodeEvent(t, e))
	}
	for i := range s.Ends {
		e := &s.Ends[i]
		e.Avro = same(t, e.Name, e.Avro, encodeEnd(t, &e.End))
	}
	for _, all := range [][]conformance.Refused{s.RefusedFrames, s.RefusedEvents, s.RefusedEnds} {
		for i := range all {
			r := &all[i]
			want := join(t, s, r.MadeOf)
			if r.Frame != nil {
				want = encodeFrame(t, r.Frame)
			}
			if r.Event != nil {
				want = avro.AppendEvent(nil, r.Event.Oona())
			}
			if r.End != nil {
				want = encodeEnd(t, r.End)
			}
			r.Avro = same(t, r.Name, r.Avro, want)
		}
	}
	for i := range s.Bodies {
		b := &s.Bodies[i]
		content := join(t, s, b.MadeOf)
		if !bytes.Equal(contentOf(b), content) { // compressors may change
			b.Bytes = same(t, b.Name, b.Bytes, pack(t, b.As, content))
		}
	}
	if updating {
		update(t, "frames.json", "avro", s.Frames, s.RefusedFrames)
		update(t, "events.json", "avro", s.Events, s.RefusedEvents)
		update(t, "ends.json", "avro", s.Ends, s.RefusedEnds)
		update(t, "bodies.json", "bytes", s.Bodies)
	}
}

var updating = os.Getenv("OONA_UPDATE_GOLDEN") != ""

func readSet(t testing.TB) *conformance.Set {
	t.Helper()
	s, err := conformance.Read()
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// same compares the bytes in a file with those that were computed, and returns the latter.
func same(t *testing.T, name string, got, want []byte) []byte {
	t.Helper()
	if !updating && !bytes.Equal(got, want) {
		t.Errorf("%s: the file has %x\nwant %x", name, got, want)
	}
	return want
}

func join(t testing.TB, s *conformance.Set, parts []conformance.Part) []byte {
	t.Helper()
	content, err := s.Join(parts)
	if err != nil {
		t.Fatal(err)
	}
	return content
}

func encodeFrame(t testing.TB, fields *conformance.Frame) []byte {
	t.Helper()
	f, err := fields.Oona()
	if err != nil {
		t.Fatal(err)
	}
	return avro.AppendFrame(nil, f)
}

// encodeEvent encodes an event. The fields of version 1 come first in version 2, and the
// others, if they are empty, have one byte each.
func encodeEvent(t testing.TB, e *conformance.GoldenEvent) []byte {
	t.Helper()
	latest := avro.AppendEvent(nil, e.Event.Oona())
	if e.Schema == "seed_event.v2" {
		return latest
	}
	const framing, added = 10, 14 // bytes
	if tail := latest[len(latest)-added:]; !bytes.Equal(tail, make([]byte, added)) {
		t.Fatalf("%s has fields that version 1 does not have", e.Name)
	}
	for _, schema := range avro.Schemas() {
		if schema.Name == "kasmina.events.SeedEvent" && schema.Version == 1 {
			first := []byte{0xc3, 1}
			for i := range 8 {
				first = append(first, byte(schema.Fingerprint>>(8*i))) //nolint:gosec // each byte
			}
			return append(first, latest[framing:len(latest)-added]...)
		}
	}
	t.Fatal("version 1 is not published")
	return nil
}

func encodeEnd(t testing.TB, fields *conformance.End) []byte {
	t.Helper()
	e, err := fields.Oona()
	if err != nil {
		t.Fatal(err)
	}
	return avro.AppendRunEnd(nil, e)
}

// pack compresses content, or writes its frames to a container.
func pack(t testing.TB, as string, content []byte) []byte {
	t.Helper()
	var out bytes.Buffer
	switch as {
	case "gzip":
		w := gzip.NewWriter(&out)
		_, _ = w.Write(content) // a buffer takes everything
		_ = w.Close()
		return out.Bytes()
	case "zstd":
		w, err := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1))
		if err != nil {
			t.Fatal(err)
		}
		return w.EncodeAll(content, nil)
	}
	options := []ocf.WriterOpt{ocf.WithBlockCount(3), ocf.WithSyncMarker([16]byte([]byte("conformance-sync")))}
	switch as {
	case "container/null":
	case "container/deflate":
		options = append(options, ocf.WithCodec(ocf.DeflateCodec(9)))
	case "container/snappy":
		options = append(options, ocf.WithCodec(ocf.SnappyCodec()))
	case "container/zstandard":
		options = append(options, ocf.WithCodec(ocf.MustZstdCodec(nil, nil)))
	default:
		t.Fatalf("nothing is packed as %q", as)
	}
	schema, err := twmb.Parse(frameSchema(t))
	if err != nil {
		t.Fatal(err)
	}
	w, err := ocf.NewWriter(&out, schema, options...)
	if err != nil {
		t.Fatal(err)
	}
	for rest := content; len(rest) > 0; {
		after, err := new(avro.FrameDecoder).Decode(rest, new(oona.Frame))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(rest[10 : len(rest)-len(after)]); err != nil {
			t.Fatal(err)
		}
		rest = after
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func frameSchema(t testing.TB) string {
	t.Helper()
	for _, schema := range avro.Schemas() {
		if schema.Name == "kasmina.telemetry.SeedMetrics" {
			return schema.Text
		}
	}
	t.Fatal("no schema of frames is published")
	return ""
}

// contentOf is the inverse of pack. It returns something else if a body is damaged.
func contentOf(b *conformance.Body) []byte {
	content := []byte{}
	switch b.As {
	case "gzip":
		if r, err := gzip.NewReader(bytes.NewReader(b.Bytes)); err == nil {
			content, _ = io.ReadAll(r)
		}
	case "zstd":
		if r, err := zstd.NewReader(bytes.NewReader(b.Bytes)); err == nil {
			defer r.Close()
			content, _ = io.ReadAll(r)
		}
	default:
		err := new(avro.FrameDecoder).DecodeContainer(b.Bytes, 1<<20, nil, new(oona.Frame), func(single []byte) error {
			content = append(content, single...)
			return nil
		})
		if err != nil {
			return []byte(err.Error())
		}
	}
	return content
}

// update writes the bytes of the cases, in their order, to the fields with this name.
func update(t *testing.T, file, field string, cases ...any) {
	t.Helper()
	var all [][]byte
	for _, list := range cases {
		switch list := list.(type) {
		case []conformance.GoldenFrame:
			for _, c := range list {
				all = append(all, c.Avro)
			}
		case []conformance.GoldenEvent:
			for _, c := range list {
				all = append(all, c.Avro)
			}
		case []conformance.GoldenEnd:
			for _, c := range list {
				all = append(all, c.Avro)
			}
		case []conformance.Refused:
			for _, c := range list {
				all = append(all, c.Avro)
			}
		case []conformance.Body:
			for _, c := range list {
				all = append(all, c.Bytes)
			}
		}
	}
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	fields := regexp.MustCompile(`"` + field + `": "[0-9a-f]*"`)
	if n := len(fields.FindAllIndex(text, -1)); n != len(all) {
		t.Fatalf("%s has %d fields %q for %d cases", file, n, field, len(all))
	}
	i := -1
	text = fields.ReplaceAllFunc(text, func([]byte) []byte {
		i++
		return []byte(`"` + field + `": "` + hex.EncodeToString(all[i]) + `"`)
	})
	if err := os.WriteFile(file, []byte(strings.TrimRight(string(text), "\n")+"\n"), 0o644); err != nil {
		t.Fatal(err)
	}
}
