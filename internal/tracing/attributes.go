package tracing

import (
	"go.opentelemetry.io/otel/attribute"

	"github.com/morphogenetic/oona"
)

// String returns an attribute that is a text.
func String(key, value string) Attribute { return attribute.String(key, value) }

// Int returns an attribute that is an integer.
func Int(key string, value int64) Attribute { return attribute.Int64(key, value) }

// Strings returns an attribute that is a text if there is one value, so that backends find
// it, and otherwise a list.
func Strings(key string, values []string) Attribute {
	if len(values) == 1 {
		return attribute.String(key, values[0])
	}
	return attribute.StringSlice(key, values)
}

// Window returns what all spans of a window have.
func Window(r *oona.Rollup) []Attribute {
	attributes := []Attribute{
		String("oona.run", string(r.Run)),
		String("oona.layer", string(r.Layer)),
		String("oona.window.start", Instant(r.Start)),
		String("oona.window.end", Instant(r.End)),
	}
	if r.Timeline != "" {
		attributes = append(attributes, String("oona.timeline", string(r.Timeline)))
	}
	return attributes
}

// Instant returns the text of an event time in attributes.
func Instant(t oona.Micros) string { return t.Time().Format("2006-01-02T15:04:05.000000Z") }
