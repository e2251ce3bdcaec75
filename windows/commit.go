package windows

import (
	"cmp"
	"errors"
	"fmt"
	"slices"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/logtime"
)

// Commit is what a worker stores for a partition, so that the next worker can continue
// there: after Resume, the log is read again from Offset on.
type Commit struct {
	// Offset is the safe offset: no open window and no frontier of an active
	// producer needs a record below it.
	Offset int64
	// Metadata is the state that a replay from Offset cannot rebuild. It is ASCII text
	// of at most MaxMetadata bytes.
	Metadata string
}

// Reached says how far the log had been read when a commit was made.
type Reached struct {
	ProcessedTo int64            // offset after the last record that was read
	Incarnation oona.Incarnation // incarnation of the log at that offset
	// AppendedAt is the append time of the last record that was read. Known is
	// false if there was none, or if the commit does not include it.
	AppendedAt oona.Micros
	Known      bool
}

// Reached returns how far the log had been read. The error wraps ErrCommit.
func (c Commit) Reached() (Reached, error) {
	s, err := parseSnapshot(c)
	if err != nil {
		return Reached{}, fmt.Errorf("%w: at offset %d: %w", ErrCommit, c.Offset, err)
	}
	return Reached{s.processedTo, s.incarnation, s.lastAppendedAt, s.lastAppendedAt != unset}, nil
}

// MaxMetadata is the maximum length of a commit's metadata. Kafka allows 4,096 bytes
// (offset.metadata.max.bytes); the worker that commits may use the rest. Versions 1 and 2
// have a lower limit, because programs that only know these versions accept no more.
const (
	MaxMetadata        = 4016
	maxMetadataEarlier = 4000
)

// MostTimelines is the maximum number of timelines that can fit into a commit. So many fit
// only if their watermarks are almost equal. With more, an engine could never commit.
const MostTimelines = 256

// ErrMetadata is returned if a commit does not fit into MaxMetadata. The engine
// continues. The previous commit stays valid, but its replay takes longer.
var ErrMetadata = errors.New("commit metadata too long")

// ErrCommit is returned for a commit that Engine.Commit cannot have returned.
var ErrCommit = errors.New("not a commit of a window engine")

// Commit returns the engine's state as of ProcessedTo. A commit is valid as long as
// the log is kept, even after others have committed. Equal engines return equal
// commits. During a replay, Commit returns the commit that the engine was resumed
// from. The error wraps ErrMetadata.
func (e *Engine) Commit() (Commit, error) {
	if e.Replaying() {
		return e.resumed, nil
	}
	s := e.snapshot()
	text := s.text()
	if limit := s.limit(); len(text) > limit {
		return Commit{}, fmt.Errorf("%w: it takes %d bytes and %d are allowed; %s", ErrMetadata, len(text), limit, s.tooMuch())
	}
	return Commit{Offset: s.safe.Offset, Metadata: text}, nil
}

// Resume returns an engine that continues from a commit. Fold must be given all of
// the log's records from the commit's offset on. Those that had been processed at the
// commit are Replayed. From there on, outcomes and rollups are the same as those of the
// engine that made the commit. The caller must check that the log still has these
// records: an engine cannot distinguish a gap from offsets that were never used.
//
// The engine continues with the configurations of the commit. cfg is the configuration of the
// worker, as for New, and does not change them: see Config. The error wraps ErrCommit if the
// commit is not valid. Otherwise it is an error of catalogues, or of New if cfg is not valid.
func Resume(cfg Config, catalogues Catalogues, c Commit) (*Engine, error) {
	e, s, err := restore(cfg, catalogues, c)
	if err != nil {
		return nil, err
	}
	for _, c := range s.configEpochs { // find the last one that was made before the offset
		if c.record == unknown {
			e.cfg, e.spans = c.cfg, c.spans
		}
	}
	e.recovery = s.recovery
	e.resumed, e.resumedTo = c, s.processedTo
	e.processedTo, e.clock = s.safe.Offset, s.safe.Clock
	e.maxAppendedAt, e.timelines.floor = s.maxAppendedAt, s.floor
	for _, f := range s.timelines {
		t := newTimeline(f.hash, f.watermark)
		t.admitted, t.seals = f.admitted, f.seals
		e.timelines.unresolved[t.hash] = t
	}
	return e, nil
}

