package whatif

import (
	"context"
	"errors"
	"fmt"
	"hash/crc32"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/bus"
	"github.com/morphogenetic/oona/logtime"
	"github.com/morphogenetic/oona/pipeline/aggregate"
	"github.com/morphogenetic/oona/replay"
	"github.com/morphogenetic/oona/schemas/avro"
	"github.com/morphogenetic/oona/windows"
)

// Fold folds ranges of a topic of frames.
type Fold struct {
	Log        replay.Log
	Topic      string
	Limits     oona.FrameLimits
	Settings   Settings
	Catalogues windows.Catalogues
	// Incarnation is the incarnation of the partition's log. It is used if the range does not
	// begin at the beginning of the log.
	Incarnation oona.Incarnation
	// Partial makes Fold emit all windows that have frames of the range. Without it, windows that
	// may lack frames are left out: windows that start before the range, and windows that are open
	// at its end.
	Partial bool
	// Emit is called with each rollup, in the order of the partition. The rollup is valid
	// until Emit returns.
	Emit func(partition int32, r *oona.Rollup) error
}

// Result has counts of the records and rollups of a range.
type Result struct {
	Partition int32 `json:"partition"`
	// Verdicts has the number of frames with each verdict.
	Verdicts [windows.VerdictCount]int64 `json:"-"`
	// Undecoded is the number of records that have no valid frame.
	Undecoded int64 `json:"undecoded"`
	// Configurations is the number of configuration records. They are ignored.
	Configurations int64 `json:"configurations_ignored"`
	Rollups        int64 `json:"rollups"`
	// Before is the number of rollups that were left out because their windows begin before the
	// range.
	Before int64 `json:"rollups_before"`
	// Open is the number of windows that were left out because they are open at the end of the range.
	Open int `json:"windows_open"`
}

// engine makes rollups of records.
type engine interface {
	Fold(r windows.Record, emit func(*oona.Rollup)) windows.Outcome
	OpenWindows() int
}

// Partition folds a range of a partition. It also reads records before the range: as many as the
// watermark at the beginning of the range may depend on. held is the extent of the partition.
func (f *Fold) Partition(ctx context.Context, r bus.Range, held bus.Extent) (*Result, error) {
	e, err := f.Settings.engine(f.Catalogues)
	if err != nil {
		return nil, err
	}
	p := &folding{Fold: f, engine: e, out: &Result{Partition: r.Partition}, from: beginning}
	start := r.From
	if r.From > 0 && !f.Partial {
		if start, err = f.leadIn(ctx, r, held); err != nil {
			return nil, err
		}
		p.begins = r.From
	}
	if err := replay.ReadAhead(ctx, f.Log, f.Topic, bus.Range{Partition: r.Partition, From: start, End: r.End}, p.take); err != nil {
		return nil, err
	}
	if f.Partial {
		p.close(r.End)
	}
	p.out.Open = e.OpenWindows()
	return p.out, p.failed
}

// leadIn returns the offset of the first record that the windows of a range need.
func (f *Fold) leadIn(ctx context.Context, r bus.Range, held bus.Extent) (int64, error) {
	var first oona.Micros
	err := f.Log.Read(ctx, f.Topic, r, func(msg *message.Message) error {
		at, err := bus.PositionOf(msg)
		if err != nil {
			return err
		}
		first = at.Appended
		return errFound
	})
	switch {
	case err == nil: // the range is empty
		return r.From, nil
	case !errors.Is(err, errFound):
		return 0, err
	}
	c := f.Settings.Config
	lead := c.MaxSkew + c.OutOfOrderness + (logtime.BucketsPerHorizon+1)*c.IdleHorizon/logtime.BucketsPerHorizon
	start, err := replay.OffsetAt(ctx, f.Log, f.Topic, r.Partition, held, first-oona.Micros(lead.Microseconds()))
	return min(start, r.From), err
}

// errFound ends a read.
var errFound = errors.New("found")

// beginning is an event time before all others.
const beginning oona.Micros = -1 << 63

// folding is the folding of a range.
type folding struct {
	*Fold
	engine  engine
	out     *Result
	decoder avro.FrameDecoder
	frame   oona.Frame

	begins int64       // offset of the first record of the range; 0 if no window has to be left out at the beginning
	from   oona.Micros // windows that start earlier may lack frames
	begun  bool
	last   oona.Micros // append time of the last record
	failed error       // error of Emit
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// take folds a record.
func (p *folding) take(msg *message.Message) error {
	at, err := bus.PositionOf(msg)
	if err != nil {
		return err
	}
	if !p.begun && at.Offset > 0 && p.Incarnation != 0 {
		start := &oona.IncarnationStart{Number: p.Incarnation, PreviousEnd: bus.NoOffset, WrittenAt: at.Appended}
		p.engine.Fold(windows.Record{Offset: at.Offset - 1, AppendedAt: at.Appended, Incarnation: start}, p.emit)
	}
	p.begun = true
	if p.begins > 0 && p.from == beginning && at.Offset >= p.begins {
		p.from = at.Appended
	}
	record := windows.Record{Offset: at.Offset, AppendedAt: at.Appended, Path: msg.Metadata.Get(oona.HeaderPath)}
	switch kind := msg.Metadata.Get(oona.HeaderRecord); {
	case kind == "":
		p.decode(msg.Payload, &record)
	case kind == oona.IncarnationRecord:
		start, err := aggregate.DecodeIncarnation(msg.Payload)
		if err == nil {
			record.Incarnation = &start
		}
	case oona.IsConfiguration(kind):
		p.out.Configurations++
	}
	p.last = at.Appended
	outcome := p.engine.Fold(record, p.emit)
	if record.Frame != nil && at.Offset >= p.begins {
		p.out.Verdicts[outcome.Verdict]++
	}
	return p.failed
}

// decode sets the frame and the checksum of a record that has a valid frame.
func (p *folding) decode(payload []byte, record *windows.Record) {
	rest, err := p.decoder.Decode(payload, &p.frame)
	if err == nil && len(rest) == 0 && p.frame.Validate(p.Limits) == nil {
		if body, err := avro.Body(payload); err == nil {
			record.Frame = &p.frame
			record.Checksum = uint64(crc32.Checksum(body, castagnoli))<<32 | uint64(uint32(len(body)))
			return
		}
	}
	p.out.Undecoded++
}

// emit counts a rollup and emits it, unless its window may lack frames.
func (p *folding) emit(r *oona.Rollup) {
	if p.begins > 0 && (p.from == beginning || r.Start < p.from) {
		p.out.Before++
		return
	}
	p.out.Rollups++
	if p.failed == nil && p.Emit != nil {
		p.failed = p.Emit(p.out.Partition, r)
	}
}

// close advances the log clock until all producers are idle, so that all windows close.
func (p *folding) close(end int64) {
	c := p.Settings.Config
	step := 2 * oona.Micros(c.TickInterval.Microseconds())
	horizon := 2 * oona.Micros(c.IdleHorizon.Microseconds())
	for passed := oona.Micros(0); passed <= horizon+step && p.engine.OpenWindows() > 0 && p.failed == nil; passed += step {
		p.last += step
		p.engine.Fold(windows.Record{Offset: end, AppendedAt: p.last}, p.emit)
		end++
	}
}

// String returns the most important counts as text.
func (r *Result) String() string {
	return fmt.Sprintf("partition %d: %d frames folded, %d rollups", r.Partition, r.Verdicts[windows.Folded], r.Rollups)
}
