package watch

import (
	"encoding/json"
	"fmt"
	"io"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/morphogenetic/oona"
)

// Lines writes records of one topic as JSON, one per line, in the same format as Follow. It is not
// safe for concurrent use.
type Lines struct {
	decoder *decoder
	out     *json.Encoder
}

// NewLines returns Lines that write to out. The topic may have another prefix than topics.
func NewLines(topics oona.Topics, topic string, out io.Writer) *Lines {
	return &Lines{newDecoder(topics.Around(topic), oona.Address{Topic: topic, Seed: oona.AnySeed}), json.NewEncoder(out)}
}

// Write writes a record. If f or r is not nil, it replaces the frame or the rollup in the record;
// callers use this to write only a part of it. Write returns the number of lines that it has
// written, which can be more than one because a record of the raw topic may have several frames.
func (l *Lines) Write(msg *message.Message, f *oona.Frame, r *oona.Rollup) (int64, error) {
	records, err := l.decoder.decode(msg)
	if err != nil {
		return 0, err
	}
	if len(records) == 1 {
		switch only := records[0]; {
		case f != nil && only.Kind == kindFrame:
			only.Frame = frameOf(f, oona.AnySeed)
		case r != nil && only.Kind == kindRollup:
			only.Rollup = rollupOf(r)
		}
	}
	for _, r := range records {
		if err := l.out.Encode(r); err != nil {
			return 0, fmt.Errorf("write offset %d of partition %d as JSON: %w", r.Offset, r.Partition, err)
		}
	}
	return int64(len(records)), nil
}
