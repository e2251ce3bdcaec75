package simulate

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/windows"
	"github.com/morphogenetic/oona/windows/model"
)

// These tests use the default configuration. Trainers send one frame a second. Times are in
// seconds after origin, which is the start of a window.

// outage is a log that is being made.
type outage struct {
	arrivals []pending
	sequence int64
}

// sender is a trainer, with the path on which its frames arrive.
type sender struct {
	run      oona.RunID
	timeline oona.TimelineID
	path     func(second int) string
	// arrives returns when a frame that was observed at second is in the log.
	arrives func(second int, path string) float64
}

func at(seconds float64) oona.Micros { return origin + oona.Micros(seconds*1e6) }

// soon returns when a frame arrives without an outage.
func soon(second int, _ string) float64 { return float64(second) + 0.2 }

func via(path string) func(int) string { return func(int) string { return path } }

// send lets a trainer run from one second to another.
func (o *outage) send(s sender, from, to int) {
	for second := from; second < to; second++ {
		o.sequence++
		path := s.path(second)
		o.arrivals = append(o.arrivals, pending{at(s.arrives(second, path)), windows.Record{
			Path: path, Checksum: uint64(o.sequence),
			Frame: &oona.Frame{
				Run: s.run, Timeline: s.timeline, Layer: "layer", Producer: "trainer", Epoch: origin, Sequence: o.sequence,
				ObservedAt: at(float64(second)), Step: int64(second),
				Seeds: []oona.SeedID{1}, States: []oona.State{oona.Training},
			},
		}})
	}
}

// spool returns a function that returns when frames arrive. From one second to another, they are kept
// in a spool. Then the spool is sent in order, at a rate per second. New frames are sent after it.
func spool(from, to int, perSecond float64) func(second int) float64 {
	return func(second int) float64 {
		arrival := soon(second, "")
		if second < from {
			return arrival
		}
		behind := 0 // number of frames in the spool before this one; the sender sends one per second
		if second > from {
			behind = second - from
		}
		return max(arrival, float64(to)+float64(behind)/perSecond)
	}
}

// result has the outcomes of the frames of a timeline.
type result struct {
	frames, folded int
	ahead          oona.Micros           // the latest observation so far
	disorder       oona.Micros           // the greatest distance of a frame behind it
	late           []oona.Micros         // observation times of the late frames
	closed         map[int64]oona.Micros // append time of the record that closed a window, by its start in seconds
}

// play folds the log, compares the outcomes with the model, and returns the results of each
// run and timeline.
func (o *outage) play(t *testing.T) map[string]*result {
	t.Helper()
	slices.SortStableFunc(o.arrivals, func(a, b pending) int { return int(a.due - b.due) })
	cfg := windows.DefaultConfig()
	engine, err := windows.New(cfg, windows.Always(catalogue))
	if err != nil {
		t.Fatal(err)
	}
	log := model.New(cfg, catalogue)
	results := map[string]*result{}
	of := func(run oona.RunID, timeline oona.TimelineID) *result {
		name := string(run) + "/" + string(timeline)
		if results[name] == nil {
			results[name] = &result{closed: map[int64]oona.Micros{}}
		}
		return results[name]
	}
	for i, arrival := range o.arrivals {
		r := arrival.record
		r.Offset, r.AppendedAt = int64(i), arrival.due
		want := log.Fold(r).Outcome
		got := engine.Fold(r, func(rollup *oona.Rollup) {
			of(rollup.Run, rollup.Timeline).closed[int64(rollup.Start-origin)/1e6] = r.AppendedAt
		})
		if got.Verdict != want.Verdict || got.Reason != want.Reason {
			t.Fatalf("the frame observed at %s is %s (%s), the model says %s (%s)", seconds(r.Frame.ObservedAt), got.Verdict, got.Detail, want.Verdict, want.Reason)
		}
		res := of(r.Frame.Run, r.Frame.Timeline)
		res.frames++
		res.ahead = max(res.ahead, r.Frame.ObservedAt)
		res.disorder = max(res.disorder, res.ahead-r.Frame.ObservedAt)
		switch got.Verdict {
		case windows.Folded:
			res.folded++
		case windows.Late:
			res.late = append(res.late, r.Frame.ObservedAt)
		default:
			t.Fatalf("the frame observed at %s is %s: %s", seconds(r.Frame.ObservedAt), got.Verdict, got.Detail)
		}
	}
	return results
}

// lateOf checks that the late frames are those that were observed after the sender was disconnected, in
// the window in which this happened.
func (r *result) lateOf(t *testing.T, cutOff int) {
	t.Helper()
	length := int(windows.DefaultConfig().Length / time.Second)
	end := (cutOff + length - 1) / length * length
	if want := end - cutOff; len(r.late) != want {
		t.Errorf("%d frames are late, want the %d that were left of the window", len(r.late), want)
	}
	for _, observed := range r.late {
		if observed < at(float64(cutOff)) || observed >= at(float64(end)) {
			t.Errorf("the frame observed at %s is late, and is not in the window that closed early", seconds(observed))
		}
	}
	if r.folded+len(r.late) != r.frames || r.frames == 0 {
		t.Errorf("%d frames folded and %d late, of %d", r.folded, len(r.late), r.frames)
	}
}

