package simulate

import (
	"cmp"
	"math"
	"slices"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/windows"
)

// oracle is a clean run over a log: what the design says of each record,
// computed anew from all records before it, with nothing but lists and maps. It
// is written from the design, shares no code with the engine, and knows nothing
// of commits. Time is in microseconds throughout.
type oracle struct {
	cfg      windows.Config // made last
	eras     []*era         // in order
	lost     *loss          // nil: the log is whole
	clock    int64
	offset   int64 // of the record at hand
	last     int64 // append time of the record before
	latest   int64 // greatest append time
	begun    bool
	lines    []*line // in no order
	floor    int64
	accounts []account // of each record
	counts   oracleCounts
}

// account is all that the log says about a record.
type account struct {
	record  windows.Record
	verdict windows.Verdict
	reason  windows.Reason
	rollups []content // that it closes
	index   int32     // layers that it closes
	clock   int64
	open    int // windows, after it
}

type oracleCounts struct {
	forgotten, evicted, sealed                                         int
	firsts, configured, rounded, severalInReach, retired               int // configurations
	voidUnsound, voidGeneration, voidSlots, voidEarly, voidOrder       int
	outOfReach, straddling, sealedEarlier, forgottenBetween, fewerRoom int
	overflowed, hidden                                                 int
	rescaled                                                           int // sightings, at a change of the idle horizon
}

type line struct {
	run       oona.RunID
	id        oona.TimelineID
	watermark int64
	before    int64 // the watermark, before the record at hand
	sightings []sighting
	panes     map[int64]*pane // open windows, by start
	sealed    map[int64]bool
}

// sighting is a producer on a path, seen at an event time.
type sighting struct {
	producer   oona.ProducerID
	path       string
	at, bucket int64
}

// pane is what was folded into an open window.
type pane struct {
	records []windows.Record
	repeats []windows.Record // of one of these
}

func (p *pane) layers() map[oona.LayerID]bool {
	layers := map[oona.LayerID]bool{}
	for _, r := range p.records {
		layers[r.Frame.Layer] = true
	}
	return layers
}

func newOracle(cfg windows.Config) *oracle {
	return &oracle{cfg: cfg, eras: []*era{{cfg: cfg, first: true}}, floor: math.MinInt64, latest: math.MinInt64}
}

// bucket is the quarter of the idle horizon that the clock is in.
func (o *oracle) bucket() int64 { return o.clock / o.bucketWidth() }

func (o *oracle) bucketWidth() int64 { return (o.cfg.IdleHorizon.Microseconds() + 3) / 4 }

// fold takes the log's next record.
func (o *oracle) fold(r windows.Record) {
	a := &account{record: r}
	for _, l := range o.lines {
		l.before = l.watermark
	}
	first := !o.begun
	due := o.passTime(int64(r.AppendedAt))
	a.clock, o.offset = o.clock, r.Offset
	if o.lost != nil {
		o.outlive(first)
		first = false
	}
	if r.Configuration != nil {
		a.reason = o.configure(r.Configuration, first)
		due = due || a.reason == windows.ReasonConfigured // the out-of-orderness may be another
	}
	if due {
		for _, l := range o.lines {
			o.raise(l)
		}
		o.close(o.lines, a)
		o.forget()
		o.retire()
	}
	a.verdict = windows.Passed
	if r.Frame != nil {
		a.verdict, a.reason = o.decide(a)
	}
	for _, l := range o.lines {
		a.open += len(l.panes)
		if o.straddles(l) {
			o.counts.straddling++
		}
	}
	o.accounts = append(o.accounts, *a)
}

// passTime advances the log clock and reports whether that begins a tick
// interval or a bucket, as the first record does.
func (o *oracle) passTime(stamp int64) bool {
	tick := o.cfg.TickInterval.Microseconds()
	interval, bucket, first := o.clock/tick, o.bucket(), !o.begun
	if !first {
		o.clock += min(max(stamp-o.last, 0), 2*tick)
	}
	o.begun, o.last, o.latest = true, stamp, max(o.latest, stamp)
	return first || o.clock/tick != interval || o.bucket() != bucket
}

