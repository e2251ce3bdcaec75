package ingest

import (
	"errors"
	"fmt"
	"time"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/schemas/avro"
)

// reason is why frames or a tensor are refused. It is the end of a problem's type,
// the exception of a dead letter, and a label of metrics.
type reason string

// All reasons. The first seven occur with HTTP only.
const (
	reasonPath        reason = "path"
	reasonMethod      reason = "method"
	reasonMediaType   reason = "media-type"
	reasonHeader      reason = "header"
	reasonClock       reason = "clock"
	reasonRead        reason = "read"
	reasonCoding      reason = "coding"
	reasonUndecodable reason = "undecodable"
	reasonInvalid     reason = "invalid"
	reasonTooLarge    reason = "too-large"
	reasonMismatch    reason = "mismatch"
	reasonDangling    reason = "dangling"
	reasonNoStore     reason = "no-store"
	reasonStore       reason = "store"
	reasonStoreFull   reason = "store-full"
	reasonRefused     reason = "store-refused"
	reasonOverloaded  reason = "overloaded"
	reasonPublish     reason = "publish"
	reasonTimeout     reason = "timeout"
	reasonPartitions  reason = "partitions"
)

// refusal says why something is not taken.
type refusal struct {
	reason reason
	detail string
	frame  *int          // index of the first bad frame; nil: it is not about a frame
	field  string        // of that frame
	retry  time.Duration // the same may be taken after this time; 0: it never will be
	slow   bool          // the client sent it too slowly
}

func refuse(why reason, format string, args ...any) *refusal {
	return &refusal{reason: why, detail: fmt.Sprintf(format, args...)}
}

// after says when to try again.
func (r *refusal) after(retry time.Duration) *refusal {
	r.retry = retry
	return r
}

// of says which frame is refused, and which of its fields is the reason.
func (r *refusal) of(frame int, field string) *refusal {
	r.frame, r.field = &frame, field
	r.detail = fmt.Sprintf("frame %d: %s", frame, r.detail)
	return r
}

// refuseFrame refuses a frame for an error of a decoder or of Validate.
func refuseFrame(index int, err error) *refusal {
	undecodable, isUndecodable := errors.AsType[*avro.DecodeError](err)
	why := reasonInvalid
	switch {
	case errors.Is(err, oona.ErrTooLarge):
		why = reasonTooLarge
	case isUndecodable:
		why = reasonUndecodable
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
	return refuse(why, "%s", detail).of(index, field)
}
