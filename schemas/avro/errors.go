package avro

import (
	"errors"
	"fmt"

	"github.com/twmb/avro"
)

// A *DecodeError wraps one of these errors.
var (
	ErrFraming     = errors.New("not Avro single-object encoding")
	ErrFingerprint = errors.New("unexpected schema fingerprint")
	ErrTruncated   = errors.New("data ends early")
	ErrMalformed   = errors.New("malformed Avro")

	// ErrUnpublished wraps ErrFingerprint. This package does not have the schema.
	ErrUnpublished = fmt.Errorf("%w: it is not a published schema", ErrFingerprint)
)

// DecodeError says where a decoder stopped and why.
type DecodeError struct {
	Field  string // name of the field in the schema, e.g. "metrics[2].values"
	Offset int    // bytes from the start of the data; -1 if it is not known
	Err    error
}

func (e *DecodeError) Error() string {
	if e.Offset < 0 {
		return fmt.Sprintf("%s: %v", e.Field, e.Err)
	}
	return fmt.Sprintf("%s at byte %d: %v", e.Field, e.Offset, e.Err)
}

func (e *DecodeError) Unwrap() error { return e.Err }

// Alone returns the error of a decoder, or an error that wraps ErrMalformed if bytes follow the record
// that it has decoded. It takes the results of a decoder:
//
//	err := avro.Alone(avro.DecodeEvent(data, &event))
func Alone(rest []byte, err error) error {
	if err == nil && len(rest) > 0 {
		return fmt.Errorf("%w: %d bytes follow the record", ErrMalformed, len(rest))
	}
	return err
}

// foreign converts an error that twmb/avro returned for a record with this name.
func foreign(name string, err error) *DecodeError {
	field := name
	var semantic *avro.SemanticError
	if errors.As(err, &semantic) && semantic.Field != "" {
		field = semantic.Field
		if semantic.Err != nil { // its cause, without the name of a type of this package
			err = semantic.Err
		}
	}
	cause := ErrMalformed
	var short *avro.ShortBufferError
	if errors.As(err, &short) {
		cause = ErrTruncated
	}
	return &DecodeError{field, -1, fmt.Errorf("%w: %w", cause, err)}
}
