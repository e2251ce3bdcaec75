package ingest

import (
	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/intake"
)

// decodeRaw decodes a record of the raw topic into b.
func decodeRaw(d *intake.Decoder, msg *message.Message, b *intake.Batch, maxBytes int64) *intake.Refusal {
	if trace := msg.Metadata.Get(oona.HeaderTraceparent); validTraceParent(trace) {
		b.Trace = trace
	}
	return d.Record(msg, b, maxBytes)
}
