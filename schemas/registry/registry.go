package registry

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/twmb/franz-go/pkg/sr"

	"github.com/morphogenetic/oona/schemas/avro"
)

// ErrUnknownID is returned if the registry answers that it does not have the id.
var ErrUnknownID = errors.New("the schema registry does not have this id")

// ErrAway is returned if the registry does not answer, or if its answer does not say whether
// it has the id. It may answer later.
var ErrAway = errors.New("the schema registry gives no answer")

// ErrCredentials wraps ErrAway: the registry does not accept the credentials.
var ErrCredentials = fmt.Errorf("%w: it does not accept the credentials; check --registry-username, --registry-password-file, --registry-token-file, and what that user may read", ErrAway)

// Registry finds the schemas of frames. It is safe for concurrent use.
type Registry struct {
	client  *sr.Client
	logger  *slog.Logger
	lookups *prometheus.CounterVec
	file    *cacheFile
	now     func() time.Time
	again   time.Duration // see deniedAgain; tests shorten it

	mu      sync.Mutex
	known   map[avro.SchemaID]*entry
	flights map[avro.SchemaID]chan struct{} // lookups that are in progress
	away    error                           // error of the last lookup, if the registry did not answer
	retry   time.Time                       // while away is set, no lookup is tried before this time
}

// entry is the result of the lookup of an id.
type entry struct {
	schema *avro.FrameSchema
	err    error     // set if the registry does not have the id, or if the schema is not a schema of frames
	until  time.Time // when the registry is asked again; zero means never
}

const (
	maxKnown = 1_024 // maximum number of entries; if there are more ids, some are looked up again

	// If a registry has several servers, it may take a moment until all of them have a new
	// schema. So the registry is asked again before an answer of 404 is final, and once
	// more for records that arrive later.
	deniedAgain = 500 * time.Millisecond
	deniedFor   = 10 * time.Second

	awayFor   = time.Second // after a failed lookup, all lookups fail for this time
	cachedFor = time.Minute // a schema from the file is used for this time
)

// The results of lookups.
const (
	resultFound      = "found"
	resultUnreadable = "unreadable"
	resultUnknown    = "unknown"
	resultCached     = "cached"
	resultFailed     = "failed"
)

// Open returns the registry of the configuration. It sends no request: see Probe.
func Open(cfg Config, registerer prometheus.Registerer, logger *slog.Logger) (*Registry, error) {
	client, err := cfg.client()
	if err != nil {
		return nil, err
	}
	r := &Registry{
		client: client,
		logger: logger,
		lookups: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "oona_registry_lookups_total",
			Help: "Lookups of schemas in the schema registry, by result: found, unreadable (not a schema of frames), unknown (the registry does not have it), cached (the registry did not answer, but the cache file has it), failed (the registry did not answer).",
		}, []string{"result"}),
		now:     time.Now,
		again:   deniedAgain,
		known:   make(map[avro.SchemaID]*entry),
		flights: make(map[avro.SchemaID]chan struct{}),
	}
	for _, result := range []string{resultFound, resultUnreadable, resultUnknown, resultCached, resultFailed} {
		r.lookups.WithLabelValues(result)
	}
	if registerer != nil {
		if err := registerer.Register(r.lookups); err != nil {
			return nil, fmt.Errorf("registry: register metrics: %w", err)
		}
	}
	if cfg.Cache != "" {
		r.file = openCache(cfg.Cache, cfg.URLs, logger)
	}
	return r, nil
}

// Probe sends a request that every registry can answer. Its error wraps ErrAway
// and, if an operator must act, ErrCredentials or ErrNoRegistry.
func (r *Registry) Probe(ctx context.Context) error {
	_, err := r.client.SupportedTypes(ctx)
	return classify(err)
}

// Known is like Frame, but sends no request. If one is needed, known is false.
func (r *Registry) Known(id avro.SchemaID) (schema *avro.FrameSchema, known bool, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	e := r.known[id]
	if e == nil || !e.until.IsZero() && !r.now().Before(e.until) {
		return nil, false, nil
	}
	return e.schema, true, e.err
}

