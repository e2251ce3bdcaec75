package watch

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"math"
	"slices"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/bus"
	"github.com/morphogenetic/oona/rollups"
	"github.com/morphogenetic/oona/schemas/avro"
	"github.com/morphogenetic/oona/verdict"
)

// BoardOptions select the layers and metrics of a Board.
type BoardOptions struct {
	Run     oona.RunID   // empty for all runs
	Layer   oona.LayerID // empty for all layers
	Metrics []string     // the metrics that are shown, the most important first
	// Rule returns the rule for the verdict on a metric.
	Rule func(metric string) verdict.Rule
	// Stay is how long a layer is kept after its last rollup has arrived. Layers of a previous
	// run disappear in this way.
	Stay time.Duration
	// Ended is how long the layers of a run are shown after the end of its latest window; 0
	// means for ever. While a run has new windows, its silent layers are shown, too.
	Ended  time.Duration
	Logger *slog.Logger
}

// DefaultMetrics returns the metrics that a Board shows by default.
func DefaultMetrics() []string { return []string{"gradient_norm", "reconstruction_loss"} }

// Board keeps the last windows of each layer, and the verdicts. The caller passes the present time
// to its methods. A Board is not safe for concurrent use.
type Board struct {
	BoardOptions

	rollups rollups.Reader
	layers  *rollups.Layers[layerWindows]
	runs    map[oona.RunID]*verdict.Run
	unread  map[place]int64 // partitions that were not read yet up to where they ended when reading began, with these ends
	windows int             // number of health windows of the layers that are shown
	end     oona.Micros     // end of the latest of these windows
}

// place is a partition of a topic.
type place struct {
	topic     string
	partition int32
}

// layerWindows holds the last windows of a layer.
type layerWindows struct {
	health rollups.Windows[healthWindow]
	means  map[string]*rollups.Windows[float64] // means by metric; NaN means not measured
	first  string                               // the name of the metric that comes first in alphabetical order
}

// healthWindow has those health values of one window of a layer that are shown.
type healthWindow struct {
	seeds           oona.SeedCensus
	framesPerSecond float64
}

const (
	trendWindows = 12 // number of windows in a trend
	// mostMetrics is the maximum number of metrics of a layer that are kept besides the ones in the
	// options.
	mostMetrics = 64
)

// NewBoard returns an empty Board.
func NewBoard(o BoardOptions) *Board {
	b := &Board{BoardOptions: o, runs: make(map[oona.RunID]*verdict.Run), unread: make(map[place]int64)}
	b.layers = rollups.NewLayers(rollups.Limits{Runs: 16, Layers: 1024, Total: 2048, SilentAfter: o.Stay}, b.forget)
	return b
}

func (b *Board) forget(y *rollups.Layer[layerWindows]) {
	run := b.runs[y.Run]
	if run == nil {
		return
	}
	run.Forget(y.ID)
	if run.Len() == 0 {
		delete(b.runs, y.Run)
	}
}

// Subscribe subscribes to the rollups of layers. The caller must pass all messages to Read. CaughtUp
// then reports whether Read has got the rollups that were there when Subscribe was called.
func (b *Board) Subscribe(ctx context.Context, reader bus.Reader, topics oona.Topics) (health, performance <-chan *message.Message, err error) {
	if health, err = reader.Subscribe(ctx, topics.LayerHealth); err != nil {
		return nil, nil, err
	}
	if performance, err = reader.Subscribe(ctx, topics.LayerPerformance); err != nil {
		return nil, nil, err
	}
	b.expect(reader, topics.LayerHealth, topics.LayerPerformance)
	return health, performance, nil
}

// expect notes the ends of topics when reading them began. The reader must have subscribed to them.
func (b *Board) expect(reader bus.Reader, topics ...string) {
	for _, topic := range topics {
		for _, r := range reader.Ranges(topic) {
			if r.From < r.End {
				b.unread[place{topic, r.Partition}] = r.End
			}
		}
	}
}

// CaughtUp reports whether the Board has read all rollups that were there when reading began.
func (b *Board) CaughtUp() bool { return len(b.unread) == 0 }

// passed records that the message at a position was read.
func (b *Board) passed(at bus.Position) {
	of := place{at.Topic, at.Partition}
	if end, waits := b.unread[of]; waits && at.Offset+1 >= end {
		delete(b.unread, of)
	}
}

// Read adds the rollup of a message that arrived at the time now, unless readers must drop it. If
// it is a health rollup of a layer that is shown, Read returns the row of the layer.
func (b *Board) Read(msg *message.Message, now time.Time) (Row, bool) {
	var r oona.Rollup
	at, err := bus.PositionOf(msg)
	if err == nil {
		b.passed(at)
		_, err = avro.DecodeRollup(msg.Payload, &r)
	}
	if err != nil {
		b.Logger.Warn("cannot read a rollup", "err", err)
		return Row{}, false
	}
	found := b.rollups.Read(at.Partition, &r) // even if the layer is not shown, because triggers are compared across all layers
	switch {
	case found.Outcome == rollups.Repeat:
	case found.Outcome != rollups.New:
		b.Logger.Warn("the table leaves out a rollup", "outcome", found.Outcome.String(), "run", r.Run, "layer", r.Layer, "trigger", r.Trigger)
	case b.Run == "" || b.Run == r.Run:
		return b.add(&r, now)
	}
	return Row{}, false
}