// raise moves a timeline's watermark as far as it may go.
func (o *oracle) raise(l *line) {
	type source struct {
		producer oona.ProducerID
		path     string
	}
	reach := map[source]int64{}
	active := l.sightings[:0]
	for _, s := range l.sightings {
		if s.bucket < o.bucket()-4 {
			continue // it never counts again
		}
		active = append(active, s)
		from := source{s.producer, s.path}
		if at, seen := reach[from]; !seen || s.at > at {
			reach[from] = s.at
		}
	}
	l.sightings = active
	if len(reach) > 0 {
		slowest := int64(math.MaxInt64)
		for _, at := range reach {
			slowest = min(slowest, at)
		}
		l.watermark = max(l.watermark, slowest-o.cfg.OutOfOrderness.Microseconds())
		return
	}
	for start := range l.panes {
		_, _, closes := o.window(start)
		l.watermark = max(l.watermark, closes)
	}
}

func (l *line) quiet() bool { return len(l.panes) == 0 && len(l.sightings) == 0 }

// forget drops the quiet timelines of which no frame can come that would not be
// stale.
func (o *oracle) forget() {
	limit := o.latest - o.memory()
	for _, l := range slices.Clone(o.lines) {
		if l.quiet() && l.watermark < limit {
			o.drop(l)
			o.counts.forgotten++
			if o.inReach() > 1 {
				o.counts.forgottenBetween++
			}
		}
	}
}

func (o *oracle) drop(l *line) {
	o.floor = max(o.floor, l.watermark)
	o.lines = slices.DeleteFunc(o.lines, func(m *line) bool { return m == l })
}

// decide says what becomes of a record, after time has passed.
func (o *oracle) decide(a *account) (windows.Verdict, windows.Reason) {
	f := a.record.Frame
	era := o.era(int64(f.ObservedAt))
	switch ahead := int64(f.ObservedAt - a.record.AppendedAt); {
	case era.retired:
		if -ahead <= era.cfg.MaxDelay.Microseconds() {
			o.counts.outOfReach++
		}
		return windows.Quarantined, windows.ReasonStale
	case ahead > era.cfg.MaxSkew.Microseconds():
		return windows.Quarantined, windows.ReasonFuture
	case -ahead > era.cfg.MaxDelay.Microseconds():
		return windows.Quarantined, windows.ReasonStale
	}
	l := o.admit(f)
	if l == nil {
		return windows.Overflowed, windows.ReasonTimelines
	}
	verdict, reason := o.place(l, a.record)
	if start, _, _ := o.window(int64(f.ObservedAt)); verdict == windows.Folded && o.lost.hides(start) {
		verdict, reason = windows.Late, windows.ReasonLost
		o.counts.hidden++
	}
	l.sightings = append(l.sightings, sighting{f.Producer, a.record.Path, int64(f.ObservedAt), o.bucket()})
	o.raise(l)
	o.close([]*line{l}, a)
	return verdict, reason
}

func (o *oracle) admit(f *oona.Frame) *line {
	for _, l := range o.lines {
		if l.run == f.Run && l.id == f.Timeline {
			return l
		}
	}
	if len(o.lines) >= o.cfg.MaxTimelines {
		if len(o.lines) > o.cfg.MaxTimelines {
			o.counts.fewerRoom++
		}
		quiet := slices.DeleteFunc(slices.Clone(o.lines), func(l *line) bool { return !l.quiet() })
		if len(quiet) == 0 {
			o.counts.overflowed++
			return nil
		}
		o.drop(slices.MinFunc(quiet, func(l, m *line) int {
			return cmp.Or(cmp.Compare(l.watermark, m.watermark), cmp.Compare(l.hash(), m.hash()))
		}))
		o.counts.evicted++
	}
	l := &line{run: f.Run, id: f.Timeline, watermark: o.floor, before: o.floor, panes: map[int64]*pane{}, sealed: map[int64]bool{}}
	o.lines = append(o.lines, l)
	return l
}

