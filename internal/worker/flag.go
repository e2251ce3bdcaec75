package worker

import (
	"errors"
	"reflect"

	"github.com/morphogenetic/oona"
)

// NameFlag returns err with the flag in place of the field, where err wraps an
// *oona.FieldError about a field of cfg, a struct with tags of flags.
func NameFlag(cfg any, err error) error {
	wrong, ok := errors.AsType[*oona.FieldError](err)
	if !ok {
		return err
	}
	field, ok := reflect.TypeOf(cfg).FieldByName(wrong.Field)
	if name := field.Tag.Get("name"); ok && name != "" {
		return &oona.FieldError{Field: "--" + name, Reason: wrong.Reason}
	}
	return err
}
