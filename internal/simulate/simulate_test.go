package simulate

import (
	"flag"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/morphogenetic/oona/windows"
)

var (
	scheduleCount = flag.Uint64("schedules", 0, "number of schedules to play; 0 means as many as fit into 15 seconds")
	firstSeed     = flag.Uint64("seed", 0, "seed of the first schedule; without -schedules, only this one is played")
)

// plainTime is how long TestSchedules runs if no number of schedules is given.
const plainTime = 15 * time.Second

// run plays a schedule and checks the results.
func run(s schedule) (counts, error) {
	p, err := newPartition(s.cfg)
	if err != nil {
		return counts{}, err
	}
	for i, e := range s.events {
		if err := p.play(e); err != nil {
			return p.counts, fmt.Errorf("event %d (%s): %w", i, e.kind, err)
		}
	}
	if err := p.finish(s.settle); err != nil {
		return p.counts, fmt.Errorf("at the end: %w", err)
	}
	return p.counts, p.read()
}

func (k kind) String() string { return kindNames[k] }

// TestSchedules plays many schedules on all processors: the number in -schedules, or as
// many as fit into plainTime.
func TestSchedules(t *testing.T) {
	count, began := *scheduleCount, time.Now()
	if given("seed") && count == 0 {
		count = 1
	}
	over := func(started uint64) bool { // beyond the number, or the time
		if count == 0 {
			return time.Since(began) > plainTime
		}
		return started >= count
	}
	var (
		next    atomic.Uint64
		workers sync.WaitGroup
		guard   sync.Mutex // guards the variables below
		total   counts
		played  uint64
		failed  *uint64 // the smallest seed that has failed
	)
	stopped := func(seed uint64) bool {
		guard.Lock()
		defer guard.Unlock()
		return failed != nil && seed > *failed
	}
	for range runtime.GOMAXPROCS(0) {
		workers.Go(func() {
			for {
				number := next.Add(1) - 1
				seed := *firstSeed + number
				if over(number) || stopped(seed) {
					return
				}
				c, err := run(newSchedule(seed))
				guard.Lock()
				played++
				total.add(c)
				if err != nil && (failed == nil || seed < *failed) {
					failed = &seed
				}
				guard.Unlock()
			}
		})
	}
	workers.Wait()
	if failed != nil {
		t.Fatal(report(*failed))
	}
	t.Logf("%d schedules: %s", played, total) // TestDirectedSchedules requires the rare events
}

func given(name string) (set bool) {
	flag.Visit(func(f *flag.Flag) { set = set || f.Name == name })
	return set
}

func (c *counts) add(d counts) {
	into, from := c.named(), d.named()
	for i := range into {
		*into[i].n += *from[i].n
	}
	for v, n := range d.verdicts {
		c.verdicts[v] += n
	}
}

type named struct {
	name string
	n    *int
}

// named lists everything that is counted, except for verdicts.
func (c *counts) named() []named {
	list := []named{
		{"records", &c.records}, {"rollups", &c.rollups}, {"re-emissions", &c.reEmissions}, {"repeats in side topics", &c.sideRepeats},
		{"replayed records", &c.replayed}, {"redeliveries", &c.redelivered}, {"ticks", &c.ticks}, {"ticks by zombies", &c.zombieTicks},
		{"crashes", &c.crashes}, {"crashes before publishing", &c.unpublished}, {"crashes before committing", &c.uncommitted},
		{"take-overs", &c.takeOvers}, {"lost group offsets", &c.losses},
		{"lost beginnings of logs", &c.beginningsLost}, {"commits overtaken by a lost beginning", &c.overtaken}, {"frames in suppressed windows", &c.model.Suppressed},
		{"rollups after a loss", &c.rollupsAfterLoss}, {"rollups after a loss that equal the whole log's", &c.likeTheWhole},
		{"folds by zombies", &c.zombieFolds}, {"publications by zombies", &c.zombiePublications}, {"commits by zombies", &c.zombieCommits},
		{"commits", &c.commits}, {"aged commits", &c.agedCommits}, {"commits that are too long", &c.tooLong},
		{"append times that step back by 15 s and more", &c.back}, {"append times that leap by 690 s and more", &c.leaps},
		{"timelines evicted", &c.model.Evicted}, {"timelines forgotten", &c.model.Forgotten}, {"windows sealed", &c.model.Sealed}, {"frames in windows still open", &c.stillOpen},
		{"logs that begin with a configuration", &c.model.Firsts}, {"configurations after that", &c.model.Configured}, {"configurations that begin within a window", &c.model.Rounded},
		{"configurations with two others that have not expired", &c.model.SeveralInReach}, {"configurations that expired", &c.model.Expired}, {"frames of their time", &c.model.OutOfReach},
		{"configurations void as unsound", &c.model.VoidUnsound}, {"configurations void as too early", &c.model.VoidEarly}, {"configurations void as before the last one", &c.model.VoidOrder},
		{"configurations void by generation", &c.model.VoidGeneration}, {"configurations void by slots", &c.model.VoidSlots},
		{"sightings under another idle horizon", &c.model.Rescaled},
		{"records after which a timeline has windows of two configurations", &c.model.Straddling}, {"windows sealed under an earlier configuration", &c.model.SealedEarlier},
		{"timelines forgotten between configurations", &c.model.ForgottenBetween}, {"newcomers to more timelines than are admitted now", &c.model.FewerRoom},
		{"commits by zombies that have not read a configuration", &c.unreadCommits}, {"configurations in replays", &c.readAgain}, {"configurations after the commit", &c.readAnew},
	}
	for i, r := range notFolded {
		list = append(list, named{"frames refused as " + string(r), &c.reasons[i]})
	}
	return list
}

// notFolded are the reasons for which a frame is not folded.
var notFolded = [...]windows.Reason{
	windows.ReasonDuplicate, windows.ReasonLate, windows.ReasonFuture, windows.ReasonStale, windows.ReasonConflict,
	windows.ReasonTimelines, windows.ReasonLost, windows.ReasonLayers, windows.ReasonMetrics, windows.ReasonSeeds, windows.ReasonSealed,
}

func (c counts) String() string {
	s := ""
	for _, n := range c.named() {
		s += fmt.Sprintf("%d %s, ", *n.n, n.name)
	}
	for v, n := range c.verdicts {
		s += fmt.Sprintf("%d %s, ", n, windows.Verdict(v))
	}
	return strings.TrimSuffix(s, ", ")
}
