package whatif

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/bus"
	"github.com/morphogenetic/oona/replay"
	"github.com/morphogenetic/oona/schemas/avro"
	"github.com/morphogenetic/oona/windows"
)

// Settings say which windows are made. Config.Length is the length of a tumbling or hopping
// window. It is not used for sessions.
type Settings struct {
	Config windows.Config
	Kind   oona.WindowKind
	Hop    time.Duration // for Hopping
	Gap    time.Duration // for Session
}

// Validate returns a *oona.FieldError for the first field that is wrong.
func (s Settings) Validate() error {
	if err := s.Config.Validate(); err != nil {
		return err
	}
	wrong := func(field, reason string, args ...any) error {
		return &oona.FieldError{Field: field, Reason: fmt.Sprintf(reason, args...)}
	}
	switch s.Kind {
	case oona.Tumbling:
	case oona.Hopping:
		switch {
		case s.Hop < time.Microsecond || s.Hop%time.Microsecond != 0:
			return wrong("Hop", "is %s; give whole microseconds, at least one", s.Hop)
		case s.Config.Length%s.Hop != 0:
			return wrong("Hop", "is %s, and the length is %s; the length must be a multiple of the hop", s.Hop, s.Config.Length)
		case s.Config.Length/s.Hop > mostPanes:
			return wrong("Hop", "is %s, and the length is %s; each frame would be in %d windows, and %d are allowed", s.Hop, s.Config.Length, s.Config.Length/s.Hop, mostPanes)
		}
	case oona.Session:
		if s.Gap < time.Microsecond || s.Gap%time.Microsecond != 0 {
			return wrong("Gap", "is %s; give whole microseconds, at least one", s.Gap)
		}
	default:
		return wrong("Kind", "is %s", s.Kind)
	}
	if s.Kind != oona.Tumbling && s.Config.Reducer < 2 {
		return wrong("Reducer", "is %d; windows that do not tumble need at least 2", s.Config.Reducer)
	}
	return nil
}

// mostPanes is the maximum number of hopping windows that have the same frame.
const mostPanes = 10_000

// engine returns an engine for these windows.
func (s Settings) engine(catalogues windows.Catalogues) (engine, error) {
	if err := s.Validate(); err != nil {
		return nil, err
	}
	if s.Kind != oona.Tumbling {
		return NewEngine(s, catalogues)
	}
	return windows.New(s.Config, catalogues)
}

// firstRecords is the number of records that are read to find the first configuration of a log. Records
// that begin an incarnation may come before it.
const firstRecords = 16

// FirstWindows returns the configuration at the beginning of a partition's log, or false if
// the log begins without one.
func FirstWindows(ctx context.Context, log replay.Log, topic string, partition int32) (c windows.Configuration, found bool, err error) {
	err = log.Read(ctx, topic, bus.Range{Partition: partition, End: firstRecords}, func(msg *message.Message) error {
		kind := msg.Metadata.Get(oona.HeaderRecord)
		switch {
		case found || !oona.IsConfiguration(kind):
			return errFound
		case kind != oona.ConfigurationRecord:
			return nil
		}
		record, err := avro.DecodeConfiguration(msg.Payload)
		if err == nil {
			c, err = windows.ConfigurationOf(&record)
		}
		found = err == nil
		return err
	})
	if errors.Is(err, errFound) {
		err = nil
	}
	return c, found, err
}
