package watch

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"sync"
)

// Region is the part of a terminal that a table is drawn on, above the cursor. Its zero
// value is empty.
type Region struct {
	mu    sync.Mutex
	lines int // number of lines that the next draw replaces
}

// wipe clears the screen from the line of the cursor to the end, and does not move the cursor. It
// clears the line of the cursor separately, because some terminals move text into the scrollback
// when the whole screen is cleared in one step: with 2J, and tmux also with J in the first line.
const wipe = "\x1b[K\x1b[B\x1b[J\x1b[A"

// clear removes the lines, if there are any. The caller must hold mu.
func (r *Region) clear(out io.Writer) {
	if r.lines > 0 {
		_, _ = fmt.Fprintf(out, "\x1b[%dA"+wipe, r.lines) // the next draw reports it if out fails
	}
	r.lines = 0
}

// Above returns a handler for a log that goes to the same terminal as out. Each log line is written
// above the table, and the table is drawn again below it.
func (r *Region) Above(out io.Writer, h slog.Handler) slog.Handler { return above{h, r, out} }

type above struct {
	slog.Handler
	region *Region
	out    io.Writer
}

func (a above) Handle(ctx context.Context, line slog.Record) error {
	a.region.mu.Lock()
	defer a.region.mu.Unlock()
	a.region.clear(a.out)
	return a.Handler.Handle(ctx, line)
}

func (a above) WithAttrs(attrs []slog.Attr) slog.Handler {
	return above{a.Handler.WithAttrs(attrs), a.region, a.out}
}

func (a above) WithGroup(name string) slog.Handler {
	return above{a.Handler.WithGroup(name), a.region, a.out}
}
