package simulate

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/windows"
)

// directed is a schedule that is written by hand, so that a rare event occurs in it.
// Times are in seconds after origin. Windows are ten seconds long unless the schedule
// sets another length.
type directed struct {
	schedule
	now, skew float64
	sent      int64
}

const (
	all    = math.MaxInt // records, or publications
	zombie = 1           // the youngest former owner
)

func direct(build func(*directed)) schedule {
	cfg := windows.DefaultConfig()
	cfg.OutOfOrderness, cfg.AllowedLateness = 0, 0
	cfg.IdleHorizon, cfg.MaxSkew, cfg.MaxDelay = 4*time.Second, 5*time.Second, 20*time.Second
	cfg.FrontierSlots, cfg.Reducer = 1<<30, 2
	d := &directed{schedule: schedule{cfg: cfg, settle: true}}
	build(d)
	return d.schedule
}

func (d *directed) add(e event) {
	e.at, e.skew = at(d.now), oona.Micros(d.skew*1e6)
	d.events = append(d.events, e)
}

func (d *directed) do(k kind, owner, n int) { d.add(event{kind: k, owner: owner, n: n}) }

func (d *directed) append(r windows.Record) { d.add(event{kind: appended, record: r}) }

// frame appends a frame of a run and a layer, as in "run/layer", that was observed at a
// time, and returns the record.
func (d *directed) frame(of string, observed float64, change ...func(*oona.Frame)) windows.Record {
	run, layer, _ := strings.Cut(of, "/")
	d.sent++
	f := &oona.Frame{
		Run: oona.RunID(run), Layer: oona.LayerID(layer), Producer: "trainer", Epoch: origin, Sequence: d.sent,
		ObservedAt: at(observed), Seeds: []oona.SeedID{1}, States: []oona.State{oona.Training},
	}
	for _, c := range change {
		c(f)
	}
	r := windows.Record{Path: "in0", Checksum: uint64(d.sent), Frame: f}
	d.append(r)
	return r
}

// frames appends a frame a second.
func (d *directed) frames(of string, from, to int) {
	for d.now = float64(from); d.now <= float64(to); d.now++ {
		d.frame(of, d.now)
	}
}

// configure appends a configuration that takes effect at a time.
func (d *directed) configure(generation int32, from float64, change func(*windows.Config)) {
	c := windows.Configuration{Config: d.cfg, From: at(from)}
	c.Config.Generation = generation
	if change != nil {
		change(&c.Config)
	}
	d.append(windows.Record{Configuration: &c})
}

// finishWork lets an owner fold, publish and commit everything.
func (d *directed) finishWork(owner int) {
	d.do(fold, owner, all)
	d.do(publish, owner, all)
	d.do(snapshot, owner, 0)
	d.do(commit, owner, 0)
}

