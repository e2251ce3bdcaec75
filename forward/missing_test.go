package forward

import (
	"bytes"
	"context"
	"log/slog"
	"testing"

	"github.com/morphogenetic/oona/bus"
	"github.com/morphogenetic/oona/internal/outage"
)

// A missing topic and an outage that take turns are logged once each, also if a lane for another topic
// finds that the bus answers. A topic that is missing again is logged again.
func TestMissingTopicIsLoggedOnce(t *testing.T) {
	var log bytes.Buffer
	f := &Forwarder{cfg: Config{Logger: slog.New(slog.NewTextHandler(&log, nil))}, missing: make(map[string]*outage.Outage)}
	lines := func() int {
		defer log.Reset()
		return bytes.Count(log.Bytes(), []byte("level=WARN"))
	}
	for range 5 {
		f.isAway("frames", bus.ErrNoTopic)
		f.isAway("events", context.DeadlineExceeded)
	}
	if n := lines(); n != 2 {
		t.Errorf("%d lines are logged for two reasons, want 2", n)
	}
	for range 5 {
		f.away.Store(false)
		f.isAway("frames", bus.ErrNoTopic)
	}
	if n := lines(); n != 0 {
		t.Errorf("%d lines are logged for a reason that was logged before", n)
	}
	f.exists("frames")
	f.isAway("frames", bus.ErrNoTopic)
	if n := lines(); n != 1 {
		t.Errorf("%d lines are logged for a topic that is missing again", n)
	}
}