// Frame returns the schema with the id. Its error wraps ErrUnknownID, avro.ErrUnreadable,
// ErrAway, or that of ctx. Only one lookup of an id is in progress at a time.
func (r *Registry) Frame(ctx context.Context, id avro.SchemaID) (*avro.FrameSchema, error) {
	for {
		if schema, known, err := r.Known(id); known {
			return schema, err
		}
		r.mu.Lock()
		if r.away != nil && r.now().Before(r.retry) {
			away := r.away
			r.mu.Unlock()
			return r.offline(id, away)
		}
		other, busy := r.flights[id]
		if !busy {
			break
		}
		r.mu.Unlock()
		select {
		case <-other:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
	done := make(chan struct{})
	r.flights[id] = done
	r.mu.Unlock()

	e, err := r.lookUp(ctx, id)

	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.flights, id)
	close(done)
	switch {
	case ctx.Err() != nil && err != nil:
		return nil, context.Cause(ctx) // this is not an error of the registry
	case err != nil:
		r.away, r.retry = err, r.now().Add(awayFor)
		return nil, err
	}
	r.away = nil
	r.keep(id, e)
	return e.schema, e.err
}

// offline returns the schema from the file, while no requests are sent to the registry.
func (r *Registry) offline(id avro.SchemaID, away error) (*avro.FrameSchema, error) {
	e, err := r.fromFile(id, away)
	if err != nil {
		return nil, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.keep(id, e)
	return e.schema, e.err
}

// keep adds an entry, and removes another one if there are too many: one without a schema if there
// is one, so that a client that sends ids at random does not make others wait.
func (r *Registry) keep(id avro.SchemaID, e *entry) {
	if _, known := r.known[id]; !known && len(r.known) >= maxKnown {
		var victim avro.SchemaID
		for other, has := range r.known {
			if victim = other; has.schema == nil {
				break
			}
		}
		delete(r.known, victim)
	}
	r.known[id] = e
}

// lookUp gets the schema with an id from the registry or, if the registry is unavailable, from
// the file. It returns an error if neither has an answer.
func (r *Registry) lookUp(ctx context.Context, id avro.SchemaID) (*entry, error) {
	text, err := r.fetch(ctx, id)
	if errors.Is(err, ErrUnknownID) {
		select {
		case <-time.After(r.again):
			text, err = r.fetch(ctx, id)
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	switch {
	case errors.Is(err, ErrUnknownID):
		r.lookups.WithLabelValues(resultUnknown).Inc()
		r.logger.Warn("the schema registry does not have the schema of a frame", "schema_id", id.String(), "err", err)
		return &entry{err: err, until: r.now().Add(deniedFor)}, nil
	case errors.Is(err, avro.ErrUnreadable):
		r.lookups.WithLabelValues(resultUnreadable).Inc()
		return &entry{err: err}, nil
	case err != nil:
		return r.fromFile(id, err)
	}
	schema, err := avro.ParseFrameSchema(text.Schema, text.References...)
	if err != nil {
		r.lookups.WithLabelValues(resultUnreadable).Inc()
		r.logger.Warn("a schema of the registry is not one of frames", "schema_id", id.String(), "err", err)
		return &entry{err: fmt.Errorf("schema %s: %w", id, err)}, nil
	}
	r.lookups.WithLabelValues(resultFound).Inc()
	r.logger.Info("a schema was looked up", "schema_id", id.String(), "published", schema.Published())
	if r.file != nil {
		r.file.put(id, text)
	}
	return &entry{schema: schema}, nil
}

// fromFile returns the schema from the file, or the given error if the file does not have it.
func (r *Registry) fromFile(id avro.SchemaID, away error) (*entry, error) {
	if r.file != nil {
		if text, ok := r.file.get(id); ok {
			if schema, err := avro.ParseFrameSchema(text.Schema, text.References...); err == nil {
				r.lookups.WithLabelValues(resultCached).Inc()
				r.logger.Warn("the schema registry gives no answer; the schema in the cache file is used", "schema_id", id.String(), "err", away)
				return &entry{schema: schema, until: r.now().Add(cachedFor)}, nil
			}
		}
	}
	r.lookups.WithLabelValues(resultFailed).Inc()
	return nil, away
}
