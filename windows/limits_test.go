package windows

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/morphogenetic/oona"
)

const slack = 2 * oona.Micros(time.Second/time.Microsecond)

// judged is a log with random configurations. Some Limits know all of them, and some know only those
// from a generation on.
type judged struct {
	t       *testing.T
	random  *rand.Rand
	engine  *Engine
	written []Configuration
	next    int64
	clock   oona.Micros
	counts  map[string]int
}

func (j *judged) config() Config {
	c := DefaultConfig()
	c.Generation = int32(len(j.written)) + 1
	c.Length = time.Duration(1+j.random.IntN(40)) * time.Second
	c.MaxSkew = time.Duration(j.random.IntN(90)) * time.Second
	c.MaxDelay = time.Duration(1+j.random.IntN(600)) * time.Second
	c.MaxMetrics, c.MaxSeeds = 1+j.random.IntN(3), 1+j.random.IntN(3)
	return c
}

// configure writes a configuration that is not void.
func (j *judged) configure() {
	c := Configuration{Config: j.config()}
	if len(j.written) > 0 {
		last := j.written[len(j.written)-1]
		ahead := j.clock + slack + oona.Micros(last.Config.MaxSkew.Microseconds())
		c.From = max(ahead, last.From+oona.Micros(last.Config.Length.Microseconds())) + 1 + oona.Micros(j.random.Int64N(60e6))
	}
	o := j.engine.Fold(Record{Offset: j.next, AppendedAt: j.clock, Configuration: &c}, func(*oona.Rollup) {})
	if o.Reason != ReasonConfigured {
		j.t.Fatalf("configuration %+v: %+v", c, o)
	}
	j.next++
	j.written = append(j.written, c)
}

// frame appends a frame, and compares its outcome with the decisions of the limits.
func (j *judged) frame(limits, partial *Limits) {
	n := j.random.IntN(4)
	f := &oona.Frame{Run: "r", Layer: oona.LayerID(fmt.Sprint("l", j.next)), Producer: "p", Sequence: j.next, Seeds: []oona.SeedID{1, 2, 3, 4}[:1+n], States: make([]oona.State, 1+n)}
	for i := range j.random.IntN(4) {
		f.Metrics = append(f.Metrics, oona.Column{Name: fmt.Sprint("m", i), Values: make([]float32, 1+n)})
	}
	cfg := j.written[j.random.IntN(len(j.written))].Config
	switch near := oona.Micros(j.random.Int64N(12e6)) - 6e6; j.random.IntN(4) {
	case 0:
		f.ObservedAt = j.clock + near + oona.Micros(cfg.MaxSkew.Microseconds())
	case 1:
		f.ObservedAt = j.clock + near - oona.Micros(cfg.MaxDelay.Microseconds())
	case 2:
		f.ObservedAt = j.written[len(j.written)-1].From + near*10
	default:
		f.ObservedAt = j.clock + near
	}
	f.ObservedAt = max(f.ObservedAt, 946684800e6)
	appended := j.clock + oona.Micros(j.random.Int64N(int64(2*slack)+1)) - slack
	said, by := limits.Judge(f, j.clock-slack, j.clock+slack)
	inPart, _ := partial.Judge(f, j.clock-slack, j.clock+slack)
	o := j.engine.Fold(Record{Offset: j.next, AppendedAt: appended, Path: "x", Frame: f}, func(*oona.Rollup) {})
	j.next++
	j.counts["engine "+string(o.Reason)]++
	j.counts["limits "+string(said)]++
	j.counts["partial "+string(inPart)]++
	for _, says := range []Reason{said, inPart} {
		late := o.Reason == ReasonLate && (says == ReasonMetrics || says == ReasonSeeds)
		if says != ReasonNone && says != o.Reason && !late {
			j.t.Fatalf("limits say %q of a frame observed at %d, at %d by the clock, and the engine, at %d: %+v", says, f.ObservedAt, j.clock, appended, o)
		}
	}
	if (by != nil) != (said != ReasonNone) {
		j.t.Fatalf("reason %q has the configuration %v", said, by)
	}
	// Limits must decide about a frame that is beyond the limits of every configuration by more than
	// the clocks can differ, unless its configuration has expired.
	sure := (o.Reason == ReasonStale || o.Reason == ReasonFuture) && len(j.engine.Configurations()) == len(j.written)
	for _, c := range j.written {
		s := spansOf(c.Config)
		sure = sure && s.misplaced(f.ObservedAt, appended-2*slack) == s.misplaced(f.ObservedAt, appended+2*slack)
	}
	if sure && said != o.Reason {
		j.t.Fatalf("limits say %q of a frame observed at %d, at %d by the clock, and the engine, at %d: %+v", said, f.ObservedAt, j.clock, appended, o)
	}
}

