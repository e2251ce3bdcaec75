package watch

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/charmbracelet/x/ansi"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/bus"
	"github.com/morphogenetic/oona/verdict"
)

// Screen is the output on which a table of layers is shown.
type Screen struct {
	Out io.Writer
	// Size returns the number of columns and rows of the terminal, on which the table is redrawn in
	// place. It is nil if Out is not a terminal.
	Size func() (columns, rows int)
	// Resized receives a value when the size has changed. It may be nil.
	Resized <-chan os.Signal
	Colours bool // whether the output understands escape sequences for colours
	// Region is the part of the terminal for the table, if others write to the terminal, too. It may
	// be nil.
	Region *Region
}

// LayersOptions select the layers that are shown, and how they are shown.
type LayersOptions struct {
	BoardOptions
	Topics oona.Topics
	Count  int           // number of windows after which FollowLayers returns; 0 means no limit
	Head   string        // text above the table; it is drawn again after the terminal was resized
	Status func() string // returns the line below the table; if it is nil, the line says what was read
	// MostLines is used without a terminal: each window is printed as a line only if there are at
	// most MostLines layers. 0 means no limit.
	MostLines int
}

const (
	drawInterval   = 500 * time.Millisecond
	statusInterval = 5 * time.Second // time between two status lines, without a terminal
)

// FollowLayers shows the last windows of each layer until ctx ends or Count is reached. Then it
// returns nil. On a terminal it redraws a table. Otherwise it prints a line for each health window
// of a layer.
func FollowLayers(ctx context.Context, reader bus.Reader, o LayersOptions, screen Screen) error {
	t := newTable(o, screen)
	health, performance, err := t.board.Subscribe(ctx, reader, o.Topics)
	if ctx.Err() != nil {
		return nil
	}
	if err != nil {
		return err
	}
	defer t.leave()
	interval := statusInterval
	if screen.Size != nil {
		interval = drawInterval
	}
	ticker := time.NewTicker(interval)
	defer ticker.Stop()
	t.tick(time.Now())
	for t.err == nil && (o.Count == 0 || t.board.windows < o.Count) {
		var msg *message.Message
		var open bool
		select {
		case <-ctx.Done():
			t.tick(time.Now())
			return t.err
		case now := <-ticker.C:
			t.tick(now)
			continue
		case <-screen.Resized:
			t.tick(time.Now())
			continue
		case msg, open = <-health:
		case msg, open = <-performance:
		}
		if !open {
			if ctx.Err() == nil {
				return errReader
			}
			health, performance = nil, nil // ctx is done
			continue
		}
		t.read(msg, time.Now())
		msg.Ack()
	}
	if screen.Size != nil {
		t.tick(time.Now())
	}
	return t.err
}

// table draws a Board.
type table struct {
	LayersOptions
	screen Screen

	board   *Board
	columns int // width of the terminal at the last draw; 0 before the first one
	height  int
	err     error // error of the first write that failed
}

func newTable(o LayersOptions, screen Screen) *table {
	screen.Region = cmp.Or(screen.Region, new(Region))
	return &table{LayersOptions: o, screen: screen, board: NewBoard(o.BoardOptions)}
}

// read adds a rollup to the Board. Without a terminal, it writes a line for each window.
func (t *table) read(msg *message.Message, now time.Time) {
	row, shown := t.board.Read(msg, now)
	if shown && t.screen.Size == nil && (t.MostLines == 0 || t.board.layers.Len() <= t.MostLines) {
		t.write(fmt.Sprintf("window closed  %s  %s\n", row.End.Time().Local().Format("15:04:05.0"), row.plainLine()))
	}
}

func (t *table) write(text string) {
	if _, err := io.WriteString(t.screen.Out, text); err != nil && t.err == nil {
		t.err = fmt.Errorf("show the layers: %w", err)
	}
}

// tick redraws the table on a terminal. Without a terminal, it writes the status if the options have
// one.
func (t *table) tick(now time.Time) {
	switch {
	case t.screen.Size != nil:
		t.draw(now)
	case t.Status != nil:
		t.write(t.Status() + "\n")
	}
}

func (t *table) status() string {
	switch {
	case t.Status != nil:
		return t.Status()
	case t.board.windows == 0:
		return fmt.Sprintf("no window has closed yet; waiting for rollups on %s", t.Topics.LayerHealth)
	}
	return fmt.Sprintf("%d windows, the latest until %s", t.board.windows, t.board.end.Time().Local().Format("15:04:05"))
}

// draw replaces the table on the terminal. The table has at least one line less than the terminal,
// because the cursor needs a line.
func (t *table) draw(now time.Time) {
	columns, height := t.screen.Size()
	lines := t.lines(now, max(columns-1, 0), max(height-1, 1))
	region := t.screen.Region
	region.mu.Lock()
	defer region.mu.Unlock()
	var text strings.Builder
	switch {
	case t.columns != 0 && (columns != t.columns || height != t.height):
		// After a resize it is not known where the lines are, so the screen is cleared.
		text.WriteString("\x1b[H" + wipe + "\x1b[H")
		if strings.Count(t.Head, "\n")+len(lines) < height {
			text.WriteString(t.Head)
		}
	case region.lines > 0:
		fmt.Fprintf(&text, "\x1b[%dA", region.lines)
	}
	for _, line := range lines {
		text.WriteString(line + "\x1b[K\n")
	}
	text.WriteString("\x1b[J")
	t.columns, t.height, region.lines = columns, height, len(lines)
	t.write(text.String())
}

// leave keeps the table on the screen. Later output is written below it.
func (t *table) leave() {
	t.screen.Region.mu.Lock()
	defer t.screen.Region.mu.Unlock()
	t.screen.Region.lines = 0
}

// lines returns at most most lines of at most width columns. If not everything fits, the layers and
// the status have priority over the legend.
func (t *table) lines(now time.Time, width, most int) (lines []string) {
	rows := t.board.Rows(now)
	status := wrap(Plain(t.status()), width)
	status = status[:min(len(status), max(1, most/3))]
	room := most - len(status)
	legend := legend(rows, width)
	if room >= len(legend)+min(len(rows), fewRows) {
		lines = append(lines, legend...)
		room -= len(legend)
	}
	shown := rows
	if len(rows) > room {
		shown = rows[:max(room-1, 0)]
	}
	layout := layoutFor(width, shown)
	layout.color = t.screen.Colours
	for _, r := range shown {
		lines = append(lines, layout.line(r))
	}
	if n := len(rows) - len(shown); n > 0 && room > 0 {
		lines = append(lines, fmt.Sprintf("%d more layers: %s", n, Levels(rows[len(shown):])))
	}
	lines = append(lines, status...)
	for i, line := range lines {
		// A line that wraps takes two rows, and the next draw would replace too few.
		lines[i] = ansi.Truncate(line, width, mark)
	}
	return lines
}

// fewRows is the number of rows that must fit before the legend is shown.
const fewRows = 4

// Levels describes how many rows have each level.
func Levels(rows []Row) string {
	var counts [verdict.Critical + 1]int
	learning := 0
	for _, r := range rows {
		if r.Judged && !r.Verdict.Learning {
			counts[r.Verdict.Level]++
		} else {
			learning++
		}
	}
	var parts []string
	for level := verdict.Critical; ; level-- {
		if counts[level] > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", counts[level], level))
		}
		if level == verdict.OK {
			break
		}
	}
	if learning > 0 {
		parts = append(parts, fmt.Sprintf("%d learning", learning))
	}
	return strings.Join(parts, ", ")
}
