package ingest

import (
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/intake"
	"github.com/morphogenetic/oona/internal/size"
)

// The records are the same for every encoding of the frames.
func TestCodingsAndContainers(t *testing.T) {
	singles := [][]byte{frames(nil), frames(func(f *oona.Frame) { f.Layer = "enc.2" }), frames(manySeeds(300)), frames(nil)}
	for name, plain := range map[string][]byte{"single objects": slices.Concat(singles...), "container": containerOf(t, singles...)} {
		half := len(plain) / 2
		for coding, body := range map[string][]byte{
			"":         plain,
			"identity": plain,
			"gzip":     gzipped(plain),
			"X-GZIP":   gzipped(plain),
			"zstd":     zstandarded(t, plain),
			"Gzip":     append(gzipped(plain[:half]), gzipped(plain[half:])...), // two members
			"ZSTD":     append(zstandarded(t, plain[:half]), zstandarded(t, plain[half:])...),
		} {
			onBus := newBus(t)
			s := newStage(t, onBus, nil)
			for range 2 { // what is pooled serves the next
				if w := post(s, mediaAvro, body, "Content-Encoding", coding); w.Code != http.StatusOK {
					t.Fatalf("%s, coding %q: %d %s", name, coding, w.Code, w.Body)
				}
			}
			_, messages := onBus.published(t)
			if len(messages) != 2*len(singles) {
				t.Fatalf("%s, coding %q: %d records", name, coding, len(messages))
			}
			for i, m := range messages {
				if !bytes.Equal(m.Payload, singles[i%len(singles)]) {
					t.Errorf("%s, coding %q: record %d is not the frame", name, coding, i)
				}
			}
		}
	}
	onBus := newBus(t)
	if w := post(newStage(t, onBus, nil), mediaJSON, gzipped([]byte(goodJSON)), "Content-Encoding", "gzip"); w.Code != http.StatusOK {
		t.Errorf("JSON in gzip: %d %s", w.Code, w.Body)
	}
}

// Avro arrays in blocks that state their size are accepted and published unchanged.
// Some encoders write them; fastavro does not.
func TestArraysInBlocks(t *testing.T) {
	good := frames(nil)
	_, rest, _ := bytes.Cut(good, fourSeeds)
	body := append(arrays(good, -3, 3, 0, 1, 2, -1, 1, 3, 0), rest...)
	onBus := newBus(t)
	if w := post(newStage(t, onBus, nil), mediaAvro, body); w.Code != http.StatusOK {
		t.Fatalf("answer is %d %s", w.Code, w.Body)
	}
	if _, messages := onBus.published(t); !bytes.Equal(messages[0].Payload, body) {
		t.Error("the record is not the bytes that were sent")
	}
}

func TestBadCodings(t *testing.T) {
	good := frames(nil)
	corrupt := func(body []byte, at int) []byte {
		body = bytes.Clone(body)
		body[(at+len(body))%len(body)] ^= 0xff
		return body
	}
	zipped, zstd := gzipped(good), zstandarded(t, good)
	zeros := make([]byte, 1<<16+1) // one byte above the limit of these tests
	for name, c := range map[string]struct {
		coding string
		body   []byte
		code   int
		reason intake.Reason
	}{
		"unknown":               {"br", good, 415, reasonMediaType},
		"deflate":               {"deflate", good, 415, reasonMediaType},
		"two":                   {"gzip, zstd", zipped, 415, reasonMediaType},
		"the same twice":        {"gzip,gzip", gzipped(zipped), 415, reasonMediaType},
		"identity too":          {"identity, gzip", zipped, 415, reasonMediaType},
		"gzip of nothing":       {"gzip", gzipped(nil), 400, intake.ReasonUndecodable},
		"gzip without bytes":    {"gzip", nil, 400, reasonCoding},
		"gzip that is not":      {"gzip", good, 400, reasonCoding},
		"gzip is zstd":          {"gzip", zstd, 400, reasonCoding},
		"gzip header cut off":   {"gzip", zipped[:5], 400, reasonCoding},
		"gzip cut off":          {"gzip", zipped[:len(zipped)/2], 400, reasonCoding},
		"gzip checksum cut off": {"gzip", zipped[:len(zipped)-1], 400, reasonCoding},
		"gzip corrupt":          {"gzip", corrupt(zipped, 12), 400, reasonCoding},
		"gzip wrong checksum":   {"gzip", corrupt(zipped, -5), 400, reasonCoding},
		"gzip wrong length":     {"gzip", corrupt(zipped, -1), 400, reasonCoding},
		"gzip with garbage":     {"gzip", append(bytes.Clone(zipped), "garbage garbage"...), 400, reasonCoding},
		"gzip with zeros":       {"gzip", append(bytes.Clone(zipped), 0, 0), 400, reasonCoding},
		"gzip too large":        {"gzip", gzipped(zeros), 413, intake.ReasonTooLarge},
		"gzip in gzip":          {"gzip", gzipped(zipped), 415, reasonMediaType},
		"zstd of nothing":       {"zstd", zstandarded(t, nil), 400, intake.ReasonUndecodable},
		"zstd that is not":      {"zstd", good, 400, reasonCoding},
		"zstd cut off":          {"zstd", zstd[:len(zstd)/2], 400, reasonCoding},
		"zstd checksum cut off": {"zstd", zstd[:len(zstd)-1], 400, reasonCoding},
		"zstd wrong checksum":   {"zstd", corrupt(zstd, -1), 400, reasonCoding},
		"zstd with garbage":     {"zstd", append(bytes.Clone(zstd), "garbage garbage"...), 400, reasonCoding},
		"zstd too large":        {"zstd", zstandarded(t, zeros), 413, intake.ReasonTooLarge},
		"zstd window of 1 GiB":  {"zstd", []byte{0x28, 0xb5, 0x2f, 0xfd, 0x00, 20 << 3, 1, 0, 0}, 400, reasonCoding},
	} {
		t.Run(name, func(t *testing.T) {
			goldenLine(t, "coding.txt", name, refused(t, mediaAvro, c.body, c.code, c.reason, noFrame, "", "Content-Encoding", c.coding))
		})
	}
}