// hash orders timelines of equal watermarks. Commits name timelines by it.
func (l *line) hash() uint64 {
	h := uint64(0xcbf29ce484222325)
	for _, c := range []byte(string(l.run) + "\x00" + string(l.id)) {
		h ^= uint64(c)
		h *= 0x100000001b3
	}
	h = (h ^ h>>33) * 0xff51afd7ed558ccd
	h = (h ^ h>>33) * 0xc4ceb9fe1a85ec53
	return h ^ h>>33
}

// place finds the window of a frame that has a timeline.
func (o *oracle) place(l *line, r windows.Record) (windows.Verdict, windows.Reason) {
	f := r.Frame
	start, _, closes := o.window(int64(f.ObservedAt))
	if closes <= l.watermark {
		return windows.Late, windows.ReasonLate
	}
	p := l.panes[start]
	if p == nil {
		p = &pane{}
	}
	for _, g := range p.records {
		if g.Frame.Producer != f.Producer || g.Frame.Epoch != f.Epoch || g.Frame.Sequence != f.Sequence {
			continue
		}
		if g.Checksum != r.Checksum {
			return windows.Quarantined, windows.ReasonConflict
		}
		p.repeats = append(p.repeats, g)
		return windows.Duplicate, windows.ReasonDuplicate
	}
	if reason := o.overflow(l, p, start, f); reason != windows.ReasonNone {
		return windows.Overflowed, reason
	}
	p.records = append(p.records, r)
	l.panes[start] = p
	return windows.Folded, windows.ReasonNone
}

// overflow says which cap a frame would exceed.
func (o *oracle) overflow(l *line, p *pane, start int64, f *oona.Frame) windows.Reason {
	layers, metrics, seeds := p.layers(), map[string]bool{}, map[oona.SeedID]bool{}
	known, cfg := layers[f.Layer], o.era(start).cfg
	if !known && len(layers) >= cfg.MaxLayers {
		return windows.ReasonLayers
	}
	frames := []*oona.Frame{f}
	for _, r := range p.records {
		if r.Frame.Layer == f.Layer {
			frames = append(frames, r.Frame)
		}
	}
	for _, g := range frames {
		for _, c := range g.Metrics {
			metrics[c.Name] = true
		}
		for _, id := range g.Seeds {
			seeds[id] = true
		}
	}
	switch {
	case len(metrics) > cfg.MaxMetrics:
		return windows.ReasonMetrics
	case len(seeds) > cfg.MaxSeeds:
		return windows.ReasonSeeds
	case known:
		return windows.ReasonNone
	case l.sealed[start]:
		return windows.ReasonSealed
	}
	mine, all := 0, 0
	for _, m := range o.lines {
		for _, q := range m.panes {
			n := len(q.layers())
			all += n
			if m == l {
				mine += n
			}
		}
	}
	if all >= o.cfg.MaxAccumulators || mine >= o.cfg.MaxTimelineAccumulators {
		l.sealed[start] = true
		o.counts.sealed++
		if o.era(start) != o.eras[len(o.eras)-1] {
			o.counts.sealedEarlier++
		}
		return windows.ReasonSealed
	}
	return windows.ReasonNone
}

// close emits what the watermarks of these timelines have passed: by the end of
// the window, run, timeline and layer.
func (o *oracle) close(lines []*line, a *account) {
	type closing struct {
		l          *line
		start, end int64
		layer      oona.LayerID
	}
	var all []closing
	for _, l := range lines {
		for start, p := range l.panes {
			_, end, closes := o.window(start)
			if closes > l.watermark {
				continue
			}
			for layer := range p.layers() {
				all = append(all, closing{l, start, end, layer})
			}
		}
	}
	slices.SortFunc(all, func(b, c closing) int {
		return cmp.Or(cmp.Compare(b.end, c.end), cmp.Compare(b.l.run, c.l.run), cmp.Compare(b.l.id, c.l.id), cmp.Compare(b.layer, c.layer))
	})
	for _, c := range all {
		if !o.lost.hides(c.start) {
			health, performance := o.rollups(c.l, c.start, c.layer, a)
			a.rollups = append(a.rollups, health, performance)
		}
		a.index++
	}
	for _, c := range all {
		delete(c.l.panes, c.start)
	}
}
