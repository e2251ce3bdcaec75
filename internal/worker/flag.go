package worker

import (
	"errors"
	"fmt"
	"reflect"
	"strings"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/internal/address"
)

// NameFlag replaces the name of a field by the name of its flag, if err wraps an
// *oona.FieldError about a field of cfg, a struct with tags of flags. Otherwise, it
// returns err.
func NameFlag(cfg any, err error) error {
	wrong, ok := errors.AsType[*oona.FieldError](err)
	if !ok {
		return err
	}
	name, index, _ := strings.Cut(wrong.Field, "[")
	field, ok := reflect.TypeOf(cfg).FieldByName(name)
	if !ok || field.Tag.Get("name") == "" {
		return err
	}
	if index != "" {
		index = "[" + index
	}
	return &oona.FieldError{Field: "--" + field.Tag.Get("name") + index, Reason: wrong.Reason}
}

// AsFlag replaces the name of the field by flag if err wraps an *oona.FieldError.
// Otherwise, it returns err.
func AsFlag(flag string, err error) error {
	if wrong, ok := errors.AsType[*oona.FieldError](err); ok {
		return &oona.FieldError{Field: flag, Reason: wrong.Reason}
	}
	return err
}

// Listener is an address to listen on, and the flag that it comes from.
type Listener struct{ Flag, Address string }

// CheckAddresses returns an *oona.FieldError if an address is malformed, or if two of
// them conflict. It opens no ports.
func CheckAddresses(listeners ...Listener) error {
	parsed := make([]address.Address, len(listeners))
	for i, l := range listeners {
		var err error
		if parsed[i], err = address.Parse(l.Address); err != nil {
			return &oona.FieldError{Field: l.Flag, Reason: err.Error() + ", such as 127.0.0.1:8080, or 127.0.0.1:0 for a free port"}
		}
		for j, other := range listeners[:i] {
			if parsed[i].Overlaps(parsed[j]) {
				return &oona.FieldError{Field: l.Flag, Reason: fmt.Sprintf("is %s, and %s is %s; two servers cannot listen on the same port, so change one of them", l.Address, other.Flag, other.Address)}
			}
		}
	}
	return nil
}
