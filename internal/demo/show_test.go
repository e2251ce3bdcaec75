package demo

import (
	"bytes"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/bus"
	"github.com/morphogenetic/oona/rollups"
	"github.com/morphogenetic/oona/schemas/avro"
)

// A rollup that is emitted again does not take the table back to an older window.
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
	for y := range b.layers.All(time.Now()) {
		health, _, _ := y.Value.health.Last()
		performance, _, _ := y.Value.performance.Last()
		if health != 40e6 || performance != 40e6 {
			t.Errorf("the table ends at %d and %d", health, performance)
		}
	}
}

func TestTrend(t *testing.T) {
	var health rollups.Windows[healthWindow]
	for n, mean := range []float64{8, 1, math.NaN(), 4.5} {
		health.Add(healthWindow{means: [len(shownMetrics)]float64{mean}}, oona.Micros(n), trendWindows)
	}
	if got := trend(&health); got != "\u2588\u2582 \u2585" {
		t.Errorf("the trend is %q", got)
	}
	var flat rollups.Windows[healthWindow]
	flat.Add(healthWindow{}, 1, trendWindows)
	if got := trend(&flat); got != "\u2581" {
		t.Errorf("the trend of one window is %q", got)
	}
}
