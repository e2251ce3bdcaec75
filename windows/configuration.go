package windows

import (
	"errors"
	"fmt"
	"time"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/logtime"
)

// Configuration is the content of a configuration record: how windows are made
// from an instant of event time on.
//
// As the first record of a log it holds for all of it, whatever From is. Later
// it is void unless it is valid, has a higher generation than the one before,
// and From is further ahead of all append times so far than a frame may be: so
// that no frame beyond From was ever folded. From is rounded up to the end of a
// window of the configuration before, and the new windows begin there: none is
// cut. FrontierSlots stays as it is for a log's life.
//
// TickInterval, IdleHorizon, OutOfOrderness and the caps on timelines and
// accumulators hold from the record on; everything else is by the event time of
// frames and windows.
type Configuration struct {
	Config Config
	From   oona.Micros
}

// ErrReducer says that a log, or a commit, is to be folded with a version of the
// reducers that this program does not know: it would come to other rollups.
var ErrReducer = errors.New("unknown version of the reducers: upgrade this program")

func checkReducer(version int32) error {
	if version > Reducer {
		return fmt.Errorf("%w: version %d is wanted, and it knows up to %d", ErrReducer, version, Reducer)
	}
	return nil
}

// ErrWindowKind says that a log wants windows of a kind that this program does
// not make.
var ErrWindowKind = errors.New("unknown kind of windows: upgrade this program")

// ConfigurationOf returns what a record of the log says. The error wraps
// ErrReducer or ErrWindowKind where only a later version can fold by it, and
// else is that of the record's Validate, or of its Config's: a *oona.FieldError.
func ConfigurationOf(r *oona.WindowConfiguration) (Configuration, error) {
	if err := checkReducer(r.Reducer); err != nil {
		return Configuration{}, err
	}
	if r.Kind != oona.Tumbling || r.Hop != 0 || r.Gap != 0 {
		return Configuration{}, fmt.Errorf("%w: %s, with a hop of %d and a gap of %d microseconds", ErrWindowKind, r.Kind, r.Hop, r.Gap)
	}
	if err := r.Validate(); err != nil {
		return Configuration{}, err
	}
	duration := func(m oona.Micros) time.Duration { return time.Duration(m) * time.Microsecond }
	c := Configuration{From: r.From, Config: Config{
		Length:          duration(r.Length),
		OutOfOrderness:  duration(r.OutOfOrderness),
		AllowedLateness: duration(r.AllowedLateness),
		TickInterval:    duration(r.TickInterval),
		IdleHorizon:     duration(r.IdleHorizon),
		MaxSkew:         duration(r.MaxSkew),
		MaxDelay:        duration(r.MaxDelay),
		MaxTimelines:    int(r.MaxTimelines),

		MaxAccumulators:         int(r.MaxAccumulators),
		MaxTimelineAccumulators: int(r.MaxTimelineAccumulators),

		MaxLayers:     int(r.MaxLayers),
		MaxMetrics:    int(r.MaxMetrics),
		MaxSeeds:      int(r.MaxSeeds),
		FrontierSlots: int(r.FrontierSlots),
		WorstSeeds:    int(r.WorstSeeds),

		Generation: r.Generation,
		Reducer:    r.Reducer,
		Catalogue:  r.Catalogue,
	}}
	return c, c.Config.Validate()
}

// Record returns the record of the log that says what c does, of which Config
// has passed Validate.
func (c Configuration) Record() oona.WindowConfiguration {
	s := spansOf(c.Config)
	return oona.WindowConfiguration{
		Generation: c.Config.Generation, From: c.From,
		Length: s.length, OutOfOrderness: s.outOfOrderness, AllowedLateness: s.lateness, TickInterval: s.tick,
		IdleHorizon: oona.Micros(c.Config.IdleHorizon.Microseconds()), MaxSkew: s.maxSkew, MaxDelay: s.maxDelay,
		MaxTimelines: int32(c.Config.MaxTimelines), MaxAccumulators: int32(c.Config.MaxAccumulators),
		MaxTimelineAccumulators: int32(c.Config.MaxTimelineAccumulators), MaxLayers: int32(c.Config.MaxLayers),
		MaxMetrics: int32(c.Config.MaxMetrics), MaxSeeds: int32(c.Config.MaxSeeds),
		FrontierSlots: int32(c.Config.FrontierSlots), WorstSeeds: int32(c.Config.WorstSeeds),
		Reducer: c.Config.Reducer, Catalogue: c.Config.Catalogue,
	}
}