// Decompression of a bomb stops at the limit, and allocates only in proportion to it.
func TestBombs(t *testing.T) {
	const limit, size = 1 << 20, 256 << 20
	var zipped, zstandard bytes.Buffer
	gw, err := gzip.NewWriterLevel(&zipped, gzip.BestSpeed)
	if err != nil {
		t.Fatal(err)
	}
	zw, err := zstd.NewWriter(&zstandard, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderConcurrency(1))
	if err != nil {
		t.Fatal(err)
	}
	chunk := make([]byte, 1<<20)
	for range size / len(chunk) {
		_, _ = gw.Write(chunk) // buffers take everything
		_, _ = zw.Write(chunk)
	}
	if err := errors.Join(gw.Close(), zw.Close()); err != nil {
		t.Fatal(err)
	}
	for coding, bomb := range map[string][]byte{"gzip": zipped.Bytes(), "zstd": zstandard.Bytes()} {
		s := newStage(t, newBus(t), func(c *Config) { c.MaxDecompressedBytes = limit })
		post(s, mediaAvro, frames(nil)) // what every request needs is there
		var w *httptest.ResponseRecorder
		allocated := allocatedBy(func() { w = post(s, mediaAvro, bomb, "Content-Encoding", coding) })
		if p := decodeProblem(t, w); p.Status != http.StatusRequestEntityTooLarge || !strings.Contains(p.Detail, "larger than 1MiB when it is decompressed") {
			t.Errorf("%s: problem is %s", coding, w.Body)
		}
		// The buffer doubles when it grows. A zstd window has at most 8 MiB.
		if most := uint64(4*limit + 10<<20); allocated > most {
			t.Errorf("%s: %d bytes were allocated for a bomb of %d, want at most %d", coding, allocated, size, most)
		}
		if w := post(s, mediaAvro, frames(nil)); w.Code != http.StatusOK {
			t.Errorf("%s: the next request is answered %d %s", coding, w.Code, w.Body)
		}
	}
}

// The compressed size is limited too.
func TestCompressedSize(t *testing.T) {
	body := gzipped(frames(nil, nil, nil))
	s := newStage(t, newBus(t), func(c *Config) { c.MaxBodyBytes = int64(len(body)) })
	if w := post(s, mediaAvro, body, "Content-Encoding", "gzip"); w.Code != http.StatusOK {
		t.Errorf("a body at the limit is answered %d %s", w.Code, w.Body)
	}
	r := httptest.NewRequest(http.MethodPost, "/v1/frames", io.MultiReader(bytes.NewReader(body), strings.NewReader("x"))) // chunked
	r.Header.Set("Content-Type", mediaAvro)
	r.Header.Set("Content-Encoding", "gzip")
	w := httptest.NewRecorder()
	s.Handler().ServeHTTP(w, r)
	if p := decodeProblem(t, w); p.Status != http.StatusRequestEntityTooLarge || !strings.Contains(p.Detail, fmt.Sprintf("larger than %s (--max-body-bytes)", size.Text(len(body)))) {
		t.Errorf("problem is %s", w.Body)
	}
}

func allocatedBy(f func()) uint64 {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	f()
	runtime.ReadMemStats(&after)
	return after.TotalAlloc - before.TotalAlloc
}
