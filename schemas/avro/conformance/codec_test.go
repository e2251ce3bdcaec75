package conformance_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"testing"

	"github.com/linkedin/goavro/v2"
	twmb "github.com/twmb/avro"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/schemas/avro"
	"github.com/morphogenetic/oona/schemas/avro/conformance"
)

// Decoding a golden frame and encoding it again gives the same bytes, and the frame is
// valid: see TestBytes for the other direction.
func TestFrames(t *testing.T) {
	s := readSet(t)
	names := map[string]bool{}
	for _, c := range s.Frames {
		if names[c.Name] {
			t.Errorf("two frames are called %q", c.Name)
		}
		names[c.Name] = true
		var f oona.Frame
		d := avro.FrameDecoder{Limits: oona.DefaultFrameLimits}
		rest, err := d.Decode(c.Avro, &f)
		if err != nil || len(rest) > 0 {
			t.Errorf("%s: %d bytes are left, %v", c.Name, len(rest), err)
			continue
		}
		if again := avro.AppendFrame(nil, &f); !bytes.Equal(again, c.Avro) {
			t.Errorf("%s becomes %x\nwant %x", c.Name, again, c.Avro)
		}
		if err := f.Validate(oona.DefaultFrameLimits); err != nil {
			t.Errorf("%s: %v", c.Name, err)
		}
	}
}

// Each payload that is to be refused is refused because of its field.
func TestRefusedFrames(t *testing.T) {
	s := readSet(t)
	for _, c := range s.RefusedFrames {
		var f oona.Frame
		d := avro.FrameDecoder{Limits: oona.DefaultFrameLimits}
		reason, field := "", ""
		_, err := d.Decode(c.Avro, &f)
		if err == nil {
			err = f.Validate(oona.DefaultFrameLimits)
		}
		if wrong, ok := errors.AsType[*oona.FieldError](err); ok {
			reason, field = "invalid", wrong.Field
		}
		if wrong, ok := errors.AsType[*avro.DecodeError](err); ok {
			reason, field = "undecodable", wrong.Field
		}
		if errors.Is(err, oona.ErrTooLarge) {
			reason = "too-large"
		}
		if reason != c.Reason || field != c.Field {
			t.Errorf("%s: refused as %q for %q, want %q for %q: %v", c.Name, reason, field, c.Reason, c.Field, err)
		}
	}
}

func TestEvents(t *testing.T) {
	s := readSet(t)
	for _, c := range s.Events {
		var e oona.SeedEvent
		rest, err := avro.DecodeEvent(c.Avro, &e)
		if err != nil || len(rest) > 0 {
			t.Errorf("%s: %d bytes are left, %v", c.Name, len(rest), err)
			continue
		}
		want := c.Avro
		if c.Schema == "seed_event.v1" {
			want = avro.AppendEvent(nil, c.Event.Oona())
		}
		if again := avro.AppendEvent(nil, &e); !bytes.Equal(again, want) {
			t.Errorf("%s becomes %x\nwant %x", c.Name, again, want)
		}
	}
	for _, c := range s.RefusedEvents {
		var e oona.SeedEvent
		_, err := avro.DecodeEvent(c.Avro, &e)
		if err == nil {
			err = e.Validate()
		}
		if wrong, ok := errors.AsType[*oona.FieldError](err); ok && c.Reason == "invalid" && wrong.Field == c.Field {
			continue
		}
		if wrong, ok := errors.AsType[*avro.DecodeError](err); !ok || c.Reason != "undecodable" || !lastOf(wrong.Field, c.Field) {
			t.Errorf("%s is refused with %v, want %q for %q", c.Name, err, c.Reason, c.Field)
		}
	}
}

func TestEnds(t *testing.T) {
	s := readSet(t)
	outcomes := map[oona.RunOutcome]bool{}
	for _, c := range s.Ends {
		var e oona.RunEnd
		rest, err := avro.DecodeRunEnd(c.Avro, &e)
		if err != nil || len(rest) > 0 {
			t.Errorf("%s: %d bytes are left, %v", c.Name, len(rest), err)
			continue
		}
		if err := e.Validate(); err != nil {
			t.Errorf("%s: %v", c.Name, err)
		}
		if again := avro.AppendRunEnd(nil, &e); !bytes.Equal(again, c.Avro) {
			t.Errorf("%s becomes %x\nwant %x", c.Name, again, c.Avro)
		}
		outcomes[e.Outcome] = true
	}
	if len(outcomes) < oona.RunOutcomeCount {
		t.Errorf("the ends have the outcomes %v", outcomes)
	}
	refused := map[string]bool{}
	for _, c := range s.RefusedEnds {
		var e oona.RunEnd
		_, err := avro.DecodeRunEnd(c.Avro, &e)
		if err == nil {
			err = e.Validate()
		}
		reason, field := "", ""
		if wrong, ok := errors.AsType[*oona.FieldError](err); ok {
			reason, field = "invalid", wrong.Field
		}
		if wrong, ok := errors.AsType[*avro.DecodeError](err); ok {
			reason, field = "undecodable", wrong.Field
		}
		if reason != c.Reason || field != c.Field {
			t.Errorf("%s: refused as %q for %q, want %q for %q: %v", c.Name, reason, field, c.Reason, c.Field, err)
		}
		refused[c.Field] = true
	}
	for _, field := range fieldsOf(t, "kasmina.events.RunEnd") {
		if !refused[field] {
			t.Errorf("no end of a run is refused because of %s", field)
		}
	}
}

