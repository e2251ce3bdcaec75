package registry

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"

	"github.com/twmb/franz-go/pkg/sr"

	"github.com/morphogenetic/oona/schemas/avro"
)

// text is the answer of a registry: a schema and its references.
type text struct {
	Schema     string   `json:"schema"`
	References []string `json:"references,omitempty"` // a schema that others refer to comes before them
}

// maxReferences is the maximum number of schemas that a schema refers to, directly or indirectly.
const maxReferences = 32

// fetch asks the registry for a schema.
func (r *Registry) fetch(ctx context.Context, id avro.SchemaID) (text, error) {
	var schema sr.Schema
	var err error
	if id.Global {
		var found sr.SubjectSchema
		found, err = r.client.SchemaByGUID(ctx, id.UUID())
		schema = found.Schema
	} else {
		schema, err = r.client.SchemaByID(ctx, int(id.Number))
	}
	if err = classify(err); err != nil {
		return text{}, fmt.Errorf("schema %s: %w", id, r.missing(ctx, err))
	}
	if schema.Type != sr.TypeAvro {
		return text{}, fmt.Errorf("schema %s: %w: it is a %s schema; frames need an Avro schema", id, avro.ErrUnreadable, schema.Type)
	}
	t := text{Schema: schema.Schema}
	if err := r.references(ctx, schema.References, &t, make(map[sr.SchemaReference]bool)); err != nil {
		return text{}, fmt.Errorf("schema %s: %w", id, err)
	}
	return t, nil
}

// references adds the schemas that a schema refers to.
func (r *Registry) references(ctx context.Context, references []sr.SchemaReference, t *text, seen map[sr.SchemaReference]bool) error {
	for _, reference := range references {
		if seen[reference] {
			continue
		}
		if seen[reference] = true; len(seen) > maxReferences {
			return fmt.Errorf("%w: it refers to more than %d other schemas", avro.ErrUnreadable, maxReferences)
		}
		found, err := r.client.SchemaByVersion(ctx, reference.Subject, reference.Version)
		if err := classify(err); err != nil {
			return fmt.Errorf("the schema %.100s, to which it refers: %w", reference.Name, err)
		}
		if err := r.references(ctx, found.References, t, seen); err != nil {
			return err
		}
		t.References = append(t.References, found.Schema.Schema)
	}
	return nil
}

// ErrNoRegistry wraps ErrAway. The answer is 404, but it does not come from a registry.
var ErrNoRegistry = fmt.Errorf("%w: it answers 404, but not as a registry does; --registry-url must be its base, which for Apicurio ends with /apis/ccompat/v7", ErrAway)

// missing returns ErrUnknownID instead of ErrNoRegistry if the registry works otherwise. For
// example, not all registries have GUIDs.
func (r *Registry) missing(ctx context.Context, err error) error {
	if errors.Is(err, ErrNoRegistry) && r.Probe(ctx) == nil {
		return ErrUnknownID
	}
	return err
}

// The error codes of registries for schemas, subjects and versions that do not exist.
var unknown = map[int]bool{
	sr.ErrSubjectNotFound.Code: true,
	sr.ErrVersionNotFound.Code: true,
	sr.ErrSchemaNotFound.Code:  true,
}

// classify wraps an error of the client in an error of this package.
func classify(err error) error {
	if err == nil {
		return nil
	}
	answer, answered := errors.AsType[*sr.ResponseError](err)
	switch {
	case !answered:
		if failed, ok := errors.AsType[*url.Error](err); ok {
			err = failed.Err // without the URL, which is in the text already
		}
		return fmt.Errorf("%w: %w", ErrAway, err)
	case answer.StatusCode == http.StatusNotFound && unknown[answer.ErrorCode]:
		return ErrUnknownID
	case answer.StatusCode == http.StatusNotFound:
		return ErrNoRegistry
	case answer.StatusCode == http.StatusUnauthorized, answer.StatusCode == http.StatusForbidden:
		return fmt.Errorf("%w (it answers %d)", ErrCredentials, answer.StatusCode)
	}
	return fmt.Errorf("%w: it answers %d: %s", ErrAway, answer.StatusCode, brief(answer.Error()))
}

// brief shortens the text of an answer, which may be a whole page.
func brief(text string) string {
	text = strings.Join(strings.Fields(strings.ToValidUTF8(text, "?")), " ")
	if len(text) > 200 {
		return strings.ToValidUTF8(text[:200], "") + "…"
	}
	return text
}
