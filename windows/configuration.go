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
// A configuration that is the first record of a log applies to the whole log, whatever its
// From is. A later one must meet three conditions; otherwise it is void and has no effect: it
// is valid; its generation is higher than the last one; and From is later than all append times
// so far by more than MaxSkew, so that no frame at or after From can have been folded. From is
// rounded up to the end of a window of the last configuration. The new windows begin there, so
// no window is cut. FrontierSlots cannot change during the life of a log.
//
// TickInterval, IdleHorizon, OutOfOrderness and the limits on timelines and accumulators apply
// from the record on. For everything else, the event time of a frame or a window determines its
// configuration.
type Configuration struct {
	Config Config
	From   oona.Micros
}

// ErrReducer is returned for a log or a commit that needs a version of the reducers
// which this program does not know. It would compute other rollups.
var ErrReducer = errors.New("unknown version of the reducers: upgrade this program")

func checkReducer(version int32) error {
	if version > Reducer {
		return fmt.Errorf("%w: version %d is needed, and this program knows versions up to %d", ErrReducer, version, Reducer)
	}
	return nil
}

// ErrWindowKind is returned for a log that has windows of a kind which this program
// does not know.
var ErrWindowKind = errors.New("unknown kind of windows: upgrade this program")

// ConfigurationOf converts a record of the log. The error wraps ErrReducer or
// ErrWindowKind if the record needs a later version of this program. Otherwise it is
// the *oona.FieldError of the record's Validate, or of its Config's.
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
	c := Configuration{From: r.From, Config: Config{Generation: r.Generation, Reducer: r.Reducer, Catalogue: r.Catalogue}}
	durations, numbers := recordDurations(r), recordNumbers(r)
	for i, d := range configDurations(&c.Config) {
		*d = time.Duration(*durations[i]) * time.Microsecond
	}
	for i, n := range configNumbers(&c.Config) {
		*n = int(*numbers[i])
	}
	return c, c.Config.Validate()
}

// Record converts c to a record of the log. c.Config must have passed Validate.
func (c Configuration) Record() oona.WindowConfiguration {
	r := oona.WindowConfiguration{Generation: c.Config.Generation, From: c.From, Reducer: c.Config.Reducer, Catalogue: c.Config.Catalogue}
	durations, numbers := configDurations(&c.Config), configNumbers(&c.Config)
	for i, d := range recordDurations(&r) {
		*d = oona.Micros(durations[i].Microseconds())
	}
	for i, n := range recordNumbers(&r) {
		*n = int32(*numbers[i])
	}
	return r
}

// recordDurations returns a record's fields in the order of configDurations, and
// recordNumbers in the order of configNumbers.
func recordDurations(r *oona.WindowConfiguration) [configDurationCount]*oona.Micros {
	return [...]*oona.Micros{&r.Length, &r.OutOfOrderness, &r.AllowedLateness, &r.TickInterval, &r.IdleHorizon, &r.MaxSkew, &r.MaxDelay}
}

func recordNumbers(r *oona.WindowConfiguration) [8]*int32 {
	return [...]*int32{&r.MaxTimelines, &r.MaxAccumulators, &r.MaxTimelineAccumulators, &r.MaxLayers, &r.MaxMetrics, &r.MaxSeeds, &r.FrontierSlots, &r.WorstSeeds}
}

// configEpoch is an interval of event time with one configuration. It ends where the
// next one begins, at the end of a window.
type configEpoch struct {
	cfg       Config
	spans     spans
	from      oona.Micros // unset for the beginning of time
	catalogue Catalogue

	record  int64 // offset of the configuration record; unknown if no record made it, or if the record is below the safe offset
	expired int64 // offset of the record at which it expired: later frames of its time are stale; never if it has not
}

// never is an offset after all others.
const never int64 = 1<<63 - 1

func newConfigEpoch(cfg Config, from oona.Micros, record int64) *configEpoch {
	return &configEpoch{cfg: cfg, spans: spansOf(cfg), from: from, record: record, expired: never}
}

// anchor returns an instant at which a window of the epoch starts. The distances of all other
// starts from it are multiples of the window length.
func (c *configEpoch) anchor() oona.Micros {
	if c.from == unset {
		return 0
	}
	return c.from
}

// window returns the window that contains at.
func (c *configEpoch) window(at oona.Micros) (start, end oona.Micros) {
	start = windowStart(at, c.anchor(), c.spans.length)
	return start, later(start, c.spans.length)
}

// closesAt returns the watermark at which a window that ends at end closes.
func (c *configEpoch) closesAt(end oona.Micros) oona.Micros { return later(end, c.spans.lateness) }

// firstOpen returns the start of the first window that a watermark has not closed.
func (c *configEpoch) firstOpen(watermark oona.Micros) oona.Micros {
	return windowStart(earlier(watermark, c.spans.lateness), c.anchor(), c.spans.length)
}

// nextEnd returns the first end of a window that is not before at.
func (c *configEpoch) nextEnd(at oona.Micros) oona.Micros {
	start, end := c.window(at)
	if start == at {
		return at
	}
	return end
}

// configEpochs are the epochs of a log, in the order of the log and of event time.
type configEpochs []*configEpoch

// last returns the epoch whose configuration was made last.
func (l configEpochs) last() *configEpoch { return l[len(l)-1] }

