package loadgen

import (
	"bytes"
	"io"
	"strings"
	"testing"

	twmb "github.com/twmb/avro"
	"github.com/twmb/avro/ocf"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/schemas/avro"
)

// record writes frames to an object container file, as a trainer would.
func record(t *testing.T, frames ...oona.Frame) io.Reader {
	t.Helper()
	var bodies []map[string]any
	for _, f := range frames {
		bodies = append(bodies, map[string]any{
			"run_id": string(f.Run), "layer_id": string(f.Layer), "producer_id": string(f.Producer), "timeline": "",
			"producer_epoch": int64(f.Epoch), "sequence": f.Sequence, "observed_at": int64(f.ObservedAt), "step": f.Step,
			"seed_ids": []any{int32(0)}, "states": []byte{0}, "metrics": []any{}, "tensors": []any{},
		})
	}
	var file bytes.Buffer
	writer, err := ocf.NewWriter(&file, frameSchema(t))
	if err != nil {
		t.Fatal(err)
	}
	for _, body := range bodies {
		if err := writer.Encode(body); err != nil {
			t.Fatal(err)
		}
	}
	if err := writer.Close(); err != nil {
		t.Fatal(err)
	}
	return &file
}

// frameSchema returns the schema of frames in the recording in the repository.
func frameSchema(t *testing.T) *twmb.Schema {
	t.Helper()
	reader, err := ocf.NewReader(bytes.NewReader(digits(t)))
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close()
	schema, err := reader.Schema().Root().Branches[0].Schema()
	if err != nil {
		t.Fatal(err)
	}
	return schema
}

func frame(run oona.RunID, epoch oona.Micros, sequence int64, at oona.Micros) oona.Frame {
	return oona.Frame{Run: run, Layer: "a", Producer: "p", Epoch: epoch, Sequence: sequence, ObservedAt: at}
}

const year2026 = oona.Micros(1_767_225_600_000_000)

// A producer that was restarted while it was recorded counts from 0 again. Its frames
// must not be repeats of the earlier ones.
func TestEpochsStayApart(t *testing.T) {
	in := &ingest{}
	cfg := testConfig(in)
	cfg.Speed = MaxSpeed
	cfg.Recording = record(t,
		frame("r", 500, 0, year2026), frame("r", 500, 1, year2026+1),
		frame("r", 900, 0, year2026+2), frame("r", 900, 1, year2026+3), frame("r", 900, 1, year2026+3))
	run(t, cfg)
	distinct := make(map[oona.Micros]map[int64]int)
	for _, a := range in.arrivals {
		if distinct[a.frame.Epoch] == nil {
			distinct[a.frame.Epoch] = make(map[int64]int)
		}
		distinct[a.frame.Epoch][a.frame.Sequence]++
	}
	if len(in.arrivals) != 5 || len(distinct) != 2 {
		t.Fatalf("%d frames of %d epochs, want 5 of 2", len(in.arrivals), len(distinct))
	}
	last := in.arrivals[4].frame
	if distinct[last.Epoch][1] != 2 {
		t.Error("a repeat in the recording did not stay a repeat")
	}
}

func TestRecordingFaults(t *testing.T) {
	for _, test := range []struct {
		name, want string
		recording  func() io.Reader
	}{
		{"empty", "recording", func() io.Reader { return strings.NewReader("") }},
		{"truncated", "recording", func() io.Reader { return bytes.NewReader(digits(t)[:100_000]) }},
		{"no frames", "", func() io.Reader { return record(t) }},
		{"two runs", "entry 1:", func() io.Reader {
			return record(t, frame("r", 0, 0, year2026), frame("s", 0, 1, year2026))
		}},
		{"year 1", "entry 0: observed_at", func() io.Reader { return record(t, frame("r", 0, 0, -62135596800000000)) }},
	} {
		cfg := testConfig(&ingest{})
		cfg.Recording = test.recording()
		if _, err := New(cfg); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: error %v, want one with %q", test.name, err, test.want)
		}
	}
}

// A file that was cut off is refused, wherever it was cut off.
func TestCutRecordings(t *testing.T) {
	whole, err := io.ReadAll(record(t, frame("r", 0, 0, year2026), frame("r", 0, 1, year2026)))
	if err != nil {
		t.Fatal(err)
	}
	for cut := range whole {
		cfg := testConfig(&ingest{})
		cfg.Recording = bytes.NewReader(whole[:cut])
		if _, err := New(cfg); err == nil {
			t.Errorf("%d of %d bytes were taken for a recording", cut, len(whole))
		}
	}
}

// The recording in the repository has what its page says and the demo needs.
func TestDigits(t *testing.T) {
	frames, events := recordedFrames(t, digits(t))
	seeds := make(map[oona.LayerID]int)
	producers := make(map[oona.ProducerID]int64)
	large, largest := 0, 0
	for i, f := range frames {
		if err := f.Validate(oona.DefaultFrameLimits); err != nil {
			t.Fatalf("frame %d: %v", i, err)
		}
		if f.Sequence != producers[f.Producer] {
			t.Fatalf("frame %d: sequence %d of %s, want %d", i, f.Sequence, f.Producer, producers[f.Producer])
		}
		producers[f.Producer]++
		seeds[f.Layer] = max(seeds[f.Layer], len(f.Seeds))
		largest = max(largest, len(avro.AppendFrame(nil, f)))
		for _, tensor := range f.Tensors {
			if len(tensor.Data) > 16<<10 {
				large++
			}
		}
	}
	total := 0
	for _, n := range seeds {
		total += n
	}
	length := (frames[len(frames)-1].ObservedAt - frames[0].ObservedAt) / 1_000_000
	if len(seeds) < 3 || total < 256 || len(producers) != 2 || large == 0 || largest > 900_000 || events == 0 || length < 60 || length > 90 {
		t.Errorf("%d layers, %d seeds, %d producers, %d tensors above 16 KiB, a frame of %d bytes, %d events, %d s",
			len(seeds), total, len(producers), large, largest, events, length)
	}
}
