package intake

import (
	"bytes"
	"strings"
	"testing"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/bus"
	"github.com/morphogenetic/oona/schemas/avro"
)

var config = Config{Frame: oona.DefaultFrameLimits, MaxFrames: 2, MaxDecompressedBytes: 1 << 20, MaxRecordBytes: 1 << 10}

// A body is decoded into messages with keys and headers, or refused with the frame and the field.
func TestBodiesBecomeMessages(t *testing.T) {
	d := NewDecoder(config.Frame)
	b := config.NewBatch()
	b.Path, b.Trace = "here", "a trace"
	if refused := d.JSON([]byte("["+frameJSON+","+frameJSON+"]"), b); refused != nil {
		t.Fatal(refused)
	}
	if len(b.Messages) != 2 || b.Readings != 8 {
		t.Fatalf("%d messages, %d readings", len(b.Messages), b.Readings)
	}
	single := b.Messages[0].Payload
	again := config.NewBatch()
	if refused := d.Avro(append(bytes.Clone(single), single...), again); refused != nil {
		t.Fatal(refused)
	}
	if m := b.Messages[1]; !bytes.Equal(m.Payload, again.Messages[1].Payload) || string(bus.TargetOf(m).Key) != string(oona.Key("digits", "enc.1")) ||
		m.Metadata[oona.HeaderPath] != "here" || m.Metadata[oona.HeaderTraceparent] != "a trace" || len(m.Metadata) != 2 {
		t.Errorf("message %q has key %q, headers %v", m.Payload, bus.TargetOf(m).Key, m.Metadata)
	}

	if refused := d.JSON([]byte("["+frameJSON+","+strings.Replace(frameJSON, "enc.1", "a b", 1)+"]"), config.NewBatch()); refused == nil ||
		refused.Reason != ReasonInvalid || refused.Frame == nil || *refused.Frame != 1 || refused.Field != "layer_id" || refused.Retry != 0 {
		t.Errorf("for an invalid layer, the refusal is %+v", refused)
	}
	if refused := d.Avro(bytes.Repeat(single, 3), config.NewBatch()); refused == nil || refused.Reason != ReasonTooLarge {
		t.Errorf("for three frames, the refusal is %+v", refused)
	}
	if refused := d.Avro([]byte(avro.ContainerMagic), config.NewBatch()); refused == nil || refused.Reason != ReasonUndecodable {
		t.Errorf("for an empty container, the refusal is %+v", refused)
	}
}

// measured is a Memory with a limit that counts the bytes in use.
type measured struct{ free, used int }

func (m *measured) Grow(n int) bool {
	if m.used+n > m.free {
		return false
	}
	m.used += n
	return true
}

func (m *measured) Shrink(n int) { m.used -= n }

// A batch keeps the memory for its records, and gives back the memory for the decoder's buffers. It is
// refused if there is not enough memory.
func TestMemoryOfABatch(t *testing.T) {
	memory := &measured{free: 1 << 20}
	b := config.NewBatch()
	b.Memory = memory
	if refused := NewDecoder(config.Frame).JSON([]byte(frameJSON), b); refused != nil {
		t.Fatal(refused)
	}
	if want := MessageBytes + cap(b.Messages[0].Payload); memory.used != want {
		t.Errorf("%d bytes are in use, want %d", memory.used, want)
	}
	b = config.NewBatch()
	b.Memory = &measured{free: MessageBytes}
	if refused := NewDecoder(config.Frame).JSON([]byte(frameJSON), b); refused == nil || refused.Reason != ReasonOverloaded {
		t.Errorf("without memory, the refusal is %+v", refused)
	}
}

// JSON with more entries than the limit does not make the buffers grow.
func TestBuffersAreLimited(t *testing.T) {
	d := NewDecoder(config.Frame)
	seeds := strings.Replace(frameJSON, "[0,1,2,3]", "["+strings.Repeat("0,", 1<<20)+"0]", 1)
	if refused := d.JSON([]byte(seeds), config.NewBatch()); refused == nil || refused.Field != "seed_ids" || refused.Reason != ReasonTooLarge {
		t.Fatalf("a million seeds: %+v", refused)
	}
	if most := 2 * config.Frame.Seeds; cap(d.json.seeds) > most {
		t.Errorf("the buffer has room for %d seeds, want at most %d", cap(d.json.seeds), most)
	}
}
