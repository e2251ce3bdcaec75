package ingest

import (
	"fmt"
	"net/http"
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	"github.com/morphogenetic/oona/intake"
)

func TestClock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) { // the clock stands at 2000-01-01
		now := time.Now().UnixMicro()
		const second = 1_000_000
		good := frames(nil)
		for name, c := range map[string]struct {
			sent   string
			code   int
			reason intake.Reason
		}{
			"31 s behind":       {strconv.FormatInt(now-31*second, 10), 400, reasonClock},
			"31 s ahead":        {strconv.FormatInt(now+31*second, 10), 400, reasonClock},
			"just above":        {strconv.FormatInt(now+30*second+1, 10), 400, reasonClock},
			"in seconds":        {strconv.FormatInt(now/second, 10), 400, reasonClock},
			"in milliseconds":   {strconv.FormatInt(now/1000, 10), 400, reasonClock},
			"in nanoseconds":    {strconv.FormatInt(now*1000, 10), 400, reasonClock},
			"the greatest time": {"9223372036854775807", 400, reasonClock},
			"the least time":    {"-9223372036854775808", 400, reasonClock},
			"too great":         {"9223372036854775808", 400, reasonHeader},
			"a date":            {"2000-01-01T00:00:00Z", 400, reasonHeader},
			"a fraction":        {"946684800000000.5", 400, reasonHeader},
			"empty":             {"", 400, reasonHeader},
			"binary":            {"\x01\xff", 400, reasonHeader},
		} {
			goldenLine(t, "clock.txt", name, refused(t, mediaAvro, good, c.code, c.reason, noFrame, "", "Oona-Sent-At", c.sent))
		}
		s := newStage(t, newBus(t), nil)
		for _, off := range []int64{0, 30 * second, -30 * second} {
			if w := post(s, mediaAvro, good, "oona-sent-at", fmt.Sprint(now+off)); w.Code != http.StatusOK {
				t.Errorf("off by %d us: %d %s", off, w.Code, w.Body)
			}
		}
		twice := http.Header{"Oona-Sent-At": {fmt.Sprint(now), fmt.Sprint(now)}}
		if p := s.clockProblem(twice, time.Now()); p == nil || p.Reason != reasonHeader {
			t.Errorf("two times are answered %+v", p)
		}
	})
}