// The engine does with a frame what Limits say, if the append time is near the clock of Limits.
func TestLimitsAgreeWithTheEngine(t *testing.T) {
	counts := make(map[string]int)
	for seed := range uint64(60) {
		e, err := New(DefaultConfig(), testCatalogues)
		if err != nil {
			t.Fatal(err)
		}
		j := &judged{t: t, random: rand.New(rand.NewPCG(seed, 1)), engine: e, clock: instant(1000), counts: counts}
		for range 1 + j.random.IntN(4) {
			j.configure()
			limits, partial := NewLimits([][]Configuration{j.written}), NewLimits([][]Configuration{j.written[j.random.IntN(len(j.written)):]})
			for range 150 {
				j.clock += oona.Micros(j.random.Int64N(4e6))
				j.frame(limits, partial)
			}
			if j.random.IntN(4) == 0 { // so that the configuration before the current one may be unknown
				j.clock += 26 * 3600e6
			}
		}
	}
	for _, must := range []string{"limits stale", "limits future", "limits metrics", "limits seeds", "limits ", "partial stale", "partial future", "engine ", "engine late"} {
		if counts[must] < 20 {
			t.Errorf("%s: %d times; all are %v", must, counts[must], counts)
		}
	}
}

// With several partitions, Limits decide only if all partitions agree. If the configuration of one of
// them is not known, they do not decide.
func TestLimitsOfPartitions(t *testing.T) {
	day := Configuration{Config: DefaultConfig()}
	day.Config.Generation = 1
	hour := day
	hour.Config.MaxDelay, hour.Config.MaxMetrics = time.Hour, 1
	now := instant(1e6)
	ago := func(d time.Duration) *oona.Frame { return &oona.Frame{ObservedAt: now - oona.Micros(d.Microseconds())} }
	for _, c := range []struct {
		name       string
		partitions [][]Configuration
		frame      *oona.Frame
		want       Reason
	}{
		{"both", [][]Configuration{{day}, {hour}}, ago(25 * time.Hour), ReasonStale},
		{"one", [][]Configuration{{day}, {hour}}, ago(2 * time.Hour), ReasonNone},
		{"the same", [][]Configuration{{hour}, {hour}}, ago(2 * time.Hour), ReasonStale},
		{"for different reasons", [][]Configuration{{day}, {hour}}, &oona.Frame{ObservedAt: now, Metrics: make([]oona.Column, 2)}, ReasonNone},
		{"one is not known", [][]Configuration{{hour}, nil}, ago(25 * time.Hour), ReasonNone},
		{"one is not valid", [][]Configuration{{hour}, {{}}}, ago(25 * time.Hour), ReasonNone},
		{"none", nil, ago(25 * time.Hour), ReasonNone},
	} {
		l := NewLimits(c.partitions)
		if got, _ := l.Judge(c.frame, now-slack, now+slack); got != c.want {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
		if known := l.Known(); known != (len(c.partitions) == 2 && len(c.partitions[1]) == 1 && c.partitions[1][0] != Configuration{}) {
			t.Errorf("%s: known is %v", c.name, known)
		}
	}
	if got, _ := (*Limits)(nil).Judge(ago(0), now, now); got != ReasonNone || (*Limits)(nil).Known() {
		t.Error("limits that are nil say something")
	}
}
