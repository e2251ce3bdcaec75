package avro

import (
	"bytes"
	"io"
	"reflect"
	"testing"

	"github.com/twmb/avro"
	"github.com/twmb/avro/ocf"
)

func TestRecordingOfUnion(t *testing.T) {
	schema := avro.MustParse("[" + published.latest[seedMetrics].Text + "," + published.latest[seedEvent].Text + "]")
	var file bytes.Buffer
	w, err := ocf.NewWriter(&file, schema, ocf.WithCodec(ocf.DeflateCodec(6)))
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		write(t, w, append([]byte{0}, AppendFrame(nil, sampleFrame())[framingSize:]...))
		write(t, w, append([]byte{2}, AppendEvent(nil, sampleEvent())[framingSize:]...))
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	r, err := NewRecordingReader(&file)
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		for _, want := range []Entry{{Frame: sampleFrame()}, {Event: sampleEvent()}} {
			got, err := r.Next()
			if err != nil {
				t.Fatal(err)
			}
			if !reflect.DeepEqual(got, want) {
				t.Errorf("got %+v\nwant %+v", got, want)
			}
		}
	}
	for range 2 {
		if _, err := r.Next(); err != io.EOF {
			t.Errorf("at the end: %v", err)
		}
	}
}

func write(t *testing.T, w *ocf.Writer, datum []byte) {
	t.Helper()
	if _, err := w.Write(datum); err != nil {
		t.Fatal(err)
	}
}
