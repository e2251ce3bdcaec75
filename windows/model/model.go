package model

import (
	"cmp"
	"math"
	"slices"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/windows"
)

// Model folds the log of one partition. Times are in microseconds.
type Model struct {
	// Mutant is an error in the model. It must be set before the first record.
	Mutant Mutant
	// Accounts says what became of each record.
	Accounts []Account
	// Events counts what has happened, so that a test knows what its logs had.
	Events Events

	about       func(metric string) oona.Metric
	cfg         windows.Config // the one that was made last
	epochs      []*configEpoch // in order
	recovery    *recovery      // nil: the log is whole
	incarnation oona.Incarnation

	begun     bool  // a record has been seen
	clock     int64 // log time since the first record
	last      int64 // append time of the record before
	latest    int64 // greatest append time
	timelines []*timeline
	floor     int64
}

// Account is all that a log says about one of its records.
type Account struct {
	Record  windows.Record
	Outcome windows.Outcome // without its detail
	Rollups []Rollup        // that the record closes
	Clock   int64           // log time
	Open    int             // windows that are open after the record

	index int32 // layers' windows that the record has closed
}

// Events are counts of what has happened.
type Events struct {
	Forgotten, Evicted, Sealed                                         int
	Firsts, Configured, Rounded, SeveralInReach, Expired               int // configurations
	VoidUnsound, VoidGeneration, VoidSlots, VoidEarly, VoidOrder       int
	OutOfReach, Straddling, SealedEarlier, ForgottenBetween, FewerRoom int
	Overflowed, Suppressed                                             int
	Rescaled                                                           int // sightings, at a change of the idle horizon
}

// timeline is what has one watermark.
type timeline struct {
	run       oona.RunID
	id        oona.TimelineID
	watermark int64
	before    int64              // the watermark, before the record at hand
	seen      map[sighting]int64 // the latest event time
	panes     map[int64]*pane    // open windows, by start
	sealed    map[int64]bool
	rejected  map[identity]bool // beyond a cap; of a mutant only
}

// sighting is a slot of producers in a bucket of the log clock.
type sighting struct {
	slot   int
	bucket int64
}

// pane is what was folded into an open window.
type pane struct {
	layers     map[oona.LayerID][]windows.Record
	repeats    map[oona.LayerID]int64
	identities map[identity]windows.Record
}

type identity struct {
	producer oona.ProducerID
	epoch    oona.Micros
	sequence int64
}

// New returns the model of a log from its first record on. About returns what is
// known of a metric.
func New(cfg windows.Config, about func(metric string) oona.Metric) *Model {
	return &Model{
		about: about, cfg: cfg, epochs: []*configEpoch{{cfg: cfg, first: true}},
		latest: math.MinInt64, floor: math.MinInt64,
	}
}

// Config returns the configuration that was made last.
func (m *Model) Config() windows.Config { return m.cfg }

// Fold folds the log's next record. The account is also the last of m.Accounts.
func (m *Model) Fold(r windows.Record) *Account {
	m.Accounts = append(m.Accounts, Account{Record: r, Outcome: windows.Outcome{Verdict: windows.Passed}})
	a := &m.Accounts[len(m.Accounts)-1]
	for _, t := range m.timelines {
		t.before = t.watermark
	}
	if r.Incarnation != nil && m.recovery == nil && !m.begun {
		a.Outcome.Reason = m.begin(r.Incarnation) // time does not begin with it
		return a
	}
	first := !m.begun
	due := m.passTime(int64(r.AppendedAt))
	a.Clock = m.clock
	if r.Incarnation != nil {
		a.Outcome.Reason = m.begin(r.Incarnation)
	}
	if m.recovery != nil {
		m.advanceRecovery(first, r.Offset)
		first = false
	}
	if r.Configuration != nil {
		a.Outcome.Reason = m.configure(r.Configuration, first)
		due = due || a.Outcome.Reason == windows.ReasonConfigured // the out-of-orderness may be another
	}
	if due {
		m.evaluate(a)
	}
	if r.Frame != nil {
		a.Outcome.Verdict, a.Outcome.Reason = m.decide(a)
	}
	for _, t := range m.timelines {
		a.Open += len(t.panes)
		if m.straddles(t) {
			m.Events.Straddling++
		}
	}
	return a
}