// era is a stretch of event time with one configuration. It ends where the next
// begins, at a seam between windows.
type configEpoch struct {
	cfg       Config
	spans     spans
	from      oona.Micros // unset: since ever
	catalogue Catalogue

	record  int64 // offset of the configuration record; unknown: none, or below the safe offset
	expired int64 // offset from which on it is out of reach; never: it is not
}

// never is an offset after all others.
const never int64 = 1<<63 - 1

func newConfigEpoch(cfg Config, from oona.Micros, record int64) *configEpoch {
	return &configEpoch{cfg: cfg, spans: spansOf(cfg), from: from, record: record, expired: never}
}

// anchor is where a window of the era starts, as others do at multiples of the
// length from there.
func (a *configEpoch) anchor() oona.Micros {
	if a.from == unset {
		return 0
	}
	return a.from
}

// window returns the window that holds at.
func (a *configEpoch) window(at oona.Micros) (start, end oona.Micros) {
	start = windowStart(at, a.anchor(), a.spans.length)
	return start, later(start, a.spans.length)
}

// closes is the watermark that closes a window which ends at end.
func (a *configEpoch) closes(end oona.Micros) oona.Micros { return later(end, a.spans.lateness) }

// firstOpen is the start of the first window that a watermark has not closed.
func (a *configEpoch) firstOpen(watermark oona.Micros) oona.Micros {
	return windowStart(earlier(watermark, a.spans.lateness), a.anchor(), a.spans.length)
}

// seam returns the first end of a window that is not before at.
func (a *configEpoch) seam(at oona.Micros) oona.Micros {
	start, end := a.window(at)
	if start == at {
		return at
	}
	return end
}

// eras of a log, in its order, and so by their beginning.
type configEpochs []*configEpoch

// last is the configuration that was made last.
func (l configEpochs) last() *configEpoch { return l[len(l)-1] }

// find returns the era of event time at for the record at offset; nil if it is
// out of reach.
func (l configEpochs) find(at oona.Micros, offset int64) *configEpoch {
	for i := len(l) - 1; i >= 0; i-- {
		if a := l[i]; a.from <= at && a.record <= offset {
			if offset >= a.expired {
				return nil
			}
			return a
		}
	}
	return nil
}

// configure takes a configuration record, and says whether it holds.
func (e *Engine) configure(r *Record) Outcome {
	next, last := r.Configuration, e.configEpochs.last()
	first := e.recovery == nil && !e.here.Clock.Started // see opensLog: time has begun by now
	if err := e.refuse(next, first, e.maxAppendedAt); err != nil {
		return Outcome{Passed, ReasonVoid, "the configuration is void: " + err.Error()}
	}
	if first {
		e.configEpochs = configEpochs{e.makeConfigEpoch(next.Config, unset, unknown)}
		e.applyConfig(e.configEpochs.last())
		return Outcome{Passed, ReasonConfigured, fmt.Sprintf("generation %d holds from the beginning of the log", next.Config.Generation)}
	}
	from := last.seam(next.From)
	e.configEpochs = append(e.configEpochs, e.makeConfigEpoch(next.Config, from, r.Offset))
	e.applyConfig(e.configEpochs.last())
	return Outcome{Passed, ReasonConfigured, fmt.Sprintf("generation %d holds from %s", next.Config.Generation, timestamp(from))}
}

// made returns the era of a configuration that holds. Its catalogue must be one
// that Prepare has found.
func (e *Engine) makeConfigEpoch(cfg Config, from oona.Micros, record int64) *configEpoch {
	a := newConfigEpoch(cfg, from, record)
	if err := e.resolveCatalogues(configEpochs{a}); err != nil {
		panic("windows: a configuration was folded that Prepare refused: " + err.Error())
	}
	return a
}