// none checks that no frame is late.
func (r *result) none(t *testing.T, who string) {
	t.Helper()
	if len(r.late) > 0 || r.folded != r.frames || r.frames == 0 {
		t.Errorf("%s: %d late and %d folded of %d, want none late", who, len(r.late), r.folded, r.frames)
	}
}

// punctual checks that all windows from one second to another have closed without waiting for another
// sender.
func (r *result) punctual(t *testing.T, who string, from, to int64) {
	t.Helper()
	cfg := windows.DefaultConfig()
	length := int64(cfg.Length / time.Second)
	for start := from; start+length <= to; start += length {
		due := at(float64(start+length)) + oona.Micros((cfg.AllowedLateness + cfg.OutOfOrderness + 2*cfg.TickInterval).Microseconds())
		if closed, done := r.closed[start]; !done || closed > due {
			t.Errorf("%s: the window at %ds closed at %s, want it by %s", who, start, seconds(closed), seconds(due))
		}
	}
}

func TestOnlyTrainerOfARunCutOffForAnHour(t *testing.T) {
	const hour, end = 3600, 5000
	for _, cutOff := range []int{600, 603, 609} {
		t.Run(fmt.Sprint(cutOff), func(t *testing.T) {
			var o outage
			way := spool(cutOff, cutOff+hour, 20)
			o.send(sender{run: "cut-off", path: via("in0"), arrives: func(second int, _ string) float64 { return way(second) }}, 0, end)
			o.send(sender{run: "other", path: via("in0"), arrives: soon}, 0, end)
			o.send(sender{run: "another", path: via("in1"), arrives: soon}, 0, end)
			results := o.play(t)
			cut := results["cut-off/"]
			t.Logf("cut off for an hour, %d s into a window: %d of %d frames are late", cutOff%10, len(cut.late), cut.frames)
			cut.lateOf(t, cutOff)
			results["other/"].none(t, "another run")
			results["another/"].none(t, "another run")
			results["other/"].punctual(t, "another run", 0, end-20)
		})
	}
}

func TestBusDownForFiveMinutes(t *testing.T) {
	const down, up, end = 607, 907, 1500
	for _, slow := range []float64{2, 5} {
		t.Run(fmt.Sprint(slow), func(t *testing.T) {
			var o outage
			fast, slow := spool(down, up, 200), spool(down, up, slow)
			arrives := func(second int, path string) float64 {
				if path == "in0" {
					return fast(second)
				}
				return slow(second)
			}
			alternating := func(second int) string { return fmt.Sprint("in", second%2) }
			o.send(sender{run: "balanced", path: alternating, arrives: arrives}, 0, end)
			o.send(sender{run: "fast", path: via("in0"), arrives: arrives}, 0, end)
			o.send(sender{run: "slow", path: via("in1"), arrives: arrives}, 0, end)
			results := o.play(t)
			frames, late := 0, 0
			for who, r := range results {
				r.none(t, who)
				frames, late = frames+r.frames, late+len(r.late)
			}
			disorder := results["balanced/"].disorder
			t.Logf("bus down for five minutes, two spools drained in %.1f s and %.1f s, %s apart: %d of %d frames are late", fast(up-1)-up, slow(up-1)-up, short(disorder), late, frames)
			if disorder < 60e6 {
				t.Errorf("the replicas were %s apart at most, which shows nothing", short(disorder))
			}
		})
	}
}

func TestRankThatOwnsItsLayersCutOff(t *testing.T) {
	const cutOff, back, end = 604, 1504, 2500
	var o outage
	way := spool(cutOff, back, 20)
	o.send(sender{run: "run", timeline: "rank0", path: via("in0"), arrives: soon}, 0, end)
	o.send(sender{run: "run", timeline: "rank1", path: via("in0"), arrives: func(second int, _ string) float64 { return way(second) }}, 0, end)
	results := o.play(t)
	cut := results["run/rank1"]
	t.Logf("one rank cut off for 15 minutes: %d of its %d frames are late", len(cut.late), cut.frames)
	cut.lateOf(t, cutOff)
	results["run/rank0"].none(t, "the other rank")
	results["run/rank0"].punctual(t, "the other rank", 0, end-20)
}

func TestReplicaCutOffForTwelveSeconds(t *testing.T) {
	for _, cutOff := range []int{600, 601, 605, 608} {
		var o outage
		way := spool(cutOff, cutOff+12, 10)
		o.send(sender{
			run: "run", path: func(second int) string { return fmt.Sprint("in", second%2) },
			arrives: func(second int, path string) float64 {
				if path == "in1" {
					return way(second)
				}
				return soon(second, path)
			},
		}, 0, 1200)
		r := o.play(t)["run/"]
		t.Logf("one of two replicas cut off for 12 s, %d s into a window: %d of %d frames are late", cutOff%10, len(r.late), r.frames)
		r.none(t, "the run")
		if r.disorder < 9e6 {
			t.Errorf("the replicas were %s apart at most, which shows nothing", short(r.disorder))
		}
	}
}