// begin decides about an incarnation record.
func (m *Model) begin(s *oona.IncarnationStart) windows.Reason {
	if s.Number <= m.incarnation {
		return windows.ReasonVoid
	}
	m.incarnation = s.Number
	return windows.ReasonBegun
}

// bucketWidth is a quarter of the idle horizon.
func (m *Model) bucketWidth() int64 { return (m.cfg.IdleHorizon.Microseconds() + 3) / 4 }

func (m *Model) bucket() int64 { return m.clock / m.bucketWidth() }

// InStep reports whether a reader that starts at a record with this log time has
// tick intervals and buckets that begin when the model's do.
func (m *Model) InStep(clock int64) bool {
	return clock%m.bucketWidth() == 0 && clock%m.cfg.TickInterval.Microseconds() == 0
}

// passTime advances the log clock and reports whether that begins a tick interval
// or a bucket, as the first record does.
func (m *Model) passTime(stamp int64) bool {
	tick := m.cfg.TickInterval.Microseconds()
	interval, bucket, first := m.clock/tick, m.bucket(), !m.begun
	if !first {
		step := max(stamp-m.last, 0)
		if m.Mutant != UnboundedClock {
			step = min(step, 2*tick)
		}
		m.clock += step
	}
	m.begun, m.last, m.latest = true, stamp, max(m.latest, stamp)
	return first || m.clock/tick != interval || m.bucket() != bucket
}

// evaluate advances all watermarks, and closes and forgets what is due.
func (m *Model) evaluate(a *Account) {
	due := m.timelines
	if m.Mutant == OwnTrafficOnly {
		f := a.Record.Frame
		due = slices.DeleteFunc(slices.Clone(due), func(t *timeline) bool { return f == nil || t.run != f.Run || t.id != f.Timeline })
	}
	for _, t := range due {
		m.raise(t)
	}
	m.close(due, a)
	m.forgetOld()
	m.expire()
}

// decide says what becomes of a frame, after time has passed.
func (m *Model) decide(a *Account) (windows.Verdict, windows.Reason) {
	f := a.Record.Frame
	epoch := m.epoch(int64(f.ObservedAt))
	switch ahead := int64(f.ObservedAt - a.Record.AppendedAt); {
	case epoch.expired:
		if -ahead <= epoch.cfg.MaxDelay.Microseconds() {
			m.Events.OutOfReach++
		}
		return windows.Quarantined, windows.ReasonStale
	case ahead > epoch.cfg.MaxSkew.Microseconds():
		return windows.Quarantined, windows.ReasonFuture
	case -ahead > epoch.cfg.MaxDelay.Microseconds():
		return windows.Quarantined, windows.ReasonStale
	}
	t := m.admit(f)
	if t == nil {
		return windows.Overflowed, windows.ReasonTimelines
	}
	verdict, reason := m.place(t, a.Record)
	if m.Mutant != LateFramesStay || verdict != windows.Late {
		m.see(t, &a.Record)
	}
	if start, _, _ := m.window(int64(f.ObservedAt)); verdict == windows.Folded && m.suppresses(start) {
		verdict, reason = windows.Late, windows.ReasonLost
		m.Events.Suppressed++
	}
	m.raise(t)
	m.close([]*timeline{t}, a)
	return verdict, reason
}