// restore returns an engine with the configurations and the incarnation of a commit, and the
// snapshot with the rest of the commit.
func restore(cfg Config, catalogues Catalogues, c Commit) (*Engine, *snapshot, error) {
	if err := cfg.Validate(); err != nil {
		return nil, nil, fmt.Errorf("window configuration: %w", err)
	}
	s, err := parseSnapshot(c)
	if err != nil {
		return nil, nil, fmt.Errorf("%w: at offset %d: %w", ErrCommit, c.Offset, err)
	}
	e, err := newEngine(s.configEpochs.last().cfg, catalogues)
	if err != nil {
		return nil, nil, fmt.Errorf("%w: at offset %d: %w", ErrCommit, c.Offset, err)
	}
	e.configEpochs, e.incarnation = s.configEpochs, s.incarnation
	return e, s, e.resolveCatalogues(e.configEpochs)
}

// Replaying reports whether the next record was processed before the commit that the
// engine was resumed from.
func (e *Engine) Replaying() bool { return e.processedTo < e.resumedTo }

// Config returns the configuration that was made last, by the log or by New.
func (e *Engine) Config() Config { return e.configEpochs.last().cfg }

// snapshot is the content of a commit.
type snapshot struct {
	configEpochs   configEpochs // the epochs that a replay needs, and later ones
	safe           logtime.ReplayPoint
	processedTo    int64
	incarnation    oona.Incarnation
	lastAppendedAt oona.Micros // unset if it is not known
	maxAppendedAt  oona.Micros
	floor          oona.Micros
	recovery       *recovery
	timelines      []frozen // ordered by hash
}

// frozen is the state of a timeline in a commit.
type frozen struct {
	hash      uint64
	watermark oona.Micros
	admitted  int64 // offset of its first record; unknown if that is below the safe offset
	seals     seals
}

func (s *snapshot) sealCount() int64 {
	n := int64(0)
	for i := range s.timelines {
		n += s.timelines[i].seals.windows()
	}
	return n
}

// tooMuch returns a text that says how much space each part of a commit needs, and what to do about the largest part.
func (s *snapshot) tooMuch() string {
	timelines, sealed := 0, 0
	for i := range s.timelines {
		t := &s.timelines[i]
		timelines += len(appendTimeline(nil, s, t))
		sealed += len(appendSeals(nil, s.configEpochs, t))
	}
	timelines -= sealed
	configured := len(appendConfigEpochs(nil, s))
	text := metadataCoding.EncodedLen
	advice := "lower max-timelines"
	switch max(timelines, sealed, configured) {
	case configured:
		advice = fmt.Sprintf("change the windows less often: a configuration expires when frames of its time are older than max-delay (%s)", s.configEpochs.last().cfg.MaxDelay)
	case sealed:
		advice = "raise max-accumulators and max-timeline-accumulators, or lower max-timelines"
	}
	return fmt.Sprintf("%d timelines take %d of them, %d seals %d and %d configurations %d: %s",
		len(s.timelines), text(timelines), s.sealCount(), text(sealed), len(s.configEpochs), text(configured), advice)
}

// snapshot shares the timelines' seals with the engine.
func (e *Engine) snapshot() *snapshot {
	s := &snapshot{
		safe: e.safe(), processedTo: e.processedTo, incarnation: e.incarnation, lastAppendedAt: e.lastAppendedAt,
		maxAppendedAt: e.maxAppendedAt, floor: e.timelines.floor,
	}
	if e.recovery != nil {
		lost := *e.recovery
		lost.end = max(lost.end, e.processedTo)
		s.recovery = &lost
	}
	for _, c := range e.configEpochs {
		if c.expired >= s.safe.Offset {
			frozen := *c
			if frozen.record < s.safe.Offset {
				frozen.record = unknown
			}
			s.configEpochs = append(s.configEpochs, &frozen)
		}
	}
	e.timelines.all(func(t *timeline) {
		f := frozen{t.hash, t.watermark, t.admitted, t.seals}
		if f.admitted < s.safe.Offset {
			f.admitted = unknown
		}
		s.timelines = append(s.timelines, f)
	})
	slices.SortFunc(s.timelines, func(a, b frozen) int { return cmp.Compare(a.hash, b.hash) })
	return s
}

// NeededSince returns the append time of the record before the safe offset. The
// records that a replay needs are not older, except where append times step back. It
// returns false if there is no such record.
func (e *Engine) NeededSince() (oona.Micros, bool) {
	c := e.safe().Clock
	return c.Previous, c.Started
}

// safe returns the last point of the log from which all open windows and active frontiers can be rebuilt.
func (e *Engine) safe() logtime.ReplayPoint {
	safe := e.idleBuckets.Earliest(e.bucket(), logtime.ReplayPoint{Offset: e.processedTo, Clock: e.clock})
	for _, t := range e.timelines.ordered {
		for _, w := range t.windows {
			if w.first.Offset < safe.Offset {
				safe = w.first
			}
		}
	}
	return safe
}
