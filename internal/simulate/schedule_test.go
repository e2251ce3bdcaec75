package simulate

import (
	"fmt"
	"strings"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/windows"
)

// schedule has the configuration of a partition's owners, and the events. A schedule with fewer events
// is a schedule, too, so a schedule can be shortened by leaving out events.
type schedule struct {
	cfg    windows.Config // used if the log does not begin with another configuration
	events []event
	settle bool // at the end, tick until all windows have closed
}

// event is one thing that happens.
type event struct {
	kind kind
	at   oona.Micros // true time
	skew oona.Micros // skew of the clock of the partition's leader, which makes append times

	record windows.Record // without offset and append time
	gap    int64          // number of unused offsets before it, as after a transaction

	owner int    // 0 is the current owner; zombies have greater numbers, the youngest first
	n     int    // number of records, items or tick intervals
	bits  uint64 // decides what several owners do
}

type kind uint8

const (
	appended      kind = iota // a record arrives
	fold                      // an owner folds up to n records
	redeliver                 // an owner is given the last record again
	publish                   // an owner gets up to n of its outbox acknowledged
	snapshot                  // an owner makes a commit
	commit                    // an owner sends a commit, the n-th last of those whose rollups are published
	crash                     // an owner ends; if it was the current one, another takes over
	takeOver                  // another owner takes over, and the former one becomes a zombie
	loseOffsets               // the group's commits are lost, and another owner takes over
	loseBeginning             // the log is truncated, the commit is lost or no longer usable, and another owner restarts
	quiet                     // n tick intervals without traffic, in which owners may tick
	kindCount
)

var kindNames = [kindCount]string{"append", "fold", "redeliver", "publish", "snapshot", "commit", "crash", "take over", "lose offsets", "lose beginning", "quiet"}

func (e event) String() string {
	s := fmt.Sprintf("%11s  %-12s ", seconds(e.at), kindNames[e.kind])
	switch e.kind {
	case appended:
		return s + fmt.Sprintf("at %s, %s", seconds(e.at+e.skew), describe(e.record))
	case quiet:
		return s + fmt.Sprintf("%d tick intervals, bits %x, leader's clock off by %s", e.n, e.bits, short(e.skew))
	case loseBeginning:
		return s + fmt.Sprintf("bits %x", e.bits)
	case takeOver, loseOffsets:
		return s
	}
	if e.owner > 0 {
		s += fmt.Sprintf("zombie %d ", e.owner)
	}
	if e.kind == fold || e.kind == publish || e.kind == commit {
		s += fmt.Sprint(e.n)
	}
	return s
}

func describe(r windows.Record) string {
	f := r.Frame
	if c := r.Configuration; c != nil {
		return fmt.Sprintf("configuration from %s: %+v", seconds(c.From), c.Config)
	}
	if f == nil {
		return "no frame"
	}
	name := string(f.Run)
	if f.Timeline != "" {
		name += "/" + string(f.Timeline)
	}
	var metrics []string
	for _, c := range f.Metrics {
		metrics = append(metrics, fmt.Sprint(c.Name, c.Values))
	}
	return fmt.Sprintf("%s %s from %s by %s, epoch %d, sequence %d, bytes %04x: observed at %s, step %d, seeds %v, states %v, %s",
		name, f.Layer, f.Producer, r.Path, f.Epoch, f.Sequence, r.Checksum, seconds(f.ObservedAt), f.Step, f.Seeds, f.States, strings.Join(metrics, " "))
}

// origin is the time at which schedules begin.
const origin oona.Micros = 1_700_000_000_000_000

// seconds formats a time, in seconds since origin.
func seconds(t oona.Micros) string { return short(t - origin) }

func short(d oona.Micros) string { return fmt.Sprintf("%.3fs", float64(d)/1e6) }

func (s schedule) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%+v\n", s.cfg)
	for _, e := range s.events {
		fmt.Fprintln(&b, strings.TrimRight(e.String(), " "))
	}
	if s.settle {
		b.WriteString("             then the last owner folds all, ticks until no window is open, and publishes all\n")
	} else {
		b.WriteString("             then the last owner folds and publishes all\n")
	}
	return b.String()
}
