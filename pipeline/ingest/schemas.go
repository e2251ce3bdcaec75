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

// findSchema finds a schema of frames.
type findSchema = func(avro.SchemaID) (*avro.FrameSchema, *intake.Refusal)

// schemas returns a function that finds the schemas of a body, or nil if there is no registry.
// The function waits for the registry as long as ctx and the limits of package registry allow.
func (s *sink) schemas(ctx context.Context) findSchema {
	if s.cfg.Registry == nil {
		return nil
	}
	return func(id avro.SchemaID) (*avro.FrameSchema, *intake.Refusal) {
		schema, err := s.cfg.Registry.Frame(ctx, id)
		switch {
		case err == nil:
			return schema, nil
		case errors.Is(err, registry.ErrUnknownID), errors.Is(err, avro.ErrUnreadable):
			return nil, intake.Refuse(reasonSchema, "%v", err)
		}
		return nil, intake.Refuse(reasonRegistry, "%v", err).After(registryRetry)
	}
}

// schemasFor is schemas for a body that is being decoded. Only some requests wait for the registry
// at the same time, and a client has its share of them. While one waits, the body of another
// request may be decoded.
func (s *Stage) schemasFor(ctx context.Context, work *work) findSchema {
	find, by := s.schemas(ctx), work.by
	return func(id avro.SchemaID) (*avro.FrameSchema, *intake.Refusal) {
		if _, known, _ := s.cfg.Registry.Known(id); known {
			return find(id)
		}
		switch by.try(forLookup) {
		case allTaken:
			return nil, intake.Refuse(reasonRegistry, "%d requests are waiting for the schema registry, which is the maximum; this request was refused as a whole; send it again later", cap(s.lookups)).After(time.Second)
		case shareTaken:
			return nil, s.shareTaken()
		}
		schema, refused := work.lookUp(find, id)
		if refused == nil && !work.settle() { // read says why
			refused = intake.Refuse(intake.ReasonOverloaded, "%v", errNoPlace)
		}
		return schema, refused
	}
}
