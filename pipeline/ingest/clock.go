package ingest

import (
	"net/http"
	"strconv"
	"time"

	"github.com/morphogenetic/oona"
)

// sentAt is the header with a client's clock as it began to send a request, in
// microseconds since the Unix epoch: as observed_at, which the same clock
// measures.
const sentAt = "Oona-Sent-At"

// clockProblem refuses a request whose client's clock is off: its frames would
// only be found in quarantine. Without the header nothing is known of the clock.
func (s *Stage) clockProblem(h http.Header, now time.Time) *refusal {
	values := h.Values(sentAt)
	if len(values) == 0 {
		return nil
	}
	micros, err := strconv.ParseInt(values[0], 10, 64)
	if err != nil || len(values) > 1 {
		return refuse(reasonHeader, "%s is %.64q; give the time of sending once, in microseconds since the Unix epoch, such as %d", sentAt, values, now.UnixMicro())
	}
	behind := now.Sub(oona.Micros(micros).Time()).Truncate(time.Microsecond) // saturates
	if behind.Abs() <= s.cfg.ClockTolerance {
		return nil
	}
	way := "behind"
	if behind < 0 {
		way = "ahead of"
	}
	return refuse(reasonClock, "the client's clock is %s %s ingest's, more than %s (%s: %d; here it is %d); set the clock, or send in microseconds and anew with each attempt",
		behind.Abs(), way, s.cfg.ClockTolerance, sentAt, micros, now.UnixMicro())
}
