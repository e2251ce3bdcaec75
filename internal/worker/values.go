package worker

import (
	"fmt"
	"reflect"
	"time"

	"github.com/alecthomas/kong"
	"github.com/alecthomas/units"
)

// values returns mappers for types of flags whose errors have an example.
func values() []kong.Option {
	return []kong.Option{
		kong.TypeMapper(reflect.TypeFor[time.Duration](), withExample("a duration", "10s", time.ParseDuration)),
		kong.TypeMapper(reflect.TypeFor[time.Time](), withExample("a time", "2026-12-01T12:00:00Z", func(text string) (time.Time, error) { return time.Parse(time.RFC3339, text) })),
		kong.TypeMapper(reflect.TypeFor[units.Base2Bytes](), withExample("a size", "2GiB", units.ParseBase2Bytes)),
	}
}

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
		target.Set(reflect.ValueOf(value))
		return nil
	}
}
