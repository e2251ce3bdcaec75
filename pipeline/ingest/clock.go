package ingest

import (
	"net/http"
	"strconv"
	"time"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/intake"
)

// sentAt is the header with the time at which the client began to send the request,
// by its own clock, in microseconds since the Unix epoch. The same clock measures
// observed_at.
const sentAt = "Oona-Sent-At"

// clockProblem refuses a request if the client's clock is wrong, because its frames would go to
// quarantine. Without the header, the client's clock is not known, and the request is not refused.
func (s *Stage) clockProblem(h http.Header, now time.Time) *intake.Refusal {
	values := h.Values(sentAt)
	if len(values) == 0 {
		return nil
	}
	micros, err := strconv.ParseInt(values[0], 10, 64)
	if err != nil || len(values) > 1 {
		return intake.Refuse(reasonHeader, "the header %s is %.64q; send it once, with the current time in microseconds since the Unix epoch, such as %d", sentAt, values, now.UnixMicro())
	}
	behind := now.Sub(oona.Micros(micros).Time()).Truncate(time.Microsecond) // Sub does not overflow
	if behind.Abs() <= s.cfg.ClockTolerance {
		return nil
	}
	way := "behind"
	if behind < 0 {
		way = "ahead of"
	}
	return intake.Refuse(reasonClock, "the client's clock is %s %s the clock of ingest, and the limit is %s (the header %s has %d, and the time at ingest is %d); correct the client's clock; if it is correct, set the header to the current time in microseconds for each attempt",
		behind.Abs(), way, s.cfg.ClockTolerance, sentAt, micros, now.UnixMicro())
}
