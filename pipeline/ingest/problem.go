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

// The reasons for a refusal that package intake does not define. Those up to reasonCoding are only
// used for HTTP requests.
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

	// reasonSlow has the label of reasonRead, but another HTTP status.
	reasonSlow = reasonRead + "-slow"
)

// answers maps each reason to the HTTP status and the title of the answer.
var answers = map[intake.Reason]struct {
	status int
	title  string
}{
	reasonUnknown:            {http.StatusUnauthorized, "The request has no valid credentials"},
	reasonForbidden:          {http.StatusForbidden, "The client does not have permission for this request"},
	reasonPath:               {http.StatusNotFound, "The path does not exist"},
	reasonMethod:             {http.StatusMethodNotAllowed, "The path does not support this method"},
	reasonMediaType:          {http.StatusUnsupportedMediaType, "The media type or the coding of the body is not supported"},
	reasonHeader:             {http.StatusBadRequest, "A header is not valid"},
	reasonClock:              {http.StatusBadRequest, "The client's clock is wrong"},
	reasonRead:               {http.StatusBadRequest, "The body could not be read"},
	reasonSlow:               {http.StatusRequestTimeout, "The body arrived too slowly"},
	reasonCoding:             {http.StatusBadRequest, "The body could not be decompressed"},
	intake.ReasonUndecodable: {http.StatusBadRequest, "The body could not be decoded"},
	intake.ReasonInvalid:     {http.StatusBadRequest, "A frame or an event is not valid"},
	intake.ReasonTooLarge:    {http.StatusRequestEntityTooLarge, "The request is too large"},
	reasonMismatch:           {http.StatusBadRequest, "The tensor does not match its declared size or digest"},
	reasonDangling:           {http.StatusBadRequest, "The tensor of a claim is not in the tensor store"},
	reasonNoStore:            {http.StatusNotImplemented, "This ingest has no tensor store"},
	reasonStore:              {http.StatusServiceUnavailable, "The tensor store did not store a tensor"},
	reasonStoreFull:          {http.StatusServiceUnavailable, "The tensor store is full"},
	reasonRefused:            {http.StatusServiceUnavailable, "The tensor store refuses the requests of ingest"},
	reasonShare:              {http.StatusTooManyRequests, "The client has reached its limit"},
	intake.ReasonOverloaded:  {http.StatusTooManyRequests, "Ingest is processing as many requests as it can"},
	reasonPublish:            {http.StatusServiceUnavailable, "The bus did not accept the request"},
	reasonSpoolFull:          {http.StatusServiceUnavailable, "The spool is full"},
	reasonTimeout:            {http.StatusServiceUnavailable, "The bus did not acknowledge the request in time"},
	reasonSchema:             {http.StatusBadRequest, "The schema is unknown or is not a schema of frames"},
	reasonRegistry:           {http.StatusServiceUnavailable, "The schema registry does not answer"},
	asideStale:               {http.StatusBadRequest, "A frame is too old"},
	asideFuture:              {http.StatusBadRequest, "A frame is too far in the future"},
	asideMetrics:             {http.StatusBadRequest, "A frame has too many metrics"},
	asideSeeds:               {http.StatusBadRequest, "A frame has too many seeds"},
	asideSize:                {http.StatusBadRequest, "A frame is too large for the aggregators"},
	reasonPartitions:         {http.StatusServiceUnavailable, "The number of partitions of the topic has changed"},
	reasonNoTopic:            {http.StatusServiceUnavailable, "Events cannot be published to their topic"},
}

// label returns the name of a reason in answers and in metrics.
func label(why intake.Reason) string { return strings.TrimSuffix(string(why), "-slow") }

// problem is the body of the answer to a refused request, in the format of RFC 9457.
type problem struct {
	Type   string `json:"type"`
	Title  string `json:"title"`
	Status int    `json:"status"`
	Detail string `json:"detail"`
	Frame  *int   `json:"frame,omitempty"` // index of the first bad frame
	Event  *int   `json:"event,omitempty"` // index of the first bad event
	Field  string `json:"field,omitempty"` // the field of that frame or event that is at fault
}

// writeProblem answers a refused request. The answer has a Content-Length, so that the client
// knows where it ends while the connection is still open.
func writeProblem(w http.ResponseWriter, r *intake.Refusal) {
	if r.Retry > 0 {
		w.Header().Set("Retry-After", strconv.Itoa(int(r.Retry/time.Second)))
	}
	as := answers[r.Reason]
	var text bytes.Buffer
	_ = json.NewEncoder(&text).Encode(problem{ // has only strings and numbers, so this cannot fail
		"urn:oona:problem:" + label(r.Reason), as.title, as.status, r.Detail, r.Frame, r.Event, r.Field,
	})
	w.Header().Set("Content-Type", "application/problem+json")
	w.Header().Set("Content-Length", strconv.Itoa(text.Len()))
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(as.status)
	_, _ = w.Write(text.Bytes()) // the client may be gone
}
