package avro

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"

	"github.com/linkedin/goavro/v2"
	"github.com/twmb/avro"

	"github.com/morphogenetic/oona"
)

// The fuzz targets put the right framing in front of their input. TestWrongFraming tests
// framings.

// addBodies adds the bodies of the samples of a record as seeds. It decodes them,
// so that what twmb/avro makes once for a type is not charged to an input.
func addBodies(f *testing.F, record string) {
	for _, s := range samples(f) {
		_, _ = decoders[s.record](s.data)
		if s.record == record && len(s.data) < 4_096 {
			f.Add(s.data[framingSize:])
		}
	}
	f.Add([]byte{})
}

// bounded fails where decoding n bytes allocates more than in proportion to
// them: a column of two bytes has forty in memory, a tensor of six a hundred.
func bounded(t *testing.T, n int, decode func()) {
	t.Helper()
	if allocated, most := bytesAllocated(decode), uint64(1<<17+512*n); allocated > most {
		t.Fatalf("%d bytes were allocated for %d, want at most %d", allocated, n, most)
	}
}

// twmb/avro and goavro have the verdict on frames, which are decoded by hand:
// all accept the same bodies with the same values, and leave the same rest. Only
// a block with a wrong stated size, which neither looks at, is refused here, and
// an int that does not fit 32 bits, which goavro truncates.
func FuzzFrameDecoder(f *testing.F) {
	boundGoavro(f)
	addBodies(f, seedMetrics)
	f.Add([]byte(frameHead().long(-2, 2, 1, 2, 1, 3, 0)[framingSize:]))
	f.Fuzz(func(t *testing.T, body []byte) {
		data := append(appendFraming(nil, seedMetricsV1), body...)
		var d FrameDecoder
		var ours oona.Frame
		var rest []byte
		var err error
		bounded(t, len(data), func() { rest, err = d.Decode(data, &ours) })

		var w wireFrame
		var theirs oona.Frame
		theirRest, theirErr := published.latest[seedMetrics].parsed.DecodeSingleObject(data, &w)
		if theirErr == nil {
			theirErr = w.frame(&theirs)
		}
		if (err == nil) != (theirErr == nil) {
			if errors.Is(err, errBlockSize) || errors.Is(err, errBlockCut) {
				return
			}
			t.Fatalf("ours: %v\ntwmb: %v", err, theirErr)
		}
		if err != nil {
			var where *DecodeError
			if !errors.As(err, &where) || where.Offset < framingSize || where.Offset > len(data) {
				t.Fatalf("error without its place: %v", err)
			}
			if native, _, theirErr := goavroCodec(t, published.latest[seedMetrics]).NativeFromSingle(data); theirErr == nil && !errors.Is(err, errBlockSize) && !errors.Is(err, errBlockCut) && !errors.Is(err, errNumber) {
				t.Fatalf("refused: %v\ngoavro reads %v", err, native)
			}
			return
		}
		goavroAgrees(t, data, rest, nativeFrame(&ours))
		if !bytes.Equal(rest, theirRest) {
			t.Fatalf("%d bytes are left, twmb leaves %d", len(rest), len(theirRest))
		}
		equalFrames(t, &ours, &theirs)
	})
}

// goavroAgrees fails where goavro does not read from data what ours, which was
// decoded from it, holds.
func goavroAgrees(t *testing.T, data, rest []byte, ours map[string]any) {
	t.Helper()
	native, theirRest, err := goavroCodec(t, written(t, data)).NativeFromSingle(data)
	if err != nil {
		t.Fatalf("accepted, but goavro: %v", err)
	}
	if !bytes.Equal(rest, theirRest) {
		t.Fatalf("%d bytes are left, goavro leaves %d", len(rest), len(theirRest))
	}
	forgetStdDev(native)
	forgetStdDev(ours)
	if got, want := fmt.Sprint(ours), fmt.Sprint(native); got != want {
		t.Fatalf("ours:   %s\ngoavro: %s", got, want)
	}
}

// forgetStdDev drops the field that is not read.
func forgetStdDev(native any) {
	metrics, _ := native.(map[string]any)["metrics"].([]any)
	for _, m := range metrics {
		delete(m.(map[string]any), "stddev")
	}
}

// boundGoavro keeps goavro from allocating what a hostile count announces.
func boundGoavro(f *testing.F) {
	before := goavro.MaxBlockCount
	goavro.MaxBlockCount = 1 << 16
	f.Cleanup(func() { goavro.MaxBlockCount = before })
}

func FuzzDecodeRollup(f *testing.F) {
	boundGoavro(f)
	for _, s := range samples(f) {
		_, _ = decoders[s.record](s.data) // once for a type, as in addBodies
		if s.record == layerHealth || s.record == layerPerformance {
			f.Add(s.record == layerHealth, s.data[framingSize:])
		}
	}
	f.Fuzz(func(t *testing.T, health bool, body []byte) {
		versions := []uint64{layerPerformanceV1, layerPerformanceV2}
		if health {
			versions = []uint64{layerHealthV1, layerHealthV2}
		}
		for _, fp := range versions {
			fuzzRollup(t, fp, body)
		}
	})
}

