package avro

import (
	"bytes"
	"errors"
	"io"
	"reflect"
	"strings"
	"testing"

	"github.com/twmb/avro"
	"github.com/twmb/avro/ocf"
)

func unionOf(records ...string) string {
	var texts []string
	for _, r := range records {
		texts = append(texts, published.latest[r].Text)
	}
	return "[" + strings.Join(texts, ",") + "]"
}

// container returns a file with the data, one block for each.
func container(t testing.TB, schema *avro.Schema, data ...[]byte) []byte {
	t.Helper()
	var file bytes.Buffer
	w, err := ocf.NewWriter(&file, schema, ocf.WithCodec(ocf.DeflateCodec(6)), ocf.WithBlockCount(1))
	if err != nil {
		t.Fatal(err)
	}
	for _, datum := range data {
		if _, err := w.Write(datum); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return file.Bytes()
}

func TestRecordings(t *testing.T) {
	frame := AppendFrame(nil, sampleFrame())[framingSize:]
	event := AppendEvent(nil, sampleEvent())[framingSize:]
	branch := func(i byte, datum []byte) []byte { return append([]byte{2 * i}, datum...) }
	frameEntry, eventEntry := Entry{Frame: sampleFrame()}, Entry{Event: sampleEvent()}
	for name, c := range map[string]struct {
		schema string
		data   [][]byte
		want   []Entry
	}{
		"union":           {unionOf(seedMetrics, seedEvent), [][]byte{branch(0, frame), branch(1, event), branch(1, event), branch(0, frame)}, []Entry{frameEntry, eventEntry, eventEntry, frameEntry}},
		"union in turn":   {unionOf(seedEvent, seedMetrics), [][]byte{branch(1, frame), branch(0, event)}, []Entry{frameEntry, eventEntry}},
		"union of one":    {unionOf(seedMetrics), [][]byte{branch(0, frame)}, []Entry{frameEntry}},
		"frames":          {published.latest[seedMetrics].Text, [][]byte{frame, frame}, []Entry{frameEntry, frameEntry}},
		"events":          {published.latest[seedEvent].Text, [][]byte{event}, []Entry{eventEntry}},
		"nothing written": {unionOf(seedMetrics, seedEvent), nil, nil},
	} {
		t.Run(name, func(t *testing.T) {
			r, err := NewRecordingReader(bytes.NewReader(container(t, avro.MustParse(c.schema), c.data...)))
			if err != nil {
				t.Fatal(err)
			}
			equalEntries(t, r, c.want)
		})
	}
}

// equalEntries reads all of r, then checks the entries: none may share its
// memory with a later one.
func equalEntries(t *testing.T, r *RecordingReader, want []Entry) {
	t.Helper()
	var got []Entry
	for range want {
		entry, err := r.Next()
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, entry)
	}
	for range 2 {
		if _, err := r.Next(); err != io.EOF {
			t.Errorf("at the end: %v", err)
		}
	}
	for i := range want {
		if !reflect.DeepEqual(got[i], want[i]) {
			t.Errorf("entry %d is %+v %+v\nwant %+v %+v", i, got[i].Frame, got[i].Event, want[i].Frame, want[i].Event)
		}
	}
}

func TestRecordingOfAnotherVersion(t *testing.T) {
	schemas := withSynthetic(t)
	for _, v := range schemas.byFingerprint {
		if v.Name != seedMetrics || v.Version != 0 {
			continue
		}
		native := nativeFrame(sampleFrame())
		delete(native, "timeline")
		datum := writeWithGoavro(t, v, native)[framingSize:]
		r, err := NewRecordingReader(bytes.NewReader(container(t, v.parsed, datum)))
		if err != nil {
			t.Fatal(err)
		}
		want := sampleFrame()
		want.Timeline = ""
		equalEntries(t, r, []Entry{{Frame: want}})
		return
	}
	t.Fatal("testdata/synthetic has no version 0 of the frames")
}

// TestRecordingOfBadEvents: the error names the field of the event, and no type of this package.
func TestRecordingOfBadEvents(t *testing.T) {
	whole := AppendEvent(nil, sampleEvent())[framingSize:]
	count := bytes.Index(whole, []byte(sampleEvent().Reason)) + len(sampleEvent().Reason)
	for field, data := range map[string][]byte{"evidence": whole[:count+1], "producer_epoch": whole[:len(whole)-1]} {
		r, err := NewRecordingReader(bytes.NewReader(container(t, published.latest[seedEvent].parsed, data)))
		if err != nil {
			t.Fatal(err)
		}
		_, err = r.Next()
		if where, ok := errors.AsType[*DecodeError](err); !ok || where.Field != field || strings.Contains(err.Error(), reflect.TypeFor[wireEntry]().String()) {
			t.Errorf("%s: %v", field, err)
		}
	}
}

func TestBadRecordings(t *testing.T) {
	frame := AppendFrame(nil, sampleFrame())[framingSize:]
	good := container(t, avro.MustParse(published.latest[seedMetrics].Text), frame, frame)
	for name, c := range map[string]struct {
		file []byte
		says string
	}{
		"nothing":        {nil, "recording"},
		"not a file":     {AppendFrame(nil, sampleFrame()), "recording"},
		"of ticks":       {container(t, avro.MustParse(published.latest[tick].Text)), "kasmina.telemetry.Tick"},
		"ticks too":      {container(t, avro.MustParse(unionOf(seedMetrics, tick))), "kasmina.telemetry.Tick"},
		"of numbers":     {container(t, avro.MustParse(`"long"`)), "long"},
		"cut in a block": {good[:len(good)-20], "recording, entry 1"},
	} {
		r, err := NewRecordingReader(bytes.NewReader(c.file))
		for err == nil {
			_, err = r.Next()
		}
		//nolint:errorlint // io.EOF itself is the end
		if err == io.EOF || errors.Is(err, io.EOF) && c.file != nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v, want an error with %q", name, err, c.says)
		}
	}
}
