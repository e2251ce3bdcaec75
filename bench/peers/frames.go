package main

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/schemas/avro"
)

// window has the frames of ten seconds, in the order of sending. Peers make windows by the
// wall clock; here, this program ends their windows.
type window []oona.Frame

const windowLength = 10_000_000 // microseconds

// mostBytes is the greatest size of a frame.
const mostBytes = 16 << 20

// readWindows reads frames in single-object encoding, each after its length in four bytes,
// little endian.
func readWindows(r io.Reader) ([]window, error) {
	in := bufio.NewReader(r)
	var windows []window
	latest := oona.Micros(-1)
	for n := 0; ; n++ {
		var length uint32
		switch err := binary.Read(in, binary.LittleEndian, &length); {
		case errors.Is(err, io.EOF) && n > 0:
			return windows, nil
		case err != nil:
			return nil, fmt.Errorf("read frame %d on stdin, as `go run ./bench --peers` writes them: %w", n, err)
		case length > mostBytes:
			return nil, fmt.Errorf("frame %d on stdin has %d bytes, too many for a frame", n, length)
		}
		payload := make([]byte, length)
		if _, err := io.ReadFull(in, payload); err != nil {
			return nil, fmt.Errorf("read frame %d on stdin: %w", n, err)
		}
		var decoder avro.FrameDecoder // one per frame, as the frames of a decoder share memory
		var frame oona.Frame
		if _, err := decoder.Decode(payload, &frame); err != nil {
			return nil, fmt.Errorf("frame %d: %w", n, err)
		}
		switch at := frame.ObservedAt / windowLength; {
		case at < latest:
			return nil, fmt.Errorf("frame %d belongs to an earlier window than the frame before it", n)
		case at > latest:
			windows, latest = append(windows, nil), at
		}
		last := &windows[len(windows)-1]
		*last = append(*last, frame)
	}
}

func samples(windows []window) (n int) {
	for _, w := range windows {
		for i := range w {
			n += len(w[i].Seeds) * len(w[i].Metrics)
		}
	}
	return n
}
