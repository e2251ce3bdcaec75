package ingest

import (
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/alecthomas/units"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/forward"
	"github.com/morphogenetic/oona/internal/size"
	"github.com/morphogenetic/oona/schemas/avro"
	"github.com/morphogenetic/oona/spool"
	"github.com/morphogenetic/oona/windows"
)

// Spool configures the spool, which keeps frames on the local disk while the bus is unavailable.
type Spool struct {
	Directory string           `placeholder:"DIR" help:"Directory of the spool, which keeps frames on the local disk while the bus is unavailable. Its disk must survive the process, and no other ingest may use the directory. Default: there is no spool, and requests are answered with 503 while the bus is unavailable."`
	Bytes     units.Base2Bytes `placeholder:"SIZE" help:"Maximum size of the spool's files, including those in quarantine, at least 16MiB. When it is reached, requests are answered with 503 while the bus is unavailable."`
	Headroom  units.Base2Bytes `placeholder:"SIZE" help:"Space that the spool leaves free in its file system."`
	After     time.Duration    `help:"How long a request waits for the bus before its frames are written to the spool."`
	Rate      units.Base2Bytes `placeholder:"SIZE" help:"Maximum rate in bytes per second at which the spool is sent when the bus is back, at least 1KiB. The limit keeps the spool from delaying new frames."`

	Open  *spool.Queues `kong:"-"` // nil if there is no spool
	Drain time.Duration `kong:"-"` // for how long the spool is sent after the signal to stop, while the bus accepts it
}

func defaultSpool() Spool {
	return Spool{Bytes: units.Base2Bytes(1 << 30), Headroom: units.Base2Bytes(64 << 20), After: 2 * time.Second, Rate: units.Base2Bytes(16 << 20)}
}

// Limits of the size of the spool's files. A file is deleted when all of it has been sent. So each
// file is only a small part of the spool: then a full spool accepts requests again soon after the
// bus is back. Files are not smaller than this because each new file costs three syncs.
const (
	segmentsOfSpool = 64
	leastSegment    = 1 << 20
	mostSegment     = 64 << 20
	leastSpool      = 16 * leastSegment
)

func (s Spool) segmentBytes() int64 {
	return min(max(int64(s.Bytes)/segmentsOfSpool, leastSegment), mostSegment)
}

func (s Spool) validate() error {
	for _, limit := range []struct {
		name  string
		value int64
		least int64
	}{
		{"bytes", int64(s.Bytes), leastSpool},
		{"headroom", int64(s.Headroom), 0},
		{"rate", int64(s.Rate), 1 << 10},
	} {
		if limit.value < limit.least {
			return &oona.FieldError{Field: "--spool-" + limit.name, Reason: fmt.Sprintf("is %s; give at least %s", size.Text(limit.value), size.Text(limit.least))}
		}
	}
	if s.After <= 0 || s.After > mostTime {
		return &oona.FieldError{Field: "--spool-after", Reason: fmt.Sprintf("is %s; give a time above 0 and at most %s", s.After, mostTime)}
	}
	return nil
}

// OpenSpool opens the spool, or returns nil if none is configured. The error wraps
// spool.ErrLocked if another process uses it.
func (c Config) OpenSpool(logger *slog.Logger) (*spool.Queues, error) {
	if c.Spool.Directory == "" {
		return nil, nil
	}
	s, err := spool.OpenQueues(c.Spool.Directory, c.SpoolOptions(logger))
	if errors.Is(err, spool.ErrLocked) {
		return nil, fmt.Errorf("--spool-directory: %w; each ingest needs a directory of its own", err)
	}
	if err != nil {
		return nil, fmt.Errorf("--spool-directory: %w", err)
	}
	if limit := s.Limit(); limit < int64(c.Spool.Bytes)/2 {
		logger.Warn("the file system of --spool-directory has much less room than --spool-bytes and --spool-headroom together, so the spool will be full early",
			"bytes", int64(c.Spool.Bytes), "limit", limit)
	}
	return s, nil
}

// SpoolOptions returns the options of the spool. A record has the messages of a request for one
// topic.
func (c Config) SpoolOptions(logger *slog.Logger) spool.Options {
	return spool.Options{
		MaxBytes: int64(c.Spool.Bytes), SegmentBytes: c.Spool.segmentBytes(), Headroom: int64(c.Spool.Headroom),
		RecordBytes: int(2*c.MaxDecompressedBytes) + c.MaxFrames*recordOverhead,
		Keys:        forward.Keys, Logger: logger,
	}
}

func (s *Stage) forwarding(logger *slog.Logger) forward.Config {
	return forward.Config{
		Publish: s.publishTo, Permanent: permanent, Refused: neverTaken, OfTopic: ofEventTopic, Lapsed: s.judge.lapsed,
		After: s.cfg.Spool.After, Timeout: s.cfg.PublishTimeout, BytesPerSecond: int64(s.cfg.Spool.Rate), Logger: logger,
	}
}

// lapsed returns how many frames of each run will be put aside because they have become too old in
// the spool. The answers to their senders could not say so, because they were recent enough then.
func (j *judge) lapsed(spooled oona.Micros, messages []*message.Message) (by map[oona.RunID]int) {
	limits := j.limits.Load()
	if !limits.Known() {
		return nil
	}
	decoder, ok := j.decoders.Get().(*avro.FrameDecoder)
	if !ok {
		decoder = new(avro.FrameDecoder)
	}
	defer j.decoders.Put(decoder)
	var f oona.Frame
	for _, m := range messages {
		if avro.IsEvent(m.Payload) {
			continue
		}
		if _, err := decoder.Decode(m.Payload, &f); err != nil {
			continue // the aggregator will make a dead letter of the message
		}
		if why, _ := j.among(limits, &f, oona.MicrosOf(time.Now())); why != windows.ReasonStale {
			continue
		}
		if why, _ := j.among(limits, &f, spooled); why != windows.ReasonStale {
			if by == nil {
				by = make(map[oona.RunID]int)
			}
			by[f.Run]++
		}
	}
	return by
}
