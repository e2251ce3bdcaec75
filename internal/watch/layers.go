package watch

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"log/slog"
	"math"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/bus"
	"github.com/morphogenetic/oona/rollups"
	"github.com/morphogenetic/oona/schemas/avro"
)

// Screen is where a table of layers is shown.
type Screen struct {
	Out io.Writer
	// Size returns the columns and rows of the terminal, where the table is redrawn
	// in place. It is nil if Out is not a terminal.
	Size func() (columns, rows int)
}

// LayersOptions say which layers are shown, and how.
type LayersOptions struct {
	Topics  oona.Topics
	Run     oona.RunID    // empty: every run
	Layer   oona.LayerID  // empty: every layer
	Metrics []string      // whose means are shown, the first with its trend
	Count   int           // number of windows after which FollowLayers returns; 0: no limit
	Status  func() string // the line below the table; nil: what was read
	// MostLines is the number of layers up to which, without a terminal, each window
	// is a line. 0 means no limit.
	MostLines int
	// Stay is how long a layer is shown after its last window, for example a layer of
	// the previous run.
	Stay   time.Duration
	Logger *slog.Logger
}

// DefaultMetrics returns the metrics that a table of layers shows by default. They are
// few, so that a row fits the width of a terminal.
func DefaultMetrics() []string { return []string{"gradient_norm", "reconstruction_loss"} }

const (
	drawInterval   = 500 * time.Millisecond
	statusInterval = 5 * time.Second // without a terminal
)

