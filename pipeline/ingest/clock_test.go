package ingest

import (
	"fmt"
	"net/http"
	"strconv"
	"testing"
	"testing/synctest"
	"time"
)

func TestClock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) { // the clock stands at 2000-01-01
		now := time.Now().UnixMicro()
		const second = 1_000_000
		good := frames(nil)
		for name, c := range map[string]struct {
			sent   string
			code   int
			reason reason
			detail string
		}{
			"31 s behind":       {strconv.FormatInt(now-31*second, 10), 400, reasonClock, "the client's clock is 31s behind ingest's, more than 30s"},
			"31 s ahead":        {strconv.FormatInt(now+31*second, 10), 400, reasonClock, "the client's clock is 31s ahead of ingest's, more than 30s"},
			"just above":        {strconv.FormatInt(now+30*second+1, 10), 400, reasonClock, "is 30.000001s ahead of"},
			"in seconds":        {strconv.FormatInt(now/second, 10), 400, reasonClock, "behind"},
			"in milliseconds":   {strconv.FormatInt(now/1000, 10), 400, reasonClock, "behind"},
			"in nanoseconds":    {strconv.FormatInt(now*1000, 10), 400, reasonClock, "ahead"},
			"the greatest time": {"9223372036854775807", 400, reasonClock, "ahead"},
			"the least time":    {"-9223372036854775808", 400, reasonClock, "behind"},
			"too great":         {"9223372036854775808", 400, reasonHeader, "give the time of sending once, in microseconds"},
			"a date":            {"2000-01-01T00:00:00Z", 400, reasonHeader, "Oona-Sent-At is"},
			"a fraction":        {"946684800000000.5", 400, reasonHeader, "in microseconds"},
			"empty":             {"", 400, reasonHeader, "in microseconds"},
			"binary":            {"\x01\xff", 400, reasonHeader, "in microseconds"},
		} {
			goldenLine(t, "clock.txt", name, refused(t, mediaAvro, good, c.code, c.reason, noFrame, "", c.detail, "Oona-Sent-At", c.sent))
		}
		s := newStage(t, newBus(t), nil)
		for _, off := range []int64{0, 30 * second, -30 * second} {
			if w := post(s, mediaAvro, good, "oona-sent-at", fmt.Sprint(now+off)); w.Code != http.StatusOK {
				t.Errorf("off by %d us: %d %s", off, w.Code, w.Body)
			}
		}
		twice := http.Header{"Oona-Sent-At": {fmt.Sprint(now), fmt.Sprint(now)}}
		if p := s.clockProblem(twice, time.Now()); p == nil || p.reason != reasonHeader {
			t.Errorf("two times are answered %+v", p)
		}
	})
}