// In directedSchedules, each event of counts occurs at least once. In a short run of random schedules
// some may not occur.
var directedSchedules = []struct {
	events string // the events that must occur, as in counts.named, separated by commas
	build  func(*directed)
}{
	{"records, rollups, crashes, crashes before publishing, ticks", func(d *directed) {
		d.frame("run/layer", 0)
		d.now = 11
		d.frame("run/layer", 11) // closes the window from 0 to 10
		d.do(fold, 0, all)
		d.do(crash, 0, 0)
	}},
	{"commits, crashes before committing, replayed records, re-emissions, repeats in side topics, frames refused as late", func(d *directed) {
		d.frame("run/layer", 0)
		d.finishWork(0)
		d.now = 11
		d.frame("run/layer", 11)
		d.frame("run/layer", 5)
		d.do(fold, 0, all)
		d.do(publish, 0, all)
		d.do(crash, 0, 0)
	}},
	{"redeliveries", func(d *directed) {
		d.frame("run/layer", 0)
		d.do(fold, 0, all)
		d.do(redeliver, 0, 0)
	}},
	{"take-overs, folds by zombies, publications by zombies, commits by zombies", func(d *directed) {
		d.frame("run/layer", 0)
		d.now = 11
		d.frame("run/layer", 11)
		d.do(takeOver, 0, 0)
		d.do(fold, 0, all)
		d.finishWork(zombie)
	}},
	{"ticks by zombies", func(d *directed) {
		d.frame("run/layer", 0)
		d.do(takeOver, 0, 0)
		d.add(event{kind: quiet, n: 2, bits: 1 | 4}) // the zombie comes first
	}},
	{"aged commits", func(d *directed) {
		for range 2 {
			d.frame("run/layer", 0)
			d.do(fold, 0, all)
			d.do(snapshot, 0, 0)
		}
		d.do(commit, 0, 1)
		d.do(crash, 0, 0)
	}},
	{"commits that are too long", func(d *directed) {
		d.cfg.MaxTimelines = 2 * windows.MostTimelines
		for i := range d.cfg.MaxTimelines {
			d.frame(fmt.Sprint("run", i, "/layer"), 0)
		}
		d.do(fold, 0, all)
		d.do(snapshot, 0, 0)
	}},
	{"lost group offsets", func(d *directed) {
		d.frames("run/layer", 0, 11)
		d.finishWork(0)
		d.do(loseOffsets, 0, 0)
	}},
	{"append times that step back by 15 s and more, append times that leap by 690 s and more", func(d *directed) {
		for _, d.skew = range []float64{0, -16, 0, 700} {
			d.append(windows.Record{})
		}
	}},

	// Timelines and caps.
	{"timelines evicted", func(d *directed) {
		d.cfg.MaxTimelines = 1
		d.frame("run/layer", 0)
		d.add(event{kind: quiet, n: 10})
		d.now = 15
		d.frame("other/layer", 15)
	}},
	{"timelines forgotten", func(d *directed) {
		d.frame("run/layer", 0)
		d.add(event{kind: quiet, n: 10})
		d.now = 60
		d.frame("other/layer", 60)
	}},
	{"frames refused as timelines", func(d *directed) {
		d.cfg.MaxTimelines = 1
		d.frame("run/layer", 0)
		d.frame("other/layer", 0)
	}},
	{"windows sealed, frames refused as sealed", func(d *directed) {
		d.cfg.MaxAccumulators = 1
		d.frame("run/layer", 0)
		d.frame("run/other", 0)
	}},
	{"frames refused as layers, frames refused as metrics, frames refused as seeds", func(d *directed) {
		d.cfg.MaxLayers, d.cfg.MaxMetrics, d.cfg.MaxSeeds = 1, 1, 1
		d.frame("run/layer", 0)
		d.frame("run/other", 0)
		d.frame("run/layer", 0, func(f *oona.Frame) {
			f.Metrics = []oona.Column{{Name: "gain", Values: []float32{1}}, {Name: "loss", Values: []float32{1}}}
		})
		d.frame("run/layer", 0, func(f *oona.Frame) {
			f.Seeds, f.States = []oona.SeedID{1, 2}, []oona.State{oona.Training, oona.Training}
		})
	}},
	{"frames refused as duplicate, frames refused as conflict", func(d *directed) {
		r := d.frame("run/layer", 0)
		d.append(r)
		r.Checksum++
		d.append(r)
	}},
	{"frames refused as future, frames refused as stale", func(d *directed) {
		d.now = 30
		d.frame("run/layer", 36)
		d.frame("run/layer", 9)
	}},
	{"frames in windows still open", func(d *directed) {
		d.settle = false
		d.frame("run/layer", 0)
	}},

	// Configurations.
	{"logs that begin with a configuration, configurations after that, configurations that begin within a window", func(d *directed) {
		d.configure(1, 0, nil)
		d.configure(2, 25, nil)
		d.frames("run/layer", 1, 35)
	}},
	{"configurations in replays", func(d *directed) {
		d.frame("run/layer", 0)
		d.configure(1, 30, nil)
		d.finishWork(0)
		d.do(crash, 0, 0)
	}},
	{"configurations after the commit", func(d *directed) {
		d.frame("run/layer", 0)
		d.finishWork(0)
		d.configure(1, 30, nil)
		d.do(fold, 0, all)
		d.do(crash, 0, 0)
	}},
	{"commits by zombies that have not read a configuration", func(d *directed) {
		d.frame("run/layer", 0)
		d.do(takeOver, 0, 0)
		d.finishWork(zombie)
		d.configure(1, 30, nil)
		d.do(fold, 0, all)
		d.do(snapshot, zombie, 0)
		d.do(commit, zombie, 0)
		d.do(crash, 0, 0)
	}},
	{"configurations with two others that have not expired, configurations that expired, frames of their time", func(d *directed) {
		d.frame("run/layer", 0)
		d.configure(1, 30, nil)
		d.configure(2, 60, nil)
		d.do(fold, 0, all)
		d.add(event{kind: quiet, n: 10})
		d.now, d.skew = 10, 700 // the leader's clock
		d.append(windows.Record{})
		d.skew = 0
		d.frame("run/layer", 9)
	}},
	{"configurations void as unsound, configurations void as too early, configurations void as before the last one, configurations void by generation, configurations void by slots", func(d *directed) {
		d.frame("run/layer", 0)
		d.configure(1, 60, nil)
		d.configure(2, 90, func(c *windows.Config) { c.Length = 0 })
		d.configure(2, 5, nil)
		d.configure(2, 50, nil)
		d.configure(1, 90, nil)
		d.configure(2, 90, func(c *windows.Config) { c.FrontierSlots-- })
	}},
	{"sightings under another idle horizon", func(d *directed) {
		d.frames("run/layer", 0, 3)
		d.configure(1, 30, func(c *windows.Config) { c.IdleHorizon = 9 * time.Second })
		d.frames("run/layer", 4, 40)
	}},
	{"records after which a timeline has windows of two configurations", func(d *directed) {
		d.cfg.AllowedLateness = 5 * time.Second
		d.frame("run/layer", 0)
		d.configure(1, 30, func(c *windows.Config) { c.Length = 7 * time.Second })
		d.frames("run/layer", 25, 32)
	}},
	{"windows sealed under an earlier configuration", func(d *directed) {
		d.frame("run/layer", 0)
		d.configure(1, 30, func(c *windows.Config) { c.MaxAccumulators = 1 })
		d.frame("run/other", 0)
	}},
	{"timelines forgotten between configurations", func(d *directed) {
		d.frame("run/layer", 0)
		d.configure(1, 500, nil)
		d.do(fold, 0, all)
		d.add(event{kind: quiet, n: 10})
		d.now = 60
		d.frame("other/layer", 60)
	}},
	{"newcomers to more timelines than are admitted now", func(d *directed) {
		d.frame("run/layer", 0)
		d.frame("other/layer", 0)
		d.configure(1, 30, func(c *windows.Config) { c.MaxTimelines = 1 })
		d.frame("third/layer", 0)
	}},

	// Logs that lose their beginning.
	{"lost beginnings of logs, frames in suppressed windows, frames refused as lost-history, rollups after a loss, rollups after a loss that equal the whole log's", func(d *directed) {
		d.frames("run/layer", 0, 20)
		d.finishWork(0)
		d.add(event{kind: loseBeginning, bits: 2 | 5<<8}) // before the sixth record that begins a tick interval
		d.frames("run/layer", 21, 90)
	}},
	{"commits overtaken by a lost beginning", func(d *directed) {
		d.frames("run/layer", 0, 3)
		d.finishWork(0)
		d.frames("run/layer", 4, 20)
		d.add(event{kind: loseBeginning, bits: 1 | 15<<8}) // before record 15
		d.frames("run/layer", 21, 90)
	}},
}

// TestDirectedSchedules plays each directed schedule. Engine and model must agree, as in random
// schedules, and the events of the schedule must have occurred.
func TestDirectedSchedules(t *testing.T) {
	proved := map[string]bool{}
	for _, s := range directedSchedules {
		t.Run(s.events, func(t *testing.T) {
			schedule := direct(s.build)
			c, err := run(schedule)
			if err != nil {
				t.Fatalf("%v\n%s", err, schedule)
			}
			for _, name := range strings.Split(s.events, ", ") {
				proved[name] = true
				list := c.named()
				i := slices.IndexFunc(list, func(n named) bool { return n.name == name })
				if i < 0 {
					t.Errorf("nothing counts %s", name)
				} else if *list[i].n == 0 {
					t.Errorf("there were no %s in\n%s", name, schedule)
				}
			}
		})
	}
	for _, n := range new(counts).named() {
		if !proved[n.name] {
			t.Errorf("no directed schedule is for %s", n.name)
		}
	}
}
