package avro_test

import (
	"bytes"
	"errors"
	"reflect"
	"strings"
	"testing"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/schemas/avro"
)

func TestSchemaIDs(t *testing.T) {
	const guid = "0123456789abcdef"
	for header, want := range map[string]avro.SchemaID{
		"\x00\x00\x00\x00\x07": {Number: 7},
		"\x00\x7f\xff\xff\xff": {Number: 1<<31 - 1},
		"\x01" + guid:          {Global: true, GUID: [16]byte([]byte(guid))},
	} {
		if id, err := avro.ParseSchemaID(header); err != nil || id != want {
			t.Errorf("%q: %v, %v", header, id, err)
		}
	}
	for _, header := range []string{"", "\x00\x00\x00\x07", "\x00\x00\x00\x00\x07\x00", "\x01" + guid[1:], "\x02" + guid, "7"} {
		if id, err := avro.ParseSchemaID(header); !errors.Is(err, avro.ErrRegistered) {
			t.Errorf("%q: %v, %v", header, id, err)
		}
	}
	framed := avro.AppendSchemaID([]byte("before"), 1_000_000)
	if id, rest, err := avro.CutSchemaID(append(framed[len("before"):], "body"...)); err != nil || id.Number != 1_000_000 || string(rest) != "body" {
		t.Errorf("%v, %q, %v", id, rest, err)
	}
	for value, want := range map[string]error{"": avro.ErrRegistered, "\xc3\x01": avro.ErrRegistered, "\x00\x00\x00\x07": avro.ErrTruncated} {
		if _, _, err := avro.CutSchemaID([]byte(value)); !errors.Is(err, want) {
			t.Errorf("%q: %v", value, err)
		}
	}
}

// A frame that was written with a published schema is decoded as with its framing, and
// its single object has the same bytes. The text of the schema need not be ours.
func TestAPublishedSchema(t *testing.T) {
	text := seedMetricsText(t)
	for name, text := range map[string]string{
		"as published":        text,
		"without white space": strings.Join(strings.Fields(text), " "),
		"without defaults":    strings.NewReplacer(`, "default": []`, "", `, "default": 0`, "", `, "default": ""`, "").Replace(text),
	} {
		schema, err := avro.ParseFrameSchema(text)
		if err != nil || !schema.Published() {
			t.Fatalf("%s: %v, %v", name, schema, err)
		}
		want := frameOf(t)
		single := avro.AppendFrame(nil, want)
		body, err := avro.Body(single)
		if err != nil {
			t.Fatal(err)
		}
		var got oona.Frame
		rest, err := new(avro.FrameDecoder).DecodeWith(schema, append(bytes.Clone(body), "rest"...), &got)
		if err != nil || string(rest) != "rest" || !reflect.DeepEqual(&got, want) {
			t.Errorf("%s: %+v, %q, %v", name, got, rest, err)
		}
		if !bytes.Equal(schema.Single(body), single) {
			t.Errorf("%s: the single object differs", name)
		}
		if _, err := new(avro.FrameDecoder).DecodeWith(schema, body[:len(body)-1], &got); !errors.Is(err, avro.ErrTruncated) {
			t.Errorf("%s: cut off: %v", name, err)
		}
	}
}

func frameOf(t *testing.T) *oona.Frame {
	t.Helper()
	return &oona.Frame{
		Run: "digits", Layer: "enc.1", Producer: "p", Epoch: 1_790_000_000_000_000, Sequence: 1, ObservedAt: 1_790_000_000_000_001, Step: 3,
		Seeds: []oona.SeedID{0, 1}, States: []oona.State{0, 2},
		Metrics: []oona.Column{{Name: "loss", Values: []float32{1, 2}}},
		Tensors: []oona.Tensor{{Name: "w", Seed: 1, DType: "float32", Shape: []int64{1}, Data: []byte("1234")}},
	}
}

func seedMetricsText(t *testing.T) string {
	t.Helper()
	for _, s := range avro.Schemas() {
		if s.Name == "kasmina.telemetry.SeedMetrics" {
			return s.Text
		}
	}
	t.Fatal("it is not published")
	return ""
}

// Schemas that do not resolve are refused when they are parsed, not when they are used.
func TestUnreadableSchemas(t *testing.T) {
	text := seedMetricsText(t)
	for name, text := range map[string]string{
		"not JSON":           "{",
		"not a schema":       `{"type":"recrod"}`,
		"not a record":       `"string"`,
		"another name":       strings.Replace(text, `"SeedMetrics"`, `"Frames"`, 1),
		"a field is missing": strings.Replace(text, `"name": "run_id"`, `"name": "run"`, 1),
		"another type":       strings.Replace(text, `"name": "sequence", "type": "long"`, `"name": "sequence", "type": "string"`, 1),
		"narrower":           strings.Replace(text, `"items": "float"`, `"items": "double"`, 1),
		"milliseconds":       strings.Replace(text, "timestamp-micros", "timestamp-millis", 1),
		"refers to nothing":  strings.Replace(text, `"items": "float"`, `"items": "Missing"`, 1),
	} {
		if schema, err := avro.ParseFrameSchema(text); !errors.Is(err, avro.ErrUnreadable) {
			t.Errorf("%s: %v, %v", name, schema, err)
		}
	}
}

// The limits of frames hold for other schemas, too, and arrays of items without bytes
// take no memory.
func TestLimitsWithOtherSchemas(t *testing.T) {
	const text = `{"type":"record","name":"SeedMetrics","fields":[
	{"name":"nothing","type":{"type":"array","items":"null"},"default":[]},
	{"name":"run_id","type":"string"},{"name":"layer_id","type":"string"},{"name":"producer_id","type":"string"},
	{"name":"producer_epoch","type":"long"},{"name":"sequence","type":"long"},{"name":"observed_at","type":"long"},
	{"name":"seed_ids","type":{"type":"array","items":"int"}},{"name":"states","type":"bytes"}]}`
	schema, err := avro.ParseFrameSchema(text)
	if err != nil || schema.Published() {
		t.Fatal(schema, err)
	}
	d := avro.FrameDecoder{Limits: oona.FrameLimits{Seeds: 2}}
	var f oona.Frame
	fields := "\x02a\x02b\x02c\x02\x02\x02"
	if _, err := d.DecodeWith(schema, []byte("\x00"+fields+"\x04\x00\x02\x00\x04\x00\x02"), &f); err != nil || len(f.Seeds) != 2 {
		t.Errorf("%+v, %v", f, err)
	}
	if _, err := d.DecodeWith(schema, []byte("\x00"+fields+"\x06\x00\x02\x04\x00\x06\x00\x02\x00"), &f); !errors.Is(err, oona.ErrTooLarge) {
		t.Errorf("three seeds: %v", err)
	}
	many := "\xfe\xff\xff\xff\xff\xff\xff\x7f" // items of 0 bytes
	if _, err := d.DecodeWith(schema, []byte(many+"\x00"+fields+"\x04\x00\x02\x00\x04\x00\x02"), &f); !errors.Is(err, avro.ErrMalformed) {
		t.Errorf("many items without bytes: %v", err)
	}
}