// find returns the epoch of an event time for the record at offset, or nil if the epoch has
// expired.
func (l configEpochs) find(at oona.Micros, offset int64) *configEpoch {
	for i := len(l) - 1; i >= 0; i-- {
		if c := l[i]; c.from <= at && c.record <= offset {
			if offset >= c.expired {
				return nil
			}
			return c
		}
	}
	return nil
}

// configure handles a configuration record. The outcome says whether it is in effect or void.
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
	from := last.nextEnd(next.From)
	e.configEpochs = append(e.configEpochs, e.makeConfigEpoch(next.Config, from, r.Offset))
	e.applyConfig(e.configEpochs.last())
	return Outcome{Passed, ReasonConfigured, fmt.Sprintf("generation %d holds from %s", next.Config.Generation, timestamp(from))}
}

// makeConfigEpoch returns the epoch of a configuration that is not void. Prepare must have
// found its catalogue.
func (e *Engine) makeConfigEpoch(cfg Config, from oona.Micros, record int64) *configEpoch {
	c := newConfigEpoch(cfg, from, record)
	if err := e.resolveCatalogues(configEpochs{c}); err != nil {
		panic("windows: a configuration was folded that Prepare refused: " + err.Error())
	}
	return c
}

// Prepare must be called before a record with a configuration is folded. It returns
// the error of Catalogues if there is no catalogue as the configuration names it;
// then the record must not be folded.
func (e *Engine) Prepare(c *Configuration) error {
	_, err := e.findCatalogue(c.Config.Catalogue)
	return err
}

// Configurations returns the configurations that may still apply to frames, the earliest first.
// The last one is the result of Config. From is the start of the first window of the
// configuration, or 0 if that is the beginning of time.
func (e *Engine) Configurations() (all []Configuration) {
	for _, c := range e.configEpochs {
		if c.expired == never {
			all = append(all, Configuration{c.cfg, c.anchor()})
		}
	}
	return all
}

// Refuses returns the reason why a configuration record would be void if it were the next record
// of the log, appended at appendedAt. It returns nil if the record would be in effect.
func (e *Engine) Refuses(c Configuration, appendedAt oona.Micros) error {
	return e.refuse(&c, e.opensLog(), max(e.maxAppendedAt, appendedAt))
}

// refuse returns the reason why a configuration is void, or nil. The greatest append time includes
// that of its own record.
func (e *Engine) refuse(next *Configuration, first bool, maxAppendedAt oona.Micros) error {
	if err := next.Config.Validate(); err != nil || first {
		return err
	}
	last := e.configEpochs.last()
	ahead := later(maxAppendedAt, last.spans.maxSkew)
	switch {
	case next.Config.Generation <= last.cfg.Generation:
		return fmt.Errorf("its generation is %d, and %d was made before", next.Config.Generation, last.cfg.Generation)
	case next.Config.FrontierSlots != last.cfg.FrontierSlots:
		return &oona.FieldError{Field: "FrontierSlots", Reason: fmt.Sprintf("is %d, and the log began with %d, which cannot change: a frontier cannot be moved to other slots. To change the number, make new topics", next.Config.FrontierSlots, last.cfg.FrontierSlots)}
	case next.From <= ahead:
		return fmt.Errorf("it holds from %s, and frames up to %s may have been folded", timestamp(next.From), timestamp(ahead))
	case next.From <= last.from:
		return fmt.Errorf("it holds from %s, and generation %d from %s", timestamp(next.From), last.cfg.Generation, timestamp(last.from))
	}
	return nil
}

// applyConfig applies those settings of a configuration that are in effect from the current record
// on, whatever the event time. A replay does this at the same record and with the same clock, so
// it computes the same buckets.
func (e *Engine) applyConfig(c *configEpoch) {
	before := e.spans.bucket
	e.cfg, e.spans = c.cfg, c.spans
	if e.spans.bucket == before {
		return
	}
	change := logtime.Rescaling{From: before, To: e.spans.bucket, Now: e.clock.Now}
	e.idleBuckets.Rescale(change)
	for _, t := range e.timelines.ordered {
		t.frontier.Rescale(change)
	}
}

// retention returns how far behind the greatest append time a quiet timeline's
// watermark may be before the timeline is forgotten, and the end of a configuration
// epoch before the epoch expires.
func (e *Engine) retention() oona.Micros {
	longest := oona.Micros(0)
	for _, c := range e.configEpochs {
		if c.expired != never {
			continue
		}
		longest = max(longest, later(c.spans.maxDelay, c.spans.maxSkew))
	}
	return longest
}

// expire ends the epochs to which no frame can belong any more, the earliest first, and removes
// those that no replay needs. The last one stays.
func (e *Engine) expire(offset int64) {
	for i := 0; i < len(e.configEpochs)-1; i++ {
		c := e.configEpochs[i]
		if c.expired != never {
			continue
		}
		if e.configEpochs[i+1].from >= earlier(e.maxAppendedAt, e.retention()) || e.hasOpenWindow(c) {
			break // and those after it stay too
		}
		c.expired = offset
		e.timelines.all(func(t *timeline) { t.seals.dropConfigEpoch(c) })
	}
	for len(e.configEpochs) > 1 && e.configEpochs[0].expired < e.safe().Offset {
		e.configEpochs = e.configEpochs[1:]
	}
}

// hasOpenWindow reports whether a window of a configuration epoch is open.
func (e *Engine) hasOpenWindow(c *configEpoch) bool {
	for _, t := range e.timelines.ordered {
		for _, w := range t.windows {
			if w.configEpoch == c {
				return true
			}
		}
	}
	return false
}
