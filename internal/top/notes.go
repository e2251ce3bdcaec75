package top

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"
)

// Notes is a slog.Handler that keeps the last warning. The screen shows the warning, because a log
// must not write to the same terminal.
type Notes struct {
	attrs string
	last  *lastNote
}

type lastNote struct {
	mu   sync.Mutex
	at   time.Time
	text string
}

// noteStays is how long a warning is shown.
const noteStays = time.Minute

// NewNotes returns Notes without a warning.
func NewNotes() *Notes { return &Notes{last: new(lastNote)} }

// Enabled implements slog.Handler.
func (n *Notes) Enabled(_ context.Context, level slog.Level) bool { return level >= slog.LevelWarn }

// Handle implements slog.Handler.
func (n *Notes) Handle(_ context.Context, line slog.Record) error {
	var text strings.Builder
	text.WriteString(line.Message + n.attrs)
	line.Attrs(func(a slog.Attr) bool {
		fmt.Fprintf(&text, " %s=%s", a.Key, a.Value)
		return true
	})
	n.last.mu.Lock()
	defer n.last.mu.Unlock()
	n.last.at, n.last.text = line.Time, text.String()
	return nil
}

// WithAttrs implements slog.Handler.
func (n *Notes) WithAttrs(attrs []slog.Attr) slog.Handler {
	with := &Notes{n.attrs, n.last}
	for _, a := range attrs {
		with.attrs += fmt.Sprintf(" %s=%s", a.Key, a.Value)
	}
	return with
}

// WithGroup implements slog.Handler. Groups are not shown.
func (n *Notes) WithGroup(string) slog.Handler { return n }

// at returns the last warning, if it is not older than noteStays.
func (n *Notes) at(now time.Time) (text string, found bool) {
	n.last.mu.Lock()
	defer n.last.mu.Unlock()
	return n.last.text, n.last.text != "" && now.Sub(n.last.at) < noteStays
}