func fuzzRollup(t *testing.T, fp uint64, body []byte) {
	data := append(appendFraming(nil, fp), body...)
	var r oona.Rollup
	var rest []byte
	var err error
	bounded(t, len(data), func() { rest, err = DecodeRollup(data, &r) })
	if err != nil {
		requireDecodeError(t, err)
		return
	}
	v := written(t, data)
	ours := nativeRollup(&r, v.Version)
	if r.Group == oona.Health { // a shorter list of states is padded
		native, _, err := goavroCodec(t, v).NativeFromSingle(data)
		if err != nil {
			t.Fatalf("accepted, but goavro: %v", err)
		}
		n := len(native.(map[string]any)["seeds_by_state"].([]any))
		ours["seeds_by_state"] = ours["seeds_by_state"].([]any)[:n]
	}
	goavroAgrees(t, data, rest, ours)
}

func FuzzDecodeEvent(f *testing.F) {
	boundGoavro(f)
	addBodies(f, seedEvent)
	f.Fuzz(func(t *testing.T, body []byte) {
		for _, fp := range []uint64{seedEventV1, seedEventV2} {
			data := append(appendFraming(nil, fp), body...)
			var e oona.SeedEvent
			var rest []byte
			var err error
			bounded(t, len(data), func() { rest, err = DecodeEvent(data, &e) })
			if err != nil {
				requireDecodeError(t, err)
				continue
			}
			v := written(t, data)
			if _, _, err := goavroCodec(t, v).NativeFromSingle(data); err != nil && strings.Contains(err.Error(), "duplicate key") {
				continue // goavro refuses what Avro does not forbid
			}
			goavroAgrees(t, data, rest, nativeEvent(&e, v.Version))
		}
	})
}

func FuzzDecodeRunEnd(f *testing.F) {
	addBodies(f, runEnd)
	f.Fuzz(func(t *testing.T, body []byte) {
		data := append(appendFraming(nil, runEndV1), body...)
		var e oona.RunEnd
		var rest []byte
		var err error
		bounded(t, len(data), func() { rest, err = DecodeRunEnd(data, &e) })
		if err != nil {
			requireDecodeError(t, err)
			return
		}
		goavroAgrees(t, data, rest, nativeRunEnd(&e))
	})
}

func FuzzDecodeTick(f *testing.F) {
	addBodies(f, tick)
	f.Fuzz(func(t *testing.T, body []byte) {
		data := append(appendFraming(nil, tickV1), body...)
		var got oona.Tick
		var err error
		bounded(t, len(data), func() { got, err = DecodeTick(data) })
		if err != nil {
			requireDecodeError(t, err)
			return
		}
		goavroAgrees(t, data, nil, map[string]any{"worker": got.Worker, "written_at": int64(got.WrittenAt)})
	})
}

func FuzzDecodeIncarnation(f *testing.F) {
	addBodies(f, incarnationStart)
	f.Fuzz(func(t *testing.T, body []byte) {
		data := append(appendFraming(nil, incarnationStartV1), body...)
		var got oona.IncarnationStart
		var err error
		bounded(t, len(data), func() { got, err = DecodeIncarnation(data) })
		if err != nil {
			requireDecodeError(t, err)
			return
		}
		goavroAgrees(t, data, nil, nativeIncarnation(got))
	})
}

func FuzzDecodeConfiguration(f *testing.F) {
	addBodies(f, windowConfiguration)
	f.Fuzz(func(t *testing.T, body []byte) {
		for _, fp := range []uint64{windowConfigurationV2, windowConfigurationV3} {
			data := append(appendFraming(nil, fp), body...)
			var got oona.WindowConfiguration
			var err error
			bounded(t, len(data), func() { got, err = DecodeConfiguration(data) })
			if err != nil {
				requireDecodeError(t, err)
				continue
			}
			goavroAgrees(t, data, nil, nativeConfiguration(got, written(t, data).Version))
		}
	})
}

func requireDecodeError(t *testing.T, err error) {
	t.Helper()
	var where *DecodeError
	if !errors.As(err, &where) || !errors.Is(err, ErrTruncated) && !errors.Is(err, ErrMalformed) {
		t.Fatalf("error without its place and cause: %v", err)
	}
}

// A recording that was tampered with ends, with an error or without, and has
// one thing an entry.
func FuzzRecordingReader(f *testing.F) {
	for _, schema := range []string{unionOf(seedMetrics, seedEvent), published.latest[seedMetrics].Text} {
		parsed, err := avro.Parse(schema)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(container(f, parsed, append([]byte{0}, AppendFrame(nil, sampleFrame())[framingSize:]...)))
	}
	f.Fuzz(func(t *testing.T, file []byte) {
		r, err := NewRecordingReader(bytes.NewReader(file))
		if err != nil {
			return
		}
		for {
			entry, err := r.Next()
			if err != nil {
				if err != io.EOF && entry != (Entry{}) {
					t.Fatalf("an entry with an error: %+v, %v", entry, err)
				}
				return
			}
			if (entry.Frame == nil) == (entry.Event == nil) {
				t.Fatalf("entry is %+v", entry)
			}
		}
	})
}
