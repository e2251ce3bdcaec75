package export_test

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/bus"
	"github.com/morphogenetic/oona/pipeline/export"
	"github.com/morphogenetic/oona/schemas/avro"
)

// endOf returns the end of a run that long ago.
func endOf(run oona.RunID, ago time.Duration) *oona.RunEnd {
	return &oona.RunEnd{Run: run, At: oona.MicrosOf(time.Now().Add(-ago)), Step: 7, Outcome: oona.RunFailed, Reason: "out of memory"}
}

// A run is ended from the time its trainer says so until windows come that began later.
func TestRunEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := start(t, func(c *export.Config) { c.SilentAfter, c.RunKept = time.Minute, time.Hour })
		end := func(e *oona.RunEnd) {
			t.Helper()
			if !f.stage.End(e, e.At.Time(), time.Now()) {
				t.Fatalf("the end of %s is not kept", e.Run)
			}
		}
		state := func(want float64) {
			t.Helper()
			f.expect(want, "kasmina_run_state", "run=a")
			if want != 2 {
				f.absent("kasmina_run_end_timestamp_seconds")
			}
		}
		first := endOf("a", 5*time.Second)
		end(first) // before the first window is read
		f.absent("kasmina_run_state")
		f.send(rollup(oona.Health, "a", "1")) // of the last ten seconds
		state(2)
		f.expect(float64(first.At)/1e6, "kasmina_run_end_timestamp_seconds", "run=a", "outcome=FAILED")

		time.Sleep(30 * time.Second)
		f.send(rollup(oona.Health, "a", "1")) // resumed
		state(1)
		end(endOf("a", 25*time.Second)) // before the latest window, which began 10 s ago
		state(1)
		stopped := endOf("a", 10*time.Second) // when it began
		stopped.Outcome = oona.RunStopped
		end(stopped)
		state(2)
		end(endOf("a", 25*time.Second)) // an earlier one does not replace it
		f.expect(float64(stopped.At)/1e6, "kasmina_run_end_timestamp_seconds", "run=a", "outcome=STOPPED")

		time.Sleep(2 * time.Minute)
		state(2) // not silent
		f.send(ended(30*time.Second, oona.Health, "a", "1"))
		state(1)
		time.Sleep(2 * time.Minute)
		state(0)
		time.Sleep(time.Hour)
		f.absent("kasmina_run_state")
		f.absent("kasmina_run_end_timestamp_seconds")
	})
}

// The ends of runs whose windows are not read are bounded: the earliest makes room, and those of
// runs that are known stay. They are kept for as long as runs are.
func TestRunEndsAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := start(t, func(c *export.Config) { c.MaxRuns, c.RunKept = 2, time.Hour })
		end := func(run oona.RunID, ago time.Duration, want bool) {
			t.Helper()
			e := endOf(run, ago)
			if kept := f.stage.End(e, e.At.Time(), time.Now()); kept != want {
				t.Errorf("the end of %s is kept: %t", run, kept)
			}
		}
		ends := func(want ...oona.RunID) {
			t.Helper()
			if got := f.stage.Ends(); fmt.Sprint(got) != fmt.Sprint(want) {
				t.Errorf("ends of %v are kept, want %v", got, want)
			}
		}
		f.send(ended(40*time.Minute, oona.Health, "known", "1"))
		end("known", 30*time.Minute, true)
		end("long", 61*time.Minute, true) // and not kept
		for i := range 3 {
			end(oona.RunID(fmt.Sprint("r", i)), time.Duration(10-i)*time.Minute, true)
		}
		ends("known", "r0", "r1", "r2")
		end("early", 20*time.Minute, false)
		end("r3", 0, true)
		ends("known", "r1", "r2", "r3")
		time.Sleep(55 * time.Minute)
		f.gather()
		ends("known", "r3")
		time.Sleep(10 * time.Minute)
		f.gather()
		ends()
	})
}

