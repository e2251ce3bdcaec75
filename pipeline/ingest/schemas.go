package ingest

import (
	"context"
	"errors"
	"time"

	"github.com/morphogenetic/oona/intake"
	"github.com/morphogenetic/oona/schemas/avro"
	"github.com/morphogenetic/oona/schemas/registry"
)

// registryRetry is how long a client should wait before it sends a request again if the registry
// did not answer.
const registryRetry = 5 * time.Second

// schemas returns a function that finds the schemas of a body, or nil if there is no registry.
// The function waits for the registry as long as ctx and the limits of package registry allow.
// If room is not nil, its capacity limits how many calls wait at the same time, so that other
// requests are served in the meantime.
func (s *sink) schemas(ctx context.Context, room chan struct{}) func(avro.SchemaID) (*avro.FrameSchema, *intake.Refusal) {
	if s.cfg.Registry == nil {
		return nil
	}
	return func(id avro.SchemaID) (*avro.FrameSchema, *intake.Refusal) {
		schema, known, err := s.cfg.Registry.Known(id)
		if !known && room != nil {
			select {
			case room <- struct{}{}:
				defer func() { <-room }()
			default:
				return nil, intake.Refuse(reasonRegistry, "%d requests are waiting for the schema registry, which is the maximum; this request was refused as a whole; send it again later", cap(room)).After(time.Second)
			}
		}
		if !known {
			schema, err = s.cfg.Registry.Frame(ctx, id)
		}
		switch {
		case err == nil:
			return schema, nil
		case errors.Is(err, registry.ErrUnknownID), errors.Is(err, avro.ErrUnreadable):
			return nil, intake.Refuse(reasonSchema, "%v", err)
		}
		return nil, intake.Refuse(reasonRegistry, "%v", err).After(registryRetry)
	}
}

// schemasFor is schemas for a body that is being decoded. While it waits for the registry, the
// body of another request may be.
func (s *Stage) schemasFor(ctx context.Context, work *work) func(avro.SchemaID) (*avro.FrameSchema, *intake.Refusal) {
	find := s.schemas(ctx, s.lookups)
	return func(id avro.SchemaID) (*avro.FrameSchema, *intake.Refusal) {
		work.pause()
		defer work.resume()
		work.by.endTurn()
		defer work.by.resume()
		return find(id)
	}
}
