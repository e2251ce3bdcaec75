package intake

import (
	"errors"
	"fmt"
	"time"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/schemas/avro"
)

// Reason is a word that says why frames are refused. Callers add reasons to those of this
// package.
type Reason string

// The reasons of this package.
const (
	ReasonUndecodable Reason = "undecodable" // the body cannot be decoded
	ReasonInvalid     Reason = "invalid"     // a frame is not valid
	ReasonTooLarge    Reason = "too-large"   // a limit is exceeded
	ReasonOverloaded  Reason = "overloaded"  // no memory is free at the moment
)

// Refusal says why a body is not accepted.
type Refusal struct {
	Reason Reason
	Detail string
	Frame  *int          // index of the first bad frame, or nil
	Event  *int          // index of the first bad event, or nil
	Field  string        // field of that frame or event
	Retry  time.Duration // time after which the same body may be accepted; 0 means never
}

// Refuse returns a refusal.
func Refuse(why Reason, format string, args ...any) *Refusal {
	return &Refusal{Reason: why, Detail: fmt.Sprintf(format, args...)}
}

// After says when to try again.
func (r *Refusal) After(retry time.Duration) *Refusal {
	r.Retry = retry
	return r
}

// Of says which frame is refused, and which of its fields is the reason.
func (r *Refusal) Of(frame int, field string) *Refusal {
	r.Frame, r.Field = &frame, field
	r.Detail = fmt.Sprintf("frame %d: %s", frame, r.Detail)
	return r
}

// OfEvent is like Of, for an event.
func (r *Refusal) OfEvent(event int, field string) *Refusal {
	r.Event, r.Field = &event, field
	r.Detail = fmt.Sprintf("event %d: %s", event, r.Detail)
	return r
}

// refuseFrame refuses a frame because of an error of a decoder or of Validate.
func refuseFrame(index int, err error) *Refusal {
	refused := refuseValue(err)
	return refused.Of(index, refused.Field)
}

// refuseValue refuses a frame or an event because of an error of a decoder or of Validate.
func refuseValue(err error) *Refusal {
	undecodable, isUndecodable := errors.AsType[*avro.DecodeError](err)
	why := ReasonInvalid
	switch {
	case errors.Is(err, oona.ErrTooLarge):
		why = ReasonTooLarge
	case isUndecodable:
		why = ReasonUndecodable
	}
	detail, field := err.Error(), ""
	if wrong, ok := errors.AsType[*oona.FieldError](err); ok {
		detail, field = wrong.Error(), wrong.Field
		if field == "" { // the value itself
			detail = wrong.Reason
		}
	} else if isUndecodable {
		field = undecodable.Field
	}
	refused := Refuse(why, "%s", detail)
	refused.Field = field
	return refused
}
