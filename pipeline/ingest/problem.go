package ingest

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/schemas/avro"
)

// reason is why a request is refused: the end of a problem's type, and a label
// of the counter. There are no others than these.
type reason string

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

var titles = map[reason]string{
	reasonPath:        "There is nothing at this path",
	reasonMethod:      "The method is not allowed",
	reasonMediaType:   "The body's media type or coding is not supported",
	reasonHeader:      "A header is not valid",
	reasonClock:       "The client's clock is off",
	reasonRead:        "The body could not be read",
	reasonCoding:      "The body does not decompress",
	reasonUndecodable: "The body is not made of frames",
	reasonInvalid:     "A frame is not valid",
	reasonTooLarge:    "The request is too large",
	reasonMismatch:    "The tensor is not what was declared",
	reasonDangling:    "A claim's tensor is not in the store",
	reasonNoStore:     "There is no tensor store",
	reasonStore:       "The tensor store did not take a tensor",
	reasonStoreFull:   "The tensor store is full",
	reasonRefused:     "The tensor store refuses ingest",
	reasonOverloaded:  "Too many requests are in flight",
	reasonPublish:     "The bus did not take the frames",
	reasonTimeout:     "The bus did not answer in time",
	reasonPartitions:  "The topic's number of partitions has changed",
}

// problem is an answer after RFC 9457.
type problem struct {
	Type   string `json:"type"`
	Title  string `json:"title"`
	Status int    `json:"status"`
	Detail string `json:"detail"`
	Frame  *int   `json:"frame,omitempty"` // index of the first bad frame
	Field  string `json:"field,omitempty"` // of that frame

	reason  reason
	headers []string // names and values in turn
}

func newProblem(status int, why reason, format string, args ...any) *problem {
	return &problem{
		Type:   "urn:oona:problem:" + string(why),
		Title:  titles[why],
		Status: status,
		Detail: fmt.Sprintf(format, args...),
		reason: why,
	}
}

// with adds a header to the answer.
func (p *problem) with(name, value string) *problem {
	p.headers = append(p.headers, name, value)
	return p
}

// retryAfter asks the client to wait before it sends the request again.
func (p *problem) retryAfter(seconds int) *problem {
	return p.with("Retry-After", strconv.Itoa(seconds))
}

// ofFrame says which frame the problem is with.
func (p *problem) ofFrame(index int) *problem {
	p.Frame = &index
	p.Detail = fmt.Sprintf("frame %d: %s", index, p.Detail)
	return p
}

// write sends the problem, with its length, so that the client knows where it
// ends while the connection is still open.
func (p *problem) write(w http.ResponseWriter) {
	for i := 0; i+1 < len(p.headers); i += 2 {
		w.Header().Set(p.headers[i], p.headers[i+1])
	}
	var text bytes.Buffer
	_ = json.NewEncoder(&text).Encode(p) // strings and numbers
	w.Header().Set("Content-Type", "application/problem+json")
	w.Header().Set("Content-Length", strconv.Itoa(text.Len()))
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(p.Status)
	_, _ = w.Write(text.Bytes()) // the client may be gone
}

func writeJSON(w http.ResponseWriter, status int, mediaType string, v any) {
	w.Header().Set("Content-Type", mediaType)
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(v) // the client may be gone
}

// frameProblem is what is wrong with a frame: err is of a decoder or of
// Validate.
func frameProblem(index int, err error) *problem {
	status, why := http.StatusBadRequest, reasonInvalid
	var undecodable *avro.DecodeError
	switch {
	case errors.Is(err, oona.ErrTooLarge):
		status, why = http.StatusRequestEntityTooLarge, reasonTooLarge
	case errors.As(err, &undecodable):
		why = reasonUndecodable
	}
	detail, field := err.Error(), ""
	var wrong *oona.FieldError
	if errors.As(err, &wrong) {
		detail, field = wrong.Error(), wrong.Field
		if field == "" { // the frame itself
			detail = wrong.Reason
		}
	} else if errors.As(err, &undecodable) {
		field = undecodable.Field
	}
	p := newProblem(status, why, "%s", detail).ofFrame(index)
	p.Field = field
	return p
}
