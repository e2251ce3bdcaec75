package ingest

import (
	"bytes"
	"fmt"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/intake"
	"github.com/morphogenetic/oona/schemas/avro"
)

// The ways in which FuzzRequest sends a body.
var fuzzedCodings = []struct {
	name   string
	encode func(t testing.TB, body []byte) []byte // nil: the body is what the coding is to make of it
}{
	{"", nil},
	{"gzip", nil},
	{"zstd", nil},
	{"gzip", func(_ testing.TB, body []byte) []byte { return gzipped(body) }},
	{"zstd", zstandarded},
}

// FuzzRequest checks for any body that the answer is one of a few, that it is 200 only if
// something was published, that all published records are valid frames, and that no more
// is allocated than the limits allow.
func FuzzRequest(f *testing.F) {
	now := fmt.Sprint(time.Now().UnixMicro())
	add := func(isAvro bool, bodies ...[]byte) {
		for _, body := range bodies {
			for coding := range fuzzedCodings {
				f.Add(isAvro, uint8(coding), now, body)
			}
		}
	}
	add(true, frames(nil), frames(nil, func(f *oona.Frame) { f.Seeds[1] = 0 }), append(frames(nil), 0xc3), containerOf(f, frames(nil), frames(nil)), gzipped(frames(nil)), zstandarded(f, frames(nil)))
	add(false, []byte(goodJSON), []byte("["+goodJSON+","+goodJSON+"]"), []byte(`[{"run_id":"\ud800","metrics":[{"values":[1e-400,null]}]}]`), gzipped([]byte(goodJSON)), zstandarded(f, []byte(goodJSON)))
	f.Add(true, uint8(0), "2026-01-01", frames(nil))
	f.Fuzz(func(t *testing.T, isAvro bool, coding uint8, sent string, body []byte) {
		onBus := newBus(t)
		s := newStage(t, onBus, func(c *Config) { c.MaxReadings, c.MaxFrames, c.MaxDecompressedBytes = 100, 10, 1<<16 })
		mediaType := mediaJSON
		if isAvro {
			mediaType = mediaAvro
		}
		how := fuzzedCodings[int(coding)%len(fuzzedCodings)]
		if how.encode != nil {
			body = how.encode(t, body)
		}
		headers := []string{"Content-Encoding", how.name}
		if sent != "" {
			headers = append(headers, sentAt, sent)
		}
		var w *httptest.ResponseRecorder
		allocated := allocatedBy(func() { w = post(s, mediaType, body, headers...) })
		// A zstd window, and 64 bytes for each decoded byte.
		if most := uint64(10<<20 + 64*(len(body)+1<<16)); allocated > most {
			t.Fatalf("%d bytes were allocated for a body of %d, want at most %d", allocated, len(body), most)
		}
		calls, messages := onBus.published(t)
		if (w.Code == http.StatusOK) != (calls == 1 && len(messages) > 0) {
			t.Fatalf("status %d with %d messages in %d calls", w.Code, len(messages), calls)
		}
		switch w.Code {
		case http.StatusOK:
			checkRecords(t, messages)
		case http.StatusBadRequest, http.StatusRequestEntityTooLarge, http.StatusUnsupportedMediaType:
			decodeProblem(t, w)
		default:
			t.Fatalf("status %d: %s", w.Code, w.Body)
		}
		if len(s.slots) != 0 {
			t.Error("a slot is not given back")
		}
	})
}

func checkRecords(t *testing.T, messages []*message.Message) {
	for _, m := range messages {
		var frame oona.Frame
		rest, err := new(avro.FrameDecoder).Decode(m.Payload, &frame)
		if err != nil || len(rest) > 0 {
			t.Fatalf("a record is no frame: %v, %d bytes left", err, len(rest))
		}
		if err := frame.Validate(oona.DefaultFrameLimits); err != nil {
			t.Fatalf("a record is not valid: %v", err)
		}
		run, layer, err := oona.ParseKey([]byte(keyOf(t, m)))
		if err != nil || run != frame.Run || layer != frame.Layer || m.Metadata.Get(oona.HeaderRecord) != "" {
			t.Fatalf("metadata is %q, %v", m.Metadata, err)
		}
	}
}

// FuzzRaw checks that a record of the raw topic is accepted if and only if a request
// with the same body is, with the same frames.
func FuzzRaw(f *testing.F) {
	for _, value := range [][]byte{
		frames(nil), frames(nil, nil), append(frames(nil), 0xc3), containerOf(f, frames(nil), frames(nil)), []byte(goodJSON), []byte("[" + goodJSON + "]"), []byte(" []"),
		{0, 0, 0, 0, 7, 1}, gzipped(frames(nil)), {}, bytes.Repeat([]byte(" "), 1<<12+1),
	} {
		f.Add(value)
	}
	f.Fuzz(func(t *testing.T, value []byte) {
		onBus := newBus(t)
		s := newStage(t, onBus, func(c *Config) {
			c.MaxReadings, c.MaxFrames, c.MaxBodyBytes, c.MaxDecompressedBytes = 100, 10, 1<<12, 1<<16
		})
		taken := s.intake.NewBatch()
		taken.Path = s.cfg.Instance
		refused := decodeRaw(intake.NewDecoder(s.intake.Frame), message.NewMessage("", value), taken, s.cfg.MaxBodyBytes)
		mediaType := mediaAvro
		if text := bytes.TrimLeft(value, " \t\r\n"); len(text) > 0 && (text[0] == '{' || text[0] == '[') {
			mediaType = mediaJSON
		}
		w := post(s, mediaType, value)
		if refused != nil {
			if refused.Reason != intake.ReasonUndecodable && refused.Reason != intake.ReasonInvalid && refused.Reason != intake.ReasonTooLarge {
				t.Fatalf("refused for %s, which is not a reason for a record", refused.Reason)
			}
			if w.Code == http.StatusOK || w.Code != answers[refused.Reason].status && w.Code != http.StatusUnsupportedMediaType {
				t.Fatalf("refused with %d %s, as a request it is answered %d %s", answers[refused.Reason].status, refused.Detail, w.Code, w.Body)
			}
			return
		}
		_, messages := onBus.published(t)
		if w.Code != http.StatusOK || len(messages) != len(taken.Messages) {
			t.Fatalf("taken with %d frames, as a request it is answered %d with %d", len(taken.Messages), w.Code, len(messages))
		}
		for i, m := range messages {
			if !bytes.Equal(m.Payload, taken.Messages[i].Payload) || fmt.Sprint(m.Metadata) != fmt.Sprint(taken.Messages[i].Metadata) {
				t.Fatalf("frame %d is another", i)
			}
		}
	})
}
