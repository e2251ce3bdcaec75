package ingest

import (
	"bytes"
	"encoding/json"
	"net/http"
	"strconv"
	"time"
)

// answers has the HTTP status and the title of each reason.
var answers = map[reason]struct {
	status int
	title  string
}{
	reasonPath:        {http.StatusNotFound, "There is nothing at this path"},
	reasonMethod:      {http.StatusMethodNotAllowed, "The method is not allowed"},
	reasonMediaType:   {http.StatusUnsupportedMediaType, "The body's media type or coding is not supported"},
	reasonHeader:      {http.StatusBadRequest, "A header is not valid"},
	reasonClock:       {http.StatusBadRequest, "The client's clock is off"},
	reasonRead:        {http.StatusBadRequest, "The body could not be read"},
	reasonCoding:      {http.StatusBadRequest, "The body does not decompress"},
	reasonUndecodable: {http.StatusBadRequest, "The body is not made of frames"},
	reasonInvalid:     {http.StatusBadRequest, "A frame is not valid"},
	reasonTooLarge:    {http.StatusRequestEntityTooLarge, "The request is too large"},
	reasonMismatch:    {http.StatusBadRequest, "The tensor is not what was declared"},
	reasonDangling:    {http.StatusBadRequest, "A claim's tensor is not in the store"},
	reasonNoStore:     {http.StatusNotImplemented, "There is no tensor store"},
	reasonStore:       {http.StatusServiceUnavailable, "The tensor store did not take a tensor"},
	reasonStoreFull:   {http.StatusServiceUnavailable, "The tensor store is full"},
	reasonRefused:     {http.StatusServiceUnavailable, "The tensor store refuses ingest"},
	reasonOverloaded:  {http.StatusTooManyRequests, "Too many requests are in flight"},
	reasonPublish:     {http.StatusServiceUnavailable, "The bus did not take the frames"},
	reasonTimeout:     {http.StatusServiceUnavailable, "The bus did not answer in time"},
	reasonPartitions:  {http.StatusServiceUnavailable, "The topic's number of partitions has changed"},
}

// statusOf returns the status of the answer to a refused request.
func statusOf(r *refusal) int {
	if r.slow {
		return http.StatusRequestTimeout
	}
	return answers[r.reason].status
}

// problem is the body of that answer, after RFC 9457.
type problem struct {
	Type   string `json:"type"`
	Title  string `json:"title"`
	Status int    `json:"status"`
	Detail string `json:"detail"`
	Frame  *int   `json:"frame,omitempty"` // index of the first bad frame
	Field  string `json:"field,omitempty"` // of that frame
}

// writeProblem answers a refused request. The answer has its length, so that the
// client knows where it ends while the connection is still open.
func writeProblem(w http.ResponseWriter, r *refusal) {
	if r.retry > 0 {
		w.Header().Set("Retry-After", strconv.Itoa(int(r.retry/time.Second)))
	}
	var text bytes.Buffer
	_ = json.NewEncoder(&text).Encode(problem{ // strings and numbers
		"urn:oona:problem:" + string(r.reason), answers[r.reason].title, statusOf(r), r.detail, r.frame, r.field,
	})
	w.Header().Set("Content-Type", "application/problem+json")
	w.Header().Set("Content-Length", strconv.Itoa(text.Len()))
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(statusOf(r))
	_, _ = w.Write(text.Bytes()) // the client may be gone
}
