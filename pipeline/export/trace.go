package export

import (
	"fmt"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/bus"
	"github.com/morphogenetic/oona/internal/tracing"
	"github.com/morphogenetic/oona/rollups"
)

// arrival is a record of a rollup topic that was read, and what became of it.
type arrival struct {
	group   oona.Group
	at      bus.Position
	began   time.Time
	context tracing.Context // trace context of the window; zero if the record has none
	rollup  *oona.Rollup    // nil if it cannot be decoded
	outcome rollups.Outcome
	err     error // error of decoding the rollup
}

// arrive begins to trace a record.
func (s *Stage) arrive(g oona.Group, msg *message.Message, at bus.Position) arrival {
	a := arrival{group: g, at: at}
	if s.cfg.Tracer != nil {
		a.began = time.Now()
		a.context, _ = tracing.Parse(msg.Metadata.Get(oona.HeaderTraceparent))
	}
	return a
}

// traced records the span of a record, and exemplars of its rollup. Repeats have no span.
func (s *Stage) traced(a *arrival) {
	if s.cfg.Tracer == nil {
		return
	}
	failed := ""
	switch {
	case a.err != nil:
		failed = a.err.Error()
	case a.outcome == rollups.Repeat:
		return
	case a.outcome != rollups.New:
		failed = fmt.Sprintf("the rollup was dropped: %s", a.outcome)
	case a.context.Sampled:
		s.store.exemplify(a.rollup, a.context.Trace, a.at.Appended, time.Now())
	}
	if !a.context.Sampled && failed == "" {
		return
	}
	own := a.context.Child()
	if !a.context.Valid() {
		own = tracing.NewTrace(false)
	}
	topic := s.cfg.Topics.Rollup(a.group)
	attributes := []tracing.Attribute{
		tracing.String("messaging.system", "kafka"),
		tracing.String("messaging.operation.name", "process"),
		tracing.String("messaging.operation.type", "process"),
		tracing.String("messaging.destination.name", topic),
		tracing.String("messaging.destination.partition.id", fmt.Sprint(a.at.Partition)),
		tracing.Int("messaging.kafka.offset", a.at.Offset),
	}
	if a.rollup != nil {
		attributes = append(attributes, tracing.Window(a.rollup)...)
	}
	s.cfg.Tracer.Record(tracing.Span{
		Name: "process " + topic, Kind: tracing.Consumer, Context: own, Parent: a.context.Span, Begin: a.began, End: time.Now(),
		Attributes: attributes, Error: failed,
	})
}
