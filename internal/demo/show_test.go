package demo

import (
	"bytes"
	"strings"
	"testing"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/bus"
	"github.com/morphogenetic/oona/schemas/avro"
)

// The table is a reader of rollups as others are: what is emitted again does not
// take it back to an older window.
func TestTheTableDropsRepeats(t *testing.T) {
	var out bytes.Buffer
	b := newBoard(Screen{Out: &out})
	topics := map[oona.Group]chan *message.Message{oona.Health: make(chan *message.Message, 10), oona.Performance: make(chan *message.Message, 10)}
	for _, window := range []oona.Micros{1, 2, 3, 1, 2} {
		for g, topic := range topics {
			r := &oona.Rollup{Group: g, Run: "r", Layer: "enc.0", Start: window * 10e6, End: (window + 1) * 10e6, Trigger: oona.Trigger{Offset: int64(window)}}
			r.Hash = r.ContentHash()
			msg := message.NewMessage("", avro.AppendRollup(nil, r))
			msg.SetContext(bus.WithPosition(t.Context(), bus.Position{}))
			topic <- msg
		}
	}
	for _, topic := range topics {
		close(topic)
		b.follow(topic, discard())
	}
	if n := strings.Count(out.String(), "window closed"); n != 1 { // the last of health meets the last of performance
		t.Errorf("%d windows have closed:\n%s", n, out.String())
	}
	if row := b.rows[layerOf{"r", "enc.0"}]; row.ends != [2]oona.Micros{40e6, 40e6} {
		t.Errorf("the table ends at %v", row.ends)
	}
}