// lastOf reports whether a library may have named the field so. One does not name the
// field at which the data ends.
func lastOf(got, want string) bool { return got == want || got == "kasmina.events.SeedEvent" }

// The files have every state and every transition, so that a new one is not forgotten.
func TestEveryState(t *testing.T) {
	s := readSet(t)
	frames, transitions, marks := map[oona.State]bool{}, map[[2]oona.State]bool{}, map[oona.EventMark]bool{}
	dtypes := map[string]bool{}
	for _, c := range s.Frames {
		f, err := c.Frame.Oona()
		if err != nil {
			t.Fatal(err)
		}
		for _, state := range f.States {
			frames[state] = true
		}
		for _, tensor := range f.Tensors {
			dtypes[tensor.DType] = true
		}
	}
	for _, c := range s.Events {
		e := c.Event.Oona()
		transitions[[2]oona.State{e.From, e.To}], marks[e.Mark] = true, true
	}
	for from := range oona.State(oona.StateCount) {
		if !frames[from] {
			t.Errorf("no frame has the state %s", from)
		}
		for to := range oona.State(oona.StateCount) {
			if from.CanBecome(to) && !transitions[[2]oona.State{from, to}] {
				t.Errorf("no event has the transition %s to %s", from, to)
			}
		}
	}
	for mark := range oona.EventMark(oona.EventMarkCount) {
		if !marks[mark] {
			t.Errorf("no event has the mark %d", mark)
		}
	}
	for dtype := range dtypes {
		if _, known := oona.ElementSize(dtype); !known {
			t.Errorf("the dtype %s is not known", dtype)
		}
	}
	if len(dtypes) < 13 {
		t.Errorf("the tensors have %d dtypes", len(dtypes))
	}
	refused := slices.ContainsFunc(s.RefusedFrames, func(c conformance.Refused) bool {
		return c.Frame != nil && slices.Contains(c.Frame.States, oona.StateCount)
	})
	if !refused {
		t.Error("no refused frame has the ordinal after the last state")
	}
}

// Each field of an event has a payload that is refused because of it, so that a client can
// check all of its rules.
func TestEveryFieldOfAnEventIsRefused(t *testing.T) {
	s := readSet(t)
	refused := map[string]bool{}
	for _, c := range s.RefusedEvents {
		refused[c.Field] = true
	}
	fields := fieldsOf(t, "kasmina.events.SeedEvent")
	if len(fields) < 24 {
		t.Errorf("the schema has %d fields", len(fields))
	}
	for _, field := range fields {
		if !refused[field] {
			t.Errorf("no event is refused because of %s", field)
		}
	}
}

// fieldsOf returns the names of the fields of the latest version of a schema.
func fieldsOf(t *testing.T, name string) (fields []string) {
	t.Helper()
	latest := ""
	for _, schema := range avro.Schemas() { // a later version follows an earlier one
		if schema.Name == name {
			latest = schema.Text
		}
	}
	var schema struct{ Fields []struct{ Name string } }
	if err := json.Unmarshal([]byte(latest), &schema); err != nil {
		t.Fatal(err)
	}
	for _, field := range schema.Fields {
		fields = append(fields, field.Name)
	}
	return fields
}

