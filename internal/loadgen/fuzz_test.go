package loadgen

import (
	"net/http"
	"strings"
	"testing"
	"time"
	"unicode/utf8"
)

// FuzzRefusal checks that for any answer, the refusal has a title, a short detail, and a
// bounded wait.
func FuzzRefusal(f *testing.F) {
	f.Add(400, "", []byte(`{"type":"urn:oona:problem:invalid","title":"A frame is not valid","status":400,"detail":"frame 0: step"}`))
	f.Add(503, "5", []byte(`{"title":7}`))
	f.Add(429, "Wed, 21 Oct 2026 07:28:00 GMT", []byte("<html>busy</html>"))
	f.Add(503, "9223372036854775807", []byte(nil))
	f.Add(500, "-1", []byte("\xff\x00"))
	f.Fuzz(func(t *testing.T, status int, after string, answer []byte) {
		r := refusal(&http.Response{StatusCode: status, Header: http.Header{"Retry-After": {after}}}, answer)
		if r.Status != status || len(r.Detail) > len(answer)+3*strings.Count(r.Detail, string(utf8.RuneError)) {
			t.Errorf("refusal is %+v", r)
		}
		if status == http.StatusServiceUnavailable && r.Title == "" {
			t.Error("no title")
		}
		if wait := retryAfter(after, time.Now()); wait > 0 && r.after <= 0 {
			t.Errorf("the wait is %s, then %s", wait, r.after)
		}
		_ = retriable(r)
	})
}
