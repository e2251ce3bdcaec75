package archive

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/bus"
)

// Records are encoded as goavro encodes them.
func TestEncodeIsGoavros(t *testing.T) {
	c, err := codec()
	if err != nil {
		t.Fatal(err)
	}
	random := rand.New(rand.NewPCG(1, 2))
	some := func() []byte {
		switch random.IntN(4) {
		case 0:
			return nil
		case 1:
			return []byte{}
		}
		b := make([]byte, random.IntN(300))
		for i := range b {
			b[i] = byte(random.Uint32())
		}
		return b
	}
	for range 2000 {
		msg := message.NewMessage("", some())
		for n := range random.IntN(4) {
			msg.Metadata.Set(fmt.Sprintf("oona-%d", n), string(some()))
		}
		at := bus.Position{
			Topic: string(bytes.Repeat([]byte("t"), random.IntN(100))), Partition: random.Int32(), Offset: random.Int64(),
			Incarnation: oona.Incarnation(random.Int64N(3) * 1_790_000_000_000_000), Appended: oona.Micros(random.Int64N(1 << 55)), Key: some(),
		}
		want, err := c.BinaryFromNative(nil, native(msg, at))
		if err != nil {
			t.Fatal(err)
		}
		if got := append(encodeHead(nil, msg, at), msg.Payload...); !bytes.Equal(got, want) {
			t.Fatalf("%+v, %v: %x, and goavro %x", at, msg, got, want)
		}
	}
}
