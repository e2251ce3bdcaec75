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

// window is the frames of ten seconds, in the order of sending. Peers make
// windows by the clock on the wall: here each is told when one ends.
type window []oona.Frame

const windowLength = 10_000_000 // microseconds

// mostBytes of a frame; more is no frame.
const mostBytes = 16 << 20

// readWindows reads frames in single-object encoding, each behind its length in
// four bytes, the least first.
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
			return nil, fmt.Errorf("frame %d on stdin would have %d bytes", n, length)
		}
		payload := make([]byte, length)
		if _, err := io.ReadFull(in, payload); err != nil {
			return nil, fmt.Errorf("read frame %d on stdin: %w", n, err)
		}
		var decoder avro.FrameDecoder // one a frame: its frames share their memory
		var frame oona.Frame
		if _, err := decoder.Decode(payload, &frame); err != nil {
			return nil, fmt.Errorf("frame %d: %w", n, err)
		}
		switch at := frame.ObservedAt / windowLength; {
		case at < latest:
			return nil, fmt.Errorf("frame %d belongs to a window before that of the frame ahead of it", n)
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