// add adds a rollup that arrived at the time now.
func (b *Board) add(r *oona.Rollup, now time.Time) (Row, bool) {
	y, _ := b.layers.Of(r, now)
	y.Value.measure(r, b.Metrics)
	if !y.Merged {
		if b.runs[r.Run] == nil {
			b.runs[r.Run] = verdict.NewRun(b.Rule)
		}
		b.runs[r.Run].Observe(r)
	}
	if r.Group != oona.Health {
		return Row{}, false
	}
	w := healthWindow{seeds: r.Seeds}
	if r.End > r.Start {
		w.framesPerSecond = float64(r.Frames) / (float64(r.End-r.Start) / 1e6)
	}
	y.Value.health.Add(w, r.End, 1)
	if !b.shows(y.ID) {
		return Row{}, false
	}
	b.windows++
	b.end = max(b.end, r.End)
	row := b.row(y, 0)
	row.End = r.End // y may have a later window already
	return row, true
}

func (b *Board) shows(layer oona.LayerID) bool { return b.Layer == "" || b.Layer == layer }

// measure keeps the means of the metrics in a rollup.
func (w *layerWindows) measure(r *oona.Rollup, wanted []string) {
	if w.means == nil {
		w.means = make(map[string]*rollups.Windows[float64])
	}
	for i := range r.Metrics {
		m := &r.Metrics[i]
		if w.means[m.Name] == nil {
			if len(w.means) >= mostMetrics && !slices.Contains(wanted, m.Name) {
				continue
			}
			w.means[m.Name] = new(rollups.Windows[float64])
		}
		mean := m.Mean
		if m.Count == 0 {
			mean = math.NaN()
		}
		w.means[m.Name].Add(mean, r.End, trendWindows)
		if w.first == "" || m.Name < w.first {
			w.first = m.Name
		}
	}
}

// mean returns the mean of a metric in the window of the layer that is shown.
func (w *layerWindows) mean(metric string) (_ float64, measured bool) {
	shown, _, _ := w.health.Last()
	windows := w.means[metric]
	if windows == nil {
		return 0, false
	}
	end, mean, found := windows.Last()
	return mean, found && end >= shown && !math.IsNaN(mean)
}

// Rows returns the rows of all layers at the time now, with unhealthy layers first.
func (b *Board) Rows(now time.Time) []Row {
	var rows []Row
	for y := range b.layers.All(now) {
		latest := y.End
		if run := b.runs[y.Run]; run != nil {
			latest = run.Now()
		}
		if !b.shows(y.ID) || b.Ended > 0 && now.Sub(latest.Time()) > b.Ended {
			continue
		}
		if !b.CaughtUp() { // later windows of the run may not have been read yet
			latest = 0
		}
		rows = append(rows, b.row(y, latest))
	}
	slices.SortFunc(rows, Row.Compare)
	return rows
}

// row returns the row of a layer. end is the end of the latest window of the run, or 0 if it is not
// known.
func (b *Board) row(y *rollups.Layer[layerWindows], end oona.Micros) Row {
	shown, health, _ := y.Value.health.Last()
	r := Row{Run: y.Run, Layer: y.ID, End: shown, Seeds: health.seeds, FramesPerSecond: health.framesPerSecond}
	if run := b.runs[y.Run]; run != nil {
		r.Verdict, r.Judged = run.At(y.ID, end)
		r.Age = time.Duration(max(run.Now(), y.End)-r.Verdict.Since) * time.Microsecond
	}
	main := y.Value.first
	for _, name := range b.Metrics {
		if _, measured := y.Value.mean(name); measured {
			main = name
			break
		}
	}
	if windows := y.Value.means[main]; windows != nil {
		r.Main = Cell{main, "-"}
		if mean, measured := y.Value.mean(main); measured {
			r.Main.Value = fmt.Sprintf("%.4g", mean)
		}
		r.trend = trend(windows)
	}
	for _, name := range b.Metrics {
		other := ""
		if mean, measured := y.Value.mean(name); measured && name != main {
			other = Plain(fmt.Sprintf("%s %.4g", name, mean))
		}
		r.others = append(r.others, other)
	}
	r.others = append(r.others, fmt.Sprintf("%d of %d active", health.seeds.Active, health.seeds.Seen), fmt.Sprintf("%.3g frames/s", health.framesPerSecond))
	return r
}

// Compare orders rows: unhealthy layers first, then layers of newer runs. It assumes that the IDs of
// runs begin with the time, which is often so.
func (r Row) Compare(other Row) int {
	return cmp.Or(cmp.Compare(other.Verdict.Level, r.Verdict.Level), cmp.Compare(other.Run, r.Run), verdict.CompareLayers(r.Layer, other.Layer))
}
