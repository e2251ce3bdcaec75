package ingest

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math"
	"math/big"
	"net/http"
	"net/http/httptest"
	"slices"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/morphogenetic/oona"
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

// whole is an integer that is parsed by math/big.
type whole int64

func (w *whole) UnmarshalJSON(text []byte) error {
	number, ok := new(big.Rat).SetString(string(text))
	if !ok || !number.IsInt() || !number.Num().IsInt64() {
		return fmt.Errorf("%s is no whole number of 64 bits", text)
	}
	*w = whole(number.Num().Int64())
	return nil
}

// plainFrame is a frame that is decoded by encoding/json.
type plainFrame struct {
	Run        string  `json:"run_id"`
	Layer      string  `json:"layer_id"`
	Timeline   string  `json:"timeline"`
	Producer   string  `json:"producer_id"`
	Epoch      whole   `json:"producer_epoch"`
	Sequence   whole   `json:"sequence"`
	ObservedAt whole   `json:"observed_at"`
	Step       whole   `json:"step"`
	Seeds      []whole `json:"seed_ids"`
	States     []any   `json:"states"`
	Metrics    []struct {
		Name   string `json:"name"`
		Values []any  `json:"values"`
	} `json:"metrics"`
	Tensors []struct {
		Name  string          `json:"name"`
		Seed  whole           `json:"seed_id"`
		DType string          `json:"dtype"`
		Shape []whole         `json:"shape"`
		Data  json.RawMessage `json:"data"`
	} `json:"tensors"`
}

// FuzzJSONFrame checks that encoding/json also accepts what our reader accepts, with the
// same values.
func FuzzJSONFrame(f *testing.F) {
	f.Add([]byte(goodJSON))
	f.Add([]byte(`{"run_id":"","layer_id":"\u00e9\\\"","producer_id":"p","producer_epoch":-1,"sequence":1,"observed_at":0,"seed_ids":[ ],"states":[],"metrics":[{"name":"m","values":[null,"NaN",-0,1E+2]}],"tensors":[{"name":"","seed_id":0,"dtype":"","shape":[1,-2],"data":""}]}`))
	f.Add([]byte(`{"run_id":"","layer_id":"","producer_id":"p","producer_epoch":1e5,"sequence":1.0,"observed_at":0e9,"step":-1e+05,"seed_ids":[1e0],"states":[1.0],"metrics":[{"name":"m","values":[1e39,-1e308]}]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		if syntaxFault(data) != "" {
			return
		}
		d := jsonDecoder{jsonReader: jsonReader{data: data}, limits: oona.DefaultFrameLimits}
		var got oona.Frame
		var err error
		if allocated, most := allocatedBy(func() { err = d.frame(&got) }), uint64(1<<16+64*len(data)); allocated > most {
			t.Fatalf("%d bytes were allocated for %d, want at most %d", allocated, len(data), most)
		}
		if err != nil {
			return
		}
		var want plainFrame
		if err := json.Unmarshal(data, &want); err != nil {
			t.Fatalf("encoding/json does not take it: %v", err)
		}
		if d.next() != 0 {
			t.Fatalf("stopped at byte %d of %d", d.at, len(data))
		}
		comparePlain(t, &got, &want)
	})
}

func comparePlain(t *testing.T, got *oona.Frame, want *plainFrame) {
	if string(got.Run) != want.Run || string(got.Layer) != want.Layer || string(got.Timeline) != want.Timeline || string(got.Producer) != want.Producer ||
		whole(got.Epoch) != want.Epoch || whole(got.Sequence) != want.Sequence || whole(got.ObservedAt) != want.ObservedAt || whole(got.Step) != want.Step {
		t.Fatalf("read %+v, encoding/json %+v", got, want)
	}
	if len(got.Seeds) != len(want.Seeds) || len(got.States) != len(want.States) || len(got.Metrics) != len(want.Metrics) || len(got.Tensors) != len(want.Tensors) {
		t.Fatalf("read %+v, encoding/json %+v", got, want)
	}
	for i, seed := range want.Seeds {
		if whole(got.Seeds[i]) != seed {
			t.Fatalf("seed %d is %d, encoding/json reads %d", i, got.Seeds[i], seed)
		}
	}
	for i, state := range want.States {
		if ordinal, ok := state.(float64); ok && float64(got.States[i]) != ordinal {
			t.Fatalf("state %d is %d, encoding/json reads %g", i, got.States[i], ordinal)
		}
	}
	for i, m := range want.Metrics {
		if got.Metrics[i].Name != m.Name || len(got.Metrics[i].Values) != len(m.Values) {
			t.Fatalf("metric %d is %+v, encoding/json reads %+v", i, got.Metrics[i], m)
		}
		for j, value := range m.Values {
			if v, ok := value.(float64); ok && math.IsInf(float64(got.Metrics[i].Values[j]), 0) && math.Abs(v) >= math.MaxFloat32 {
				continue
			}
			// encoding/json rounds to a float64 first, so the results may differ by one step.
			if v, ok := value.(float64); ok && math.Abs(float64(got.Metrics[i].Values[j])-v) > math.Max(math.Abs(v)*0x1p-23, 0x1p-149) {
				t.Fatalf("value %d of metric %d is %g, encoding/json reads %g", j, i, got.Metrics[i].Values[j], v)
			}
		}
	}
	for i, tensor := range want.Tensors {
		g := got.Tensors[i]
		if g.Name != tensor.Name || whole(g.Seed) != tensor.Seed || g.DType != tensor.DType ||
			!slices.EqualFunc(g.Shape, tensor.Shape, func(n int64, plain whole) bool { return whole(n) == plain }) {
			t.Fatalf("tensor %d is %+v, encoding/json reads %+v", i, g, tensor)
		}
		var text []byte
		if g.Claim == nil && (json.Unmarshal(tensor.Data, &text) != nil || !bytes.Equal(text, g.Data)) {
			t.Fatalf("data of tensor %d is %q, encoding/json reads %q", i, g.Data, text)
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
		taken, refused := newDecoders(s.cfg).rawFrames(message.NewMessage("", value), &batch{cfg: &s.cfg, path: s.cfg.Instance})
		mediaType := mediaAvro
		if text := bytes.TrimLeft(value, " \t\r\n"); len(text) > 0 && (text[0] == '{' || text[0] == '[') {
			mediaType = mediaJSON
		}
		w := post(s, mediaType, value)
		if refused != nil {
			if refused.reason != reasonUndecodable && refused.reason != reasonInvalid && refused.reason != reasonTooLarge {
				t.Fatalf("refused for %s, which is not a reason for a record", refused.reason)
			}
			if w.Code == http.StatusOK || w.Code != statusOf(refused) && w.Code != http.StatusUnsupportedMediaType {
				t.Fatalf("refused with %d %s, as a request it is answered %d %s", statusOf(refused), refused.detail, w.Code, w.Body)
			}
			return
		}
		_, messages := onBus.published(t)
		if w.Code != http.StatusOK || len(messages) != len(taken.messages) {
			t.Fatalf("taken with %d frames, as a request it is answered %d with %d", len(taken.messages), w.Code, len(messages))
		}
		for i, m := range messages {
			if !bytes.Equal(m.Payload, taken.messages[i].Payload) || fmt.Sprint(m.Metadata) != fmt.Sprint(taken.messages[i].Metadata) {
				t.Fatalf("frame %d is another", i)
			}
		}
	})
}
