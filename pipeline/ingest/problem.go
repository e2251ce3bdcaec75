package ingest

import (
	"bytes"
	"encoding/json"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/morphogenetic/oona/intake"
)

// Reasons besides the ones in package intake. Those up to coding occur with HTTP only.
const (
	reasonUnknown    intake.Reason = "unauthorized"
	reasonForbidden  intake.Reason = "forbidden"
	reasonPath       intake.Reason = "path"
	reasonMethod     intake.Reason = "method"
	reasonMediaType  intake.Reason = "media-type"
	reasonHeader     intake.Reason = "header"
	reasonClock      intake.Reason = "clock"
	reasonRead       intake.Reason = "read"
	reasonCoding     intake.Reason = "coding"
	reasonMismatch   intake.Reason = "mismatch"
	reasonDangling   intake.Reason = "dangling"
	reasonNoStore    intake.Reason = "no-store"
	reasonStore      intake.Reason = "store"
	reasonStoreFull  intake.Reason = "store-full"
	reasonRefused    intake.Reason = "store-refused"
	reasonPublish    intake.Reason = "publish"
	reasonSpoolFull  intake.Reason = "spool-full"
	reasonTimeout    intake.Reason = "timeout"
	reasonPartitions intake.Reason = "partitions"
	reasonNoTopic    intake.Reason = "no-topic"
	reasonSchema     intake.Reason = "schema"
	reasonRegistry   intake.Reason = "registry"
	reasonShare      intake.Reason = "share"

	reasonSlow = reasonRead + "-slow" // answered with another status
)

// answers has the HTTP status and the title of each reason.
var answers = map[intake.Reason]struct {
	status int
	title  string
}{
	reasonUnknown:            {http.StatusUnauthorized, "The client is not known"},
	reasonForbidden:          {http.StatusForbidden, "The client may not do this"},
	reasonPath:               {http.StatusNotFound, "There is nothing at this path"},
	reasonMethod:             {http.StatusMethodNotAllowed, "The method is not allowed"},
	reasonMediaType:          {http.StatusUnsupportedMediaType, "The body's media type or coding is not supported"},
	reasonHeader:             {http.StatusBadRequest, "A header is not valid"},
	reasonClock:              {http.StatusBadRequest, "The client's clock is off"},
	reasonRead:               {http.StatusBadRequest, "The body could not be read"},
	reasonSlow:               {http.StatusRequestTimeout, "The body could not be read"},
	reasonCoding:             {http.StatusBadRequest, "The body does not decompress"},
	intake.ReasonUndecodable: {http.StatusBadRequest, "The body cannot be decoded"},
	intake.ReasonInvalid:     {http.StatusBadRequest, "A frame or an event is not valid"},
	intake.ReasonTooLarge:    {http.StatusRequestEntityTooLarge, "The request is too large"},
	reasonMismatch:           {http.StatusBadRequest, "The tensor is not what was declared"},
	reasonDangling:           {http.StatusBadRequest, "A claim's tensor is not in the store"},
	reasonNoStore:            {http.StatusNotImplemented, "There is no tensor store"},
	reasonStore:              {http.StatusServiceUnavailable, "The tensor store did not take a tensor"},
	reasonStoreFull:          {http.StatusServiceUnavailable, "The tensor store is full"},
	reasonRefused:            {http.StatusServiceUnavailable, "The tensor store refuses ingest"},
	reasonShare:              {http.StatusTooManyRequests, "The client uses its share"},
	intake.ReasonOverloaded:  {http.StatusTooManyRequests, "Too many requests are in flight"},
	reasonPublish:            {http.StatusServiceUnavailable, "The bus did not take the request"},
	reasonSpoolFull:          {http.StatusServiceUnavailable, "The spool is full"},
	reasonTimeout:            {http.StatusServiceUnavailable, "The bus did not answer in time"},
	reasonSchema:             {http.StatusBadRequest, "The schema is not known, or not one of frames"},
	reasonRegistry:           {http.StatusServiceUnavailable, "The schema registry gives no answer"},
	asideStale:               {http.StatusBadRequest, "A frame is too old"},
	asideFuture:              {http.StatusBadRequest, "A frame is of the future"},
	asideMetrics:             {http.StatusBadRequest, "A frame has too many metrics"},
	asideSeeds:               {http.StatusBadRequest, "A frame has too many seeds"},
	asideSize:                {http.StatusBadRequest, "A frame is larger than aggregators take"},
	reasonPartitions:         {http.StatusServiceUnavailable, "The topic's number of partitions has changed"},
	reasonNoTopic:            {http.StatusServiceUnavailable, "The topics of events cannot be used"},
}

// label returns a reason in the form that clients and metrics get.
func label(why intake.Reason) string { return strings.TrimSuffix(string(why), "-slow") }

// problem is the body of the answer to a refused request, after RFC 9457.
type problem struct {
	Type   string `json:"type"`
	Title  string `json:"title"`
	Status int    `json:"status"`
	Detail string `json:"detail"`
	Frame  *int   `json:"frame,omitempty"` // index of the first bad frame
	Event  *int   `json:"event,omitempty"` // index of the first bad event
	Field  string `json:"field,omitempty"` // of that frame or event
}

// writeProblem answers a refused request. The answer has a Content-Length, so that the client
// knows where it ends while the connection is still open.
func writeProblem(w http.ResponseWriter, r *intake.Refusal) {
	if r.Retry > 0 {
		w.Header().Set("Retry-After", strconv.Itoa(int(r.Retry/time.Second)))
	}
	as := answers[r.Reason]
	var text bytes.Buffer
	_ = json.NewEncoder(&text).Encode(problem{ // strings and numbers
		"urn:oona:problem:" + label(r.Reason), as.title, as.status, r.Detail, r.Frame, r.Event, r.Field,
	})
	w.Header().Set("Content-Type", "application/problem+json")
	w.Header().Set("Content-Length", strconv.Itoa(text.Len()))
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(as.status)
	_, _ = w.Write(text.Bytes()) // the client may be gone
}
