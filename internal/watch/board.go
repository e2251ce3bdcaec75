package watch

import (
	"cmp"
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

// BoardOptions say which layers a Board has, and what of them.
type BoardOptions struct {
	Run     oona.RunID   // empty: every run
	Layer   oona.LayerID // empty: every layer
	Metrics []string     // of interest, the most important first
	// Rule returns what is judged of a metric.
	Rule func(metric string) verdict.Rule
	// Stay is how long a layer is kept after its last rollup came, for example a layer of
	// the previous run.
	Stay time.Duration
	// Ended is how long the layers of a run are shown after its latest window ended. 0
	// means for ever. A layer that is silent while others of its run go on is shown.
	Ended  time.Duration
	Logger *slog.Logger
}

// DefaultMetrics returns the metrics that a Board has by default.
func DefaultMetrics() []string { return []string{"gradient_norm", "reconstruction_loss"} }

// Board has the last windows of each layer, and the verdicts. It reads no clock: the
// caller passes the time. It is not safe for concurrent use.
type Board struct {
	BoardOptions

	rollups rollups.Reader
	layers  *rollups.Layers[layerWindows]
	runs    map[oona.RunID]*verdict.Run
	started time.Time
	old     time.Time   // when a rollup was read that is older than the Board
	windows int         // of health, of layers that are shown
	end     oona.Micros // of the latest of them
}

// layerWindows holds the last windows of a layer.
type layerWindows struct {
	health rollups.Windows[healthWindow]
	means  map[string]*rollups.Windows[float64] // by metric; NaN: not measured
	first  string                               // of the metrics' names, in their order
}

// healthWindow is the health of a layer in one window, as far as it is shown.
type healthWindow struct {
	seeds           oona.SeedCensus
	framesPerSecond float64
}

const (
	trendWindows = 12 // in a trend
	// mostMetrics is the number of metrics of a layer of which more than the names in the
	// options are kept.
	mostMetrics = 64
	// quiet is how long no old rollup must have come before the Board counts as having
	// read what there was.
	quiet = 2 * time.Second
)

// NewBoard returns an empty Board.
func NewBoard(o BoardOptions, now time.Time) *Board {
	b := &Board{BoardOptions: o, runs: make(map[oona.RunID]*verdict.Run), started: now, old: now}
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

// Read adds the rollup of a message that arrived at now, unless readers drop it. If the
// rollup is the health of a layer that is shown, Read returns the layer's row.
func (b *Board) Read(msg *message.Message, now time.Time) (Row, bool) {
	var r oona.Rollup
	at, err := bus.PositionOf(msg)
	if err == nil {
		_, err = avro.DecodeRollup(msg.Payload, &r)
	}
	if err != nil {
		b.Logger.Warn("cannot read a rollup", "err", err)
		return Row{}, false
	}
	if at.Appended.Time().Before(b.started) {
		b.old = now
	}
	found := b.rollups.Read(at.Partition, &r) // also of layers that are not shown: a trigger counts for all
	switch {
	case found.Outcome == rollups.Repeat:
	case found.Outcome != rollups.New:
		b.Logger.Warn("the table leaves out a rollup", "outcome", found.Outcome.String(), "run", r.Run, "layer", r.Layer, "trigger", r.Trigger)
	case b.Run == "" || b.Run == r.Run:
		return b.add(&r, now)
	}
	return Row{}, false
}

// add adds a rollup that arrived at now.
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

// CaughtUp reports whether the Board has read what was on the topics before it.
func (b *Board) CaughtUp(now time.Time) bool { return now.Sub(b.old) >= quiet }

// Rows returns what is shown of all layers at now, unhealthy ones first.
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
		if !b.CaughtUp(now) {
			latest = 0
		}
		rows = append(rows, b.row(y, latest))
	}
	slices.SortFunc(rows, Row.Compare)
	return rows
}

// row returns what is shown of a layer. End is that of the latest window of the run, or 0
// if it is not known.
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

// Compare orders rows: unhealthy layers first, then those of new runs, as the IDs of runs
// often begin with the time.
func (r Row) Compare(other Row) int {
	return cmp.Or(cmp.Compare(other.Verdict.Level, r.Verdict.Level), cmp.Compare(other.Run, r.Run), verdict.CompareLayers(r.Layer, other.Layer))
}
