package kafka

import (
	"bytes"
	"encoding/binary"
	"errors"
	"net"
	"testing"

	"github.com/IBM/sarama"
)

// answering is a connection whose other side has already sent an answer. It accepts everything that is
// written.
type answering struct {
	net.Conn
	*bytes.Reader
}

func (answering) Write(b []byte) (int, error) { return len(b), nil }

func (a answering) Read(b []byte) (int, error) { return a.Reader.Read(b) }

// The other side may send anything in answer to a SASL request. It is accepted if and only if it is an
// answer to this request. Nothing is read beyond the end of the answer.
func FuzzExchange(f *testing.F) {
	answer := func(size, correlation uint32, rest ...byte) []byte {
		b := binary.BigEndian.AppendUint32(nil, size)
		return append(binary.BigEndian.AppendUint32(b, correlation), rest...)
	}
	for _, seed := range [][]byte{
		nil, answer(6, 1, 0, 0), answer(6, 2, 0, 0), answer(6, 1, 0, 58), answer(5, 1, 0), answer(mostAnswer+1, 1, 0, 0), answer(7, 1, 0, 0),
		answer(20, 1, 0, 33, 0, 0, 0, 1, 0, 5, 'P', 'L', 'A', 'I', 'N'), []byte("HTTP/1.1 400 Bad Request\r\n\r\n"), {0x15, 3, 3, 0, 2, 2, 70},
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, sent []byte) {
		conn := answering{Reader: bytes.NewReader(sent)}
		err := exchange(conn, saslHandshakeKey, saslHandshakeV1, 1, "oona", appendString(nil, "PLAIN"))
		whole := false
		code, size := sarama.ErrNoError, uint32(0)
		if len(sent) >= 10 {
			size = binary.BigEndian.Uint32(sent)
			whole = size >= 6 && size <= mostAnswer && uint32(len(sent)-4) >= size && binary.BigEndian.Uint32(sent[4:]) == 1
			code = sarama.KError(int16(binary.BigEndian.Uint16(sent[8:])))
		}
		said, refused := errors.AsType[sarama.KError](err)
		switch {
		case !whole && !errors.Is(err, errAnswer):
			t.Errorf("%x: the error is %v, want errAnswer", sent, err)
		case whole && code == sarama.ErrNoError && err != nil, whole && code != sarama.ErrNoError && (!refused || said != code):
			t.Errorf("%x: the error is %v, want the code %d", sent, err, code)
		case whole && conn.Len() != len(sent)-4-int(size):
			t.Errorf("%x: %d bytes are left", sent, conn.Len())
		}
	})
}
