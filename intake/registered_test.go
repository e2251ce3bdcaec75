package intake_test

import (
	"bytes"
	"encoding/binary"
	"testing"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/intake"
	"github.com/morphogenetic/oona/schemas/avro"
)

// memory counts the bytes that are held.
type memory struct{ held, most int }

func (m *memory) Grow(n int) bool {
	m.held += n
	m.most = max(m.most, m.held)
	return true
}
func (m *memory) Shrink(n int) { m.held -= n }

// Frames with a schema that is not a published one are decoded one after the other. The memory depends
// on the limit of a record, and not on the length of the body.
func TestManyForeignFrames(t *testing.T) {
	schema, err := avro.ParseFrameSchema(`{"type":"record","name":"SeedMetrics","fields":[
	{"name":"run_id","type":"string"},{"name":"layer_id","type":"string"},{"name":"producer_id","type":"string"},
	{"name":"producer_epoch","type":"long"},{"name":"sequence","type":"long"},{"name":"observed_at","type":"long"},
	{"name":"seed_ids","type":{"type":"array","items":"int"}},{"name":"states","type":"bytes"},{"name":"padding","type":"bytes"}]}`)
	if err != nil {
		t.Fatal(err)
	}
	frame := func(sequence, padding byte) []byte {
		value := append(avro.AppendSchemaID(nil, 7), "\x02r\x02l\x02p\x80\x80\xaf\xa2\xdb\xff\xad\x06"...)
		value = append(value, 2*sequence)
		value = append(value, "\x80\x80\xaf\xa2\xdb\xff\xad\x06\x02\x00\x00\x02\x02"...)
		return append(binary.AppendVarint(value, int64(padding)), make([]byte, padding)...)
	}
	cfg := intake.Config{Frame: oona.DefaultFrameLimits, MaxFrames: 100, MaxDecompressedBytes: 1 << 20, MaxRecordBytes: 60}
	decode := func(body []byte) (*intake.Batch, *memory, *intake.Refusal) {
		held := new(memory)
		b := cfg.NewBatch()
		b.Memory = held
		b.Schema = func(id avro.SchemaID) (*avro.FrameSchema, *intake.Refusal) {
			if id.Number != 7 {
				return nil, intake.Refuse("schema", "there is none")
			}
			return schema, nil
		}
		return b, held, intake.NewDecoder(cfg.Frame).Registered(body, b)
	}
	var body []byte
	for i := range byte(20) {
		body = append(body, frame(i, 10)...)
	}
	b, held, refused := decode(body)
	if refused != nil || len(b.Messages) != 20 {
		t.Fatalf("%+v, %d frames", refused, len(b.Messages))
	}
	for i, m := range b.Messages {
		want := avro.AppendFrame(nil, &oona.Frame{
			Run: "r", Layer: "l", Producer: "p", Epoch: 1_790_000_000_000_000, Sequence: int64(i), ObservedAt: 1_790_000_000_000_000,
			Seeds: []oona.SeedID{0}, States: []oona.State{oona.Training},
		})
		if !bytes.Equal(m.Payload, want) {
			t.Errorf("frame %d is %x, want %x", i, m.Payload, want)
		}
	}
	records := 20 * (intake.MessageBytes + cap(b.Messages[0].Payload))
	if held.held > records+1<<10 || held.most > records+8<<10 {
		t.Errorf("%d bytes are held for %d bytes of records, and at most %d were held", held.held, records, held.most)
	}

	large := append(frame(0, 10), frame(1, 127)...)
	if _, _, refused := decode(append(large, body...)); refused == nil || refused.Reason != intake.ReasonTooLarge || *refused.Frame != 1 {
		t.Errorf("a frame above the limit: %+v", refused)
	}
	if _, _, refused := decode(body[:len(body)-1]); refused == nil || refused.Reason != intake.ReasonUndecodable || *refused.Frame != 19 {
		t.Errorf("a body that is cut off: %+v", refused)
	}
	wrong := append(frame(0, 10), avro.AppendSchemaID(nil, 8)...)
	if _, _, refused := decode(wrong); refused == nil || refused.Reason != "schema" || *refused.Frame != 1 {
		t.Errorf("an id without a schema: %+v", refused)
	}
}
