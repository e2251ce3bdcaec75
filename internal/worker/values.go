package worker

import (
	"fmt"
	"reflect"
	"time"

	"github.com/alecthomas/kong"
	"github.com/alecthomas/units"

	"github.com/morphogenetic/oona/internal/size"
)

// sizeType is the type, in the tags of flags, of integers that are sizes in bytes.
const sizeType = "size"

// isSize reports whether the value of a flag is a size.
func isSize(value *kong.Value) bool {
	_, ok := value.Target.Interface().(units.Base2Bytes)
	return ok || value.Tag.Type == sizeType
}

// values returns mappers for types of flags whose errors have an example.
func values() []kong.Option {
	return []kong.Option{
		kong.TypeMapper(reflect.TypeFor[time.Duration](), withExample("a duration", "10s", time.ParseDuration)),
		kong.TypeMapper(reflect.TypeFor[time.Time](), withExample("a time", "2026-12-01T12:00:00Z", func(text string) (time.Time, error) { return time.Parse(time.RFC3339, text) })),
		kong.TypeMapper(reflect.TypeFor[units.Base2Bytes](), sizes),
		kong.NamedMapper(sizeType, sizes),
	}
}

var sizes = withExample("a size", "2000000 (bytes) or 64MiB", size.Parse)

func withExample[T any](what, example string, parse func(string) (T, error)) kong.MapperFunc {
	return func(ctx *kong.DecodeContext, target reflect.Value) error {
		var text string
		if err := ctx.Scan.PopValueInto(what, &text); err != nil {
			return err
		}
		value, err := parse(text)
		if err != nil {
			return fmt.Errorf("%q is not %s; give for example %s", text, what, example)
		}
		target.Set(reflect.ValueOf(value).Convert(target.Type())) // a size is an int64, and the field may be an int
		return nil
	}
}