// Prepare is called before a record with a configuration is folded. It returns
// the error of Catalogues where the engine cannot have the catalogue that the
// configuration names; then the record must not be folded.
func (e *Engine) Prepare(c *Configuration) error {
	_, err := e.findCatalogue(c.Config.Catalogue)
	return err
}

// Configurations returns those that are in reach, the earliest first, the last of
// which is Config. From is where its windows begin; 0: at the beginning of time.
func (e *Engine) Configurations() (all []Configuration) {
	for _, a := range e.configEpochs {
		if a.expired == never {
			all = append(all, Configuration{a.cfg, a.anchor()})
		}
	}
	return all
}

// Refuses says why a configuration record would be void if it were the next
// record of the log, appended at appendedAt; nil where it would hold.
func (e *Engine) Refuses(c Configuration, appendedAt oona.Micros) error {
	return e.refuse(&c, e.opensLog(), max(e.maxAppendedAt, appendedAt))
}

// refuse says why a configuration does not hold. Stamp is the greatest append
// time, of its own record too.
func (e *Engine) refuse(next *Configuration, first bool, stamp oona.Micros) error {
	if err := next.Config.Validate(); err != nil || first {
		return err
	}
	last := e.configEpochs.last()
	ahead := later(stamp, last.spans.maxSkew)
	switch {
	case next.Config.Generation <= last.cfg.Generation:
		return fmt.Errorf("its generation is %d, and %d was made before", next.Config.Generation, last.cfg.Generation)
	case next.Config.FrontierSlots != last.cfg.FrontierSlots:
		return &oona.FieldError{Field: "FrontierSlots", Reason: fmt.Sprintf("is %d, and a log's is for good what it began with, here %d: frontiers are known by their slots alone. To change it, begin new topics", next.Config.FrontierSlots, last.cfg.FrontierSlots)}
	case next.From <= ahead:
		return fmt.Errorf("it holds from %s, and frames up to %s may have been folded", timestamp(next.From), timestamp(ahead))
	case next.From <= last.from:
		return fmt.Errorf("it holds from %s, and generation %d from %s", timestamp(next.From), last.cfg.Generation, timestamp(last.from))
	}
	return nil
}

// enter has the engine go by an era from the record at hand on, where it goes by
// the log and not by event time. A replay enters an era at the same record, with
// the same clock, and so comes to the same buckets.
func (e *Engine) applyConfig(a *configEpoch) {
	before := e.spans.bucket
	e.cfg, e.spans = a.cfg, a.spans
	if e.spans.bucket == before {
		return
	}
	change := logtime.Rescaling{From: before, To: e.spans.bucket, Now: e.clock.Now}
	e.idleBuckets.Rescale(change)
	for _, t := range e.timelines.ordered {
		t.frontier.Rescale(change)
	}
}

// memory is how far behind the log a quiet timeline's watermark may be before it
// is forgotten, and an era before it is out of reach.
func (e *Engine) retention() oona.Micros {
	longest := oona.Micros(0)
	for _, a := range e.configEpochs {
		if a.expired != never {
			continue
		}
		longest = max(longest, later(a.spans.maxDelay, a.spans.maxSkew))
	}
	return longest
}

// retire puts eras out of reach that no frame comes into any more, the earliest
// first, and forgets those that no replay comes by. The last one stays.
func (e *Engine) expire(offset int64) {
	for i := 0; i < len(e.configEpochs)-1; i++ {
		a := e.configEpochs[i]
		if a.expired != never {
			continue
		}
		if e.configEpochs[i+1].from >= earlier(e.maxAppendedAt, e.retention()) || e.hasOpenWindow(a) {
			break // and what comes after it stays too
		}
		a.expired = offset
		e.timelines.all(func(t *timeline) { t.seals.dropConfigEpoch(a) })
	}
	for len(e.configEpochs) > 1 && e.configEpochs[0].expired < e.safe().Offset {
		e.configEpochs = e.configEpochs[1:]
	}
}

// opensIn reports whether a window of an era is open.
func (e *Engine) hasOpenWindow(a *configEpoch) bool {
	for _, t := range e.timelines.ordered {
		for _, w := range t.windows {
			if w.configEpoch == a {
				return true
			}
		}
	}
	return false
}