// goavro, which shares no code with ours, writes the same bytes from the fields.
func TestGoavroAgrees(t *testing.T) {
	s := readSet(t)
	codecs := map[string]*goavro.Codec{}
	for _, schema := range avro.Schemas() {
		parsed, err := twmb.Parse(schema.Text)
		if err != nil {
			t.Fatal(err)
		}
		// Of the canonical form, as goavro keeps logical types.
		codec, err := goavro.NewCodec(string(parsed.Canonical()))
		if err != nil {
			t.Fatal(err)
		}
		codecs[fmt.Sprint(schema.Name, schema.Version)] = codec
	}
	for _, c := range s.Frames {
		theirs, err := codecs["kasmina.telemetry.SeedMetrics1"].SingleFromNative(nil, nativeFrame(&c.Frame))
		if err != nil || !bytes.Equal(theirs, c.Avro) {
			t.Errorf("%s: goavro writes %x\nwant %x, %v", c.Name, theirs, c.Avro, err)
		}
	}
	for _, c := range s.Ends {
		theirs, err := codecs["kasmina.events.RunEnd1"].SingleFromNative(nil, nativeEnd(&c.End))
		if err != nil || !bytes.Equal(theirs, c.Avro) {
			t.Errorf("%s: goavro writes %x\nwant %x, %v", c.Name, theirs, c.Avro, err)
		}
	}
	for _, c := range s.Events {
		version := c.Schema[len(c.Schema)-1:]
		codec := codecs["kasmina.events.SeedEvent"+version]
		theirs, err := codec.SingleFromNative(nil, nativeEvent(&c.Event))
		if err != nil || len(theirs) != len(c.Avro) || len(c.Event.Evidence) < 2 && !bytes.Equal(theirs, c.Avro) { // maps have no order
			t.Errorf("%s: goavro writes %x\nwant %x, %v", c.Name, theirs, c.Avro, err)
		}
		native, rest, err := codec.NativeFromSingle(c.Avro)
		if err != nil || len(rest) > 0 {
			t.Fatalf("%s: goavro leaves %d bytes, %v", c.Name, len(rest), err)
		}
		got, want := native.(map[string]any), nativeEvent(&c.Event)
		for name := range got { // printed, so that a NaN equals a NaN
			if fmt.Sprint(got[name]) != fmt.Sprint(want[name]) {
				t.Errorf("%s: goavro reads %s as %v, want %v", c.Name, name, got[name], want[name])
			}
		}
	}
}

func nativeEnd(e *conformance.End) map[string]any {
	return map[string]any{
		"run_id": string(e.Run), "at": int64(e.At), "step": int64(e.Step), "outcome": e.Outcome, "reason": e.Reason,
		"timeline": string(e.Timeline), "producer_id": string(e.Producer), "producer_epoch": int64(e.ProducerEpoch),
	}
}

func nativeFrame(f *conformance.Frame) map[string]any {
	states := []byte{}
	for _, ordinal := range f.States {
		states = append(states, byte(ordinal)) //nolint:gosec // the files have bytes
	}
	return map[string]any{
		"run_id": string(f.Run), "layer_id": string(f.Layer), "timeline": string(f.Timeline), "producer_id": string(f.Producer),
		"producer_epoch": int64(f.Epoch), "sequence": int64(f.Sequence), "observed_at": int64(f.ObservedAt), "step": int64(f.Step),
		"seed_ids": list(f.Seeds, func(id oona.SeedID) any { return int32(id) }),
		"states":   states,
		"metrics": list(f.Metrics, func(c conformance.Column) any {
			return map[string]any{"name": c.Name, "values": list(c.Values, func(v conformance.Double) any { return float32(v) })}
		}),
		"tensors": list(f.Tensors, func(tensor conformance.Tensor) any {
			data := goavro.Union("bytes", tensor.Data.Bytes)
			if c := tensor.Data.Claim; c != nil {
				data = goavro.Union("kasmina.telemetry.TensorClaim", map[string]any{
					"bucket": c.Bucket, "key": c.Key, "size": int64(c.Size), "sha256": []byte(c.SHA256),
				})
			}
			return map[string]any{
				"name": tensor.Name, "seed_id": int32(tensor.Seed), "dtype": tensor.DType, "data": data,
				"shape": list(tensor.Shape, func(n conformance.Long) any { return int64(n) }),
			}
		}),
	}
}

func nativeEvent(e *conformance.Event) map[string]any {
	evidence := map[string]any{}
	for name, v := range e.Evidence {
		evidence[name] = float64(v)
	}
	return map[string]any{ // goavro ignores what version 1 does not have
		"run_id": string(e.Run), "layer_id": string(e.Layer), "seed_id": int32(e.Seed), "sequence": int64(e.Sequence),
		"at": int64(e.At), "step": int64(e.Step), "from_state": int32(e.From), "to_state": int32(e.To), //nolint:gosec // the files have ordinals
		"reason": e.Reason, "evidence": evidence,
		"command_id": e.Command, "actor": e.Actor, "node": e.Node, "session": int64(e.Session), "epoch": int64(e.Epoch),
		"journal_index": int64(e.JournalIndex), "blueprint_id": e.Blueprint, "mark": e.Mark,
		"trigger_position": int64(e.TriggerPosition), "trigger_index": e.TriggerIndex, "incarnation": int64(e.Incarnation),
		"timeline": string(e.Timeline), "producer_id": string(e.Producer), "producer_epoch": int64(e.ProducerEpoch),
	}
}

func list[T any](items []T, one func(T) any) []any {
	out := make([]any, len(items))
	for i, item := range items {
		out[i] = one(item)
	}
	return out
}
