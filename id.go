package oona

import (
	"fmt"
	"unicode/utf8"
)

// Ids are chosen by clients and match [A-Za-z0-9._:-]{1,128} (see CheckID).
type (
	// RunID names one training run.
	RunID string
	// LayerID names a layer within a run.
	LayerID string
	// TimelineID names a rank of a run that has its own layers and watermark.
	// It is empty if the whole run has one watermark.
	TimelineID string
	// ProducerID names one process that sends frames.
	ProducerID string
	// SeedID numbers a seed within its layer.
	SeedID int32
)

// MaxIDLength is the greatest length of an id in bytes.
const MaxIDLength = 128

// FieldError says which field of an input is wrong and why.
type FieldError struct {
	Field  string // name of the field as the client wrote it, e.g. "metrics[2].values"
	Reason string // says what is wrong, and what is allowed
}

func (e *FieldError) Error() string { return e.Field + ": " + e.Reason }

// CheckID returns a *FieldError unless id matches [A-Za-z0-9._:-]{1,128}.
func CheckID(field, id string) error {
	if fault := idFault(id); fault != "" {
		return &FieldError{field, fault}
	}
	return nil
}

// idFault returns the fault of an id, or "". Callers that have to build
// the name of the field use it instead of CheckID, and build the name only if
// there is a fault.
func idFault(id string) string {
	if id == "" {
		return "is empty; give 1 to 128 of A-Z a-z 0-9 . _ : -"
	}
	if len(id) > MaxIDLength {
		return fmt.Sprintf("has %d bytes; at most %d are allowed", len(id), MaxIDLength)
	}
	for i := 0; i < len(id); i++ {
		if !idByte(id[i]) {
			r, _ := utf8.DecodeRuneInString(id[i:])
			return fmt.Sprintf("has %q at position %d; allowed are A-Z a-z 0-9 . _ : -", r, i)
		}
	}
	return ""
}

func idByte(c byte) bool {
	switch {
	case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9':
		return true
	}
	return c == '.' || c == '_' || c == ':' || c == '-'
}