// The status of a run says how it ended, even if no window of it was read.
func TestStatusOfARunThatHasEnded(t *testing.T) {
	a := ask(t)
	a.send(rollup(oona.Performance, "r", "enc.1"))
	for _, run := range []oona.RunID{"r", "without"} {
		e := endOf(run, time.Second)
		a.stage.End(e, e.At.Time(), time.Now())
		said := a.want(http.StatusOK, "?run="+string(run))
		if said.State != "ended" || said.Ended == nil || !said.Ended.At.Equal(e.At.Time()) || said.Ended.Outcome != "FAILED" || said.Ended.Reason != e.Reason || said.Ended.Step != 7 || (said.LastWindow != nil) != (run == "r") {
			t.Errorf("the status is %+v", said)
		}
		text := a.get("?run="+string(run), "Accept", "text/plain").Body.String()
		for _, want := range []string{"ended at " + stampOf(e.At), "FAILED", "step 7", e.Reason} {
			if !strings.Contains(text, want) {
				t.Errorf("the text lacks %q:\n%s", want, text)
			}
		}
	}
	a.send(ended(-time.Minute, oona.Performance, "r", "enc.1"))
	if said := a.want(http.StatusOK, "?run=r"); said.State != "live" || said.Ended != nil {
		t.Errorf("after it was resumed, the status is %+v", said)
	}
}

// The end of a run that is known is kept, even if those of all others are later: the partitions are
// read at the same time, so an earlier end may come last.
func TestEndOfAKnownRunIsKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := start(t, func(c *export.Config) { c.MaxRuns, c.RunKept = 2, time.Hour })
		f.send(rollup(oona.Health, "known", "1"))
		now := time.Now()
		for i := range 4 {
			f.stage.End(endOf(oona.RunID(fmt.Sprintf("r%d", i)), 0), now, now)
		}
		if !f.stage.End(endOf("known", time.Second), now.Add(-time.Second), now) {
			t.Error("the end of a run that is known is not kept")
		}
		f.expect(2, "kasmina_run_state", "run=known")
	})
}

// The topic of ends of runs is read. Records that are no ends, ends of the future and ends beyond
// the limit are counted.
func TestRunEndsAreRead(t *testing.T) {
	l := newTape(t, 1)
	if _, err := l.bus.Apply(t.Context(), []oona.TopicSpec{{Name: topics.RunEnded, Partitions: 1}}); err != nil {
		t.Fatal(err)
	}
	last := endOf("last", 0)
	future := endOf("future", -2*time.Minute)
	invalid := endOf("invalid", 0)
	invalid.Step = -1
	for _, value := range [][]byte{
		avro.AppendRunEnd(nil, endOf("hidden", 0)), avro.AppendRunEnd(nil, future), avro.AppendRunEnd(nil, invalid), []byte("rubbish"),
		append(avro.AppendRunEnd(nil, endOf("r", 0)), 0), avro.AppendRunEnd(nil, last),
	} {
		if err := l.publisher.Publish(t.Context(), topics.RunEnded, bus.NewMessage(value, bus.Target{Key: []byte("k")})); err != nil {
			t.Fatal(err)
		}
	}
	registry := prometheus.NewPedanticRegistry()
	cfg := export.DefaultConfig()
	x, err := export.NewTransitions(cfg, registry, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var read []oona.RunEnd
	err = x.Run(ctx, l.reader, func(e *oona.RunEnd, appended, now time.Time) bool {
		if appended.After(now) || now.Sub(appended) > time.Hour {
			t.Errorf("the end of %s was appended at %s, and now is %s", e.Run, appended, now)
		}
		read = append(read, *e)
		if e.Run == last.Run {
			cancel()
		}
		return e.Run != "hidden"
	})
	if err != nil {
		t.Error(err)
	}
	if len(read) != 2 || read[0].Run != "hidden" || read[1] != *last {
		t.Errorf("%+v was read", read)
	}
	f := &fixture{t: t, registry: registry}
	f.expect(3, "oona_exporter_undecodable_events_total")
	f.expect(1, "oona_exporter_future_events_total")
	f.expect(1, "oona_exporter_hidden_events_total")
}
