package intake

import (
	"errors"
	"fmt"
	"time"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/schemas/avro"
)

// Reason is why frames are refused, in one word. Callers have more reasons than those
// of this package.
type Reason string

// The reasons of this package.
const (
	ReasonUndecodable Reason = "undecodable" // the body is not made of frames
	ReasonInvalid     Reason = "invalid"     // a frame is not valid
	ReasonTooLarge    Reason = "too-large"   // a limit is exceeded
	ReasonOverloaded  Reason = "overloaded"  // there is no memory now
)

// Refusal says why something is not accepted.
type Refusal struct {
	Reason Reason
	Detail string
	Frame  *int          // index of the first bad frame; nil: it is not about a frame
	Field  string        // of that frame
	Retry  time.Duration // the same may be accepted after this time; 0: it never will be
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

// refuseFrame refuses a frame for an error of a decoder or of Validate.
func refuseFrame(index int, err error) *Refusal {
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
		if field == "" { // the frame itself
			detail = wrong.Reason
		}
	} else if isUndecodable {
		field = undecodable.Field
	}
	return Refuse(why, "%s", detail).Of(index, field)
}