// FollowLayers shows the last windows of each layer until ctx ends or Count is reached.
// Then it returns nil. On a terminal it draws a table again and again, otherwise each
// window of a layer's health is a line.
func FollowLayers(ctx context.Context, subscriber message.Subscriber, o LayersOptions, screen Screen) error {
	health, err := subscriber.Subscribe(ctx, o.Topics.LayerHealth)
	if err != nil {
		return err
	}
	performance, err := subscriber.Subscribe(ctx, o.Topics.LayerPerformance)
	if err != nil {
		return err
	}
	t := newTable(o, screen)
	interval := statusInterval
	if screen.Size != nil {
		interval = drawInterval
	}
	ticker := time.NewTicker(interval)
	defer ticker.Stop()
	t.tick(time.Now())
	for t.err == nil && (o.Count == 0 || t.windows < o.Count) {
		var msg *message.Message
		var open bool
		select {
		case <-ctx.Done():
			t.tick(time.Now())
			return t.err
		case now := <-ticker.C:
			t.tick(now)
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

// table is the table of layers. It reads no clock: the caller passes the time.
type table struct {
	LayersOptions
	screen Screen

	rollups rollups.Reader
	layers  *rollups.Layers[layerWindows]
	windows int         // that were shown
	end     oona.Micros // of the latest window
	drawn   int         // lines on the screen, which the next draw replaces
	err     error       // of the first write that failed
}

// layerWindows holds the last windows of a layer.
type layerWindows struct {
	health rollups.Windows[healthWindow]
	means  []rollups.Windows[float64] // by index in Metrics; NaN: not measured
}

// healthWindow is the health of a layer in one window, as far as it is shown.
type healthWindow struct {
	seeds           oona.SeedCensus
	framesPerSecond float64
}

// trendWindows is the number of windows in a trend.
const trendWindows = 12

func newTable(o LayersOptions, screen Screen) *table {
	return &table{LayersOptions: o, screen: screen, layers: rollups.NewLayers[layerWindows](rollups.Limits{
		Runs: 16, Layers: 1024, Total: 2048, SilentAfter: o.Stay,
	}, nil)}
}

// read adds the rollup of a message that arrived at now, unless readers drop it.
func (t *table) read(msg *message.Message, now time.Time) {
	var r oona.Rollup
	at, err := bus.PositionOf(msg)
	if err == nil {
		_, err = avro.DecodeRollup(msg.Payload, &r)
	}
	if err != nil {
		t.Logger.Warn("cannot read a rollup", "err", err)
		return
	}
	found := t.rollups.Read(at.Partition, &r) // also of layers that are not shown: a trigger counts for all
	switch {
	case found.Outcome == rollups.Repeat:
	case found.Outcome != rollups.New:
		t.Logger.Warn("the table leaves out a rollup", "outcome", found.Outcome.String(), "run", r.Run, "layer", r.Layer, "trigger", r.Trigger)
	case (t.Run == "" || t.Run == r.Run) && (t.Layer == "" || t.Layer == r.Layer):
		t.add(&r, now)
	}
}

// add adds a rollup that arrived at now.
func (t *table) add(r *oona.Rollup, now time.Time) {
	y, _ := t.layers.Of(r, now)
	if y.Value.means == nil {
		y.Value.means = make([]rollups.Windows[float64], len(t.Metrics))
	}
	for i, name := range t.Metrics {
		for m := range r.Metrics {
			if s := &r.Metrics[m]; s.Name == name {
				mean := s.Mean
				if s.Count == 0 {
					mean = math.NaN()
				}
				y.Value.means[i].Add(mean, r.End, trendWindows)
			}
		}
	}
	if r.Group != oona.Health {
		return
	}
	w := healthWindow{seeds: r.Seeds}
	if r.End > r.Start {
		w.framesPerSecond = float64(r.Frames) / (float64(r.End-r.Start) / 1e6)
	}
	y.Value.health.Add(w, r.End, 1)
	t.windows++
	t.end = max(t.end, r.End)
	if t.screen.Size == nil && (t.MostLines == 0 || t.layers.Len() <= t.MostLines) {
		t.write(fmt.Sprintf("window closed  %s  %s\n", r.End.Time().Local().Format("15:04:05.0"), everything.row(t.Metrics, y)))
	}
}

func (t *table) write(text string) {
	if _, err := io.WriteString(t.screen.Out, text); err != nil && t.err == nil {
		t.err = fmt.Errorf("show the layers: %w", err)
	}
}

// tick redraws the table on a terminal. Elsewhere it writes the status, if the options
// have one.
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
	case t.windows == 0:
		return fmt.Sprintf("no window has closed yet; waiting for rollups on %s", t.Topics.LayerHealth)
	}
	return fmt.Sprintf("%d windows since the start, the latest until %s", t.windows, t.end.Time().Local().Format("15:04:05"))
}

// mostRows is the greatest number of layers on a terminal.
const mostRows = 24

// draw replaces the table on the terminal.
func (t *table) draw(now time.Time) {
	rows := slices.SortedFunc(t.layers.All(now), func(x, y *rollups.Layer[layerWindows]) int {
		return cmp.Or(cmp.Compare(x.Run, y.Run), cmp.Compare(x.ID, y.ID))
	})
	columns, height := t.screen.Size()
	status := wrap(t.status(), columns-1)
	// Above and below the layers are the legend, the number of layers that are left
	// out, the status and the cursor.
	most := max(1, min(mostRows, height-len(legend)-len(status)-2))
	var text strings.Builder
	if t.drawn > 0 {
		fmt.Fprintf(&text, "\x1b[%dA", t.drawn)
	}
	t.drawn = 0
	line := func(s string) {
		// A line that wraps takes two rows, and the next draw would replace too few.
		runes := []rune(s)
		text.WriteString("\x1b[2K" + string(runes[:min(len(runes), max(columns-1, 0))]) + "\n")
		t.drawn++
	}
	for _, s := range legend {
		line(s)
	}
	shown := rows[:min(len(rows), most)]
	layout := layoutFor(columns-1, t.Metrics, shown)
	for _, y := range shown {
		line(layout.row(t.Metrics, y))
	}
	if n := len(rows) - len(shown); n > 0 {
		line(fmt.Sprintf("... and %d more", n))
	}
	for _, s := range status {
		line(s)
	}
	text.WriteString("\x1b[J")
	t.write(text.String())
}

// wrap divides text between words into lines of at most width columns. A word that is
// longer has a line of its own.
func wrap(text string, width int) (lines []string) {
	words := strings.Fields(text)
	for len(words) > 0 {
		n, columns := 1, utf8.RuneCountInString(words[0])
		for n < len(words) && columns+1+utf8.RuneCountInString(words[n]) <= width {
			columns += 1 + utf8.RuneCountInString(words[n])
			n++
		}
		lines = append(lines, strings.Join(words[:n], " "))
		words = words[n:]
	}
	return lines
}