// place decides about a frame within its timeline, and folds it.
func (m *Model) place(t *timeline, r windows.Record) (windows.Verdict, windows.Reason) {
	f := r.Frame
	start, _, closes := m.window(int64(f.ObservedAt))
	if closes < t.watermark || closes == t.watermark && m.Mutant != ExclusiveLateness {
		return windows.Late, windows.ReasonLate
	}
	id := identity{f.Producer, f.Epoch, f.Sequence}
	for at, p := range t.panes {
		if at != start && m.Mutant != IdentitiesAcross {
			continue
		}
		g, known := p.identities[id]
		if !known || m.Mutant == NoDuplicateCheck {
			continue
		}
		if g.Checksum != r.Checksum {
			return windows.Quarantined, windows.ReasonConflict
		}
		p.repeats[g.Frame.Layer]++
		return windows.Duplicate, windows.ReasonDuplicate
	}
	if t.rejected[id] {
		return windows.Duplicate, windows.ReasonDuplicate
	}
	p := t.panes[start]
	if p == nil {
		p = &pane{layers: map[oona.LayerID][]windows.Record{}, repeats: map[oona.LayerID]int64{}, identities: map[identity]windows.Record{}}
	}
	if reason := m.overflow(t, p, start, f); reason != windows.ReasonNone {
		if m.Mutant == RejectedIdentities && reason != windows.ReasonSealed {
			t.rejected[id] = true
		}
		return windows.Overflowed, reason
	}
	p.layers[f.Layer] = append(p.layers[f.Layer], r)
	p.identities[id] = r
	t.panes[start] = p
	return windows.Folded, windows.ReasonNone
}

// overflow says which cap a frame would exceed.
func (m *Model) overflow(t *timeline, p *pane, start int64, f *oona.Frame) windows.Reason {
	metrics, seeds := map[string]bool{}, map[oona.SeedID]bool{}
	members, known := p.layers[f.Layer]
	cfg := m.epoch(start).cfg
	if !known && len(p.layers) >= cfg.MaxLayers {
		return windows.ReasonLayers
	}
	note := func(g *oona.Frame) {
		for _, c := range g.Metrics {
			metrics[c.Name] = true
		}
		for _, id := range g.Seeds {
			seeds[id] = true
		}
	}
	note(f)
	for _, r := range members {
		note(r.Frame)
	}
	switch {
	case len(metrics) > cfg.MaxMetrics:
		return windows.ReasonMetrics
	case len(seeds) > cfg.MaxSeeds:
		return windows.ReasonSeeds
	case known:
		return windows.ReasonNone
	}
	return m.seal(t, start)
}

// seal decides whether a window may get another layer.
func (m *Model) seal(t *timeline, start int64) windows.Reason {
	if t.sealed[start] && m.Mutant != NoSeals {
		return windows.ReasonSealed
	}
	mine, all := 0, 0
	for _, u := range m.timelines {
		for _, q := range u.panes {
			all += len(q.layers)
			if u == t {
				mine += len(q.layers)
			}
		}
	}
	if all < m.cfg.MaxAccumulators && mine < m.cfg.MaxTimelineAccumulators {
		return windows.ReasonNone
	}
	t.sealed[start] = true
	m.Events.Sealed++
	if m.epoch(start) != m.epochs[len(m.epochs)-1] {
		m.Events.SealedEarlier++
	}
	return windows.ReasonSealed
}

// close emits what the watermarks of these timelines have passed, in the order of
// the windows' ends, runs, timelines and layers.
func (m *Model) close(timelines []*timeline, a *Account) {
	type closing struct {
		t          *timeline
		start, end int64
		layer      oona.LayerID
	}
	var all []closing
	for _, t := range timelines {
		for start, p := range t.panes {
			_, end, closes := m.window(start)
			if closes > t.watermark {
				continue
			}
			for layer := range p.layers {
				all = append(all, closing{t, start, end, layer})
			}
		}
	}
	slices.SortFunc(all, func(b, c closing) int {
		return cmp.Or(cmp.Compare(b.end, c.end), cmp.Compare(b.t.run, c.t.run), cmp.Compare(b.t.id, c.t.id), cmp.Compare(b.layer, c.layer))
	})
	for _, c := range all {
		if !m.suppresses(c.start) {
			health, performance := m.rollups(c.t, c.start, c.layer, a)
			a.Rollups = append(a.Rollups, health, performance)
		}
		a.index++
	}
	for _, c := range all {
		delete(c.t.panes, c.start)
	}
}

// OpenRecords returns the records that were folded into windows which are open and
// will be emitted.
func (m *Model) OpenRecords() (records []windows.Record) {
	for _, t := range m.timelines {
		for start, p := range t.panes {
			if m.suppresses(start) {
				continue // its records were late
			}
			for _, members := range p.layers {
				records = append(records, members...)
			}
		}
	}
	return records
}
