package registry

import (
	"context"
	"errors"
	"fmt"

	"github.com/twmb/franz-go/pkg/sr"

	"github.com/morphogenetic/oona/schemas/avro"
)

// Subject returns the subject of a topic's values, by the topic-name strategy.
func Subject(topic string) string { return topic + "-value" }

// Version is a published version of a record's schema in a subject.
type Version struct {
	avro.Schema
	ID int32 // 0 if it is not registered
}

// Standing is the result of comparing a subject with the published versions of a record.
type Standing struct {
	Subject  string
	Level    string // the compatibility level that the registry enforces
	Versions []Version
	Others   int // number of versions in the subject that are not published versions
	// Conflict is the reason why a missing version cannot be registered: it is not
	// compatible with a version that the subject has. It wraps ErrIncompatible.
	Conflict error
}

// Complete reports whether all versions are registered.
func (s *Standing) Complete() bool {
	for _, v := range s.Versions {
		if v.ID == 0 {
			return false
		}
	}
	return true
}

// ErrIncompatible is returned for a schema that is not both backward and forward compatible
// with all versions of a subject.
var ErrIncompatible = errors.New("the subject has a version that is not compatible, both ways, with Oona's schema")

// Examine compares a subject with the published versions of the record with a name.
func (r *Registry) Examine(ctx context.Context, subject, record string) (*Standing, error) {
	s := &Standing{Subject: subject}
	for _, published := range avro.Schemas() {
		if published.Name == record {
			s.Versions = append(s.Versions, Version{Schema: published})
		}
	}
	existing, err := r.client.Schemas(ctx, subject)
	if err = classify(err); err != nil && !errors.Is(err, ErrUnknownID) {
		return nil, fmt.Errorf("subject %s: %w", subject, err)
	}
	for _, e := range existing {
		if !s.has(e) {
			s.Others++
		}
	}
	s.Conflict = s.conflict(existing)
	level := r.client.Compatibility(sr.WithParams(ctx, sr.DefaultToGlobal), subject)[0]
	if err := classify(level.Err); err != nil && !errors.Is(err, ErrUnknownID) {
		return nil, fmt.Errorf("compatibility of subject %s: %w", subject, err)
	}
	s.Level = level.Level.String()
	return s, nil
}

// has records that the subject has a schema, if it is a published version. The layout of the
// text, the order of attributes and the documentation do not matter.
func (s *Standing) has(e sr.SubjectSchema) bool {
	fingerprint, err := avro.Fingerprint(e.Schema.Schema)
	for i := range s.Versions {
		if err == nil && s.Versions[i].Fingerprint == fingerprint {
			s.Versions[i].ID = int32(e.ID) //nolint:gosec // registries have an int32
			return true
		}
	}
	return false
}

// conflict returns the reason why the missing versions cannot be registered, or nil.
func (s *Standing) conflict(existing []sr.SubjectSchema) error {
	for _, v := range s.Versions {
		for _, e := range existing {
			if v.ID != 0 {
				continue
			}
			if err := avro.Compatible(e.Schema.Schema, v.Text); err != nil {
				return fmt.Errorf("%w: version %d of %s, and version %d of %s: %w", ErrIncompatible, e.Version, s.Subject, v.Version, v.Name, err)
			}
		}
	}
	return nil
}

// Register registers the missing versions in order. It registers nothing if one of them is not
// both backward and forward compatible with all versions of the subject. A new subject gets the
// level FULL_TRANSITIVE, so that the registry refuses incompatible schemas. Register sets the
// level before it adds a version, if the registry allows that. Otherwise, if Register were
// interrupted, the subject would no longer be new and would keep another level.
func (r *Registry) Register(ctx context.Context, s *Standing) error {
	if s.Conflict != nil {
		return s.Conflict
	}
	fresh := s.Others == 0
	for _, v := range s.Versions {
		fresh = fresh && v.ID == 0
	}
	if fresh {
		err := r.keepCompatible(ctx, s)
		if err != nil && !errors.Is(err, ErrUnknownID) && !errors.Is(err, ErrNoRegistry) {
			return err
		}
		fresh = err != nil // some registries have no levels of subjects that do not exist
	}
	for i := range s.Versions {
		v := &s.Versions[i]
		if v.ID != 0 {
			continue
		}
		id, err := r.client.RegisterSchema(ctx, s.Subject, sr.Schema{Schema: v.Text, Type: sr.TypeAvro}, -1, -1)
		if err != nil {
			return fmt.Errorf("register version %d of %s as %s: %w", v.Version, v.Name, s.Subject, refusal(err))
		}
		v.ID = int32(id) //nolint:gosec // registries have an int32
	}
	if !fresh {
		return nil
	}
	if err := r.keepCompatible(ctx, s); err != nil {
		return fmt.Errorf("%s is registered; set its compatibility to FULL_TRANSITIVE by hand: %w", s.Subject, err)
	}
	return nil
}

// keepCompatible gives the subject the level FULL_TRANSITIVE.
func (r *Registry) keepCompatible(ctx context.Context, s *Standing) error {
	set := r.client.SetCompatibility(ctx, sr.SetCompatibility{Level: sr.CompatFullTransitive}, s.Subject)[0]
	if set.Err != nil {
		return fmt.Errorf("set the compatibility of %s: %w", s.Subject, refusal(set.Err))
	}
	s.Level = sr.CompatFullTransitive.String()
	return nil
}

// refusal returns the error of a request that changes something. If the registry has answered,
// it has refused the request.
func refusal(err error) error {
	if answer, answered := errors.AsType[*sr.ResponseError](err); answered && answer.StatusCode == 409 {
		return fmt.Errorf("%w (the registry says: %s)", ErrIncompatible, brief(answer.Error()))
	}
	return classify(err)
}
