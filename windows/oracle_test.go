package windows

import (
	"cmp"
	"math"
	"math/big"
	"slices"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/windows/model/exact"
)

// oracle is the model of the engine that the property test compares it with.
// It shares nothing with the engine but the numbering of frontier slots: it
// keeps all records and computes everything anew from them, with plain loops,
// maps and big numbers.
type oracle struct {
	cfg    Config
	mutant mutant
	anew   bool  // the log's beginning is lost
	end    int64 // offset where the log ended then
}

// mutant is a plausible error in the design: the property test must notice.
type mutant int

const (
	faithful           mutant = iota
	maximumTimestamp          // the watermark follows the fastest producer
	noIdleness                // a producer holds the watermark for ever
	noDuplicateCheck          // a repeat is folded again
	noPath                    // a producer has one frontier for all its paths
	ownTrafficOnly            // a tick evaluates nothing but the record's own timeline
	idleToTheEnd              // when all are idle, the watermark goes on to the log's time
	lateFramesStay            // a late frame leaves its producer's frontier where it is
	unboundedClock            // an outage counts as silence
	exclusiveLateness         // late only once the watermark is above the window's end and lateness
	rejectedIdentities        // a frame beyond a cap is remembered
	identitiesAcross          // a frame is a repeat of one in another window
	noFloor                   // whoever comes back begins anew
	noEviction                // a full partition admits no one
	noForgetting              // a timeline is forgotten only for another
	earlyConfiguration        // a configuration holds from an instant that frames may have passed
	cutWindows                // a configuration does not wait for the end of a window
	oldBuckets                // sightings stay in buckets of the old horizon
	noSeals                   // a window opens a layer as soon as there is room again
	stepsAsTheyCame           // steps rise from one frame in the log to the next
	stepsAcrossEpochs         // a producer that begins again goes on where it was
	fallsCount                // the time in which a step falls counts
	farthestFromZero          // the worst seeds of a neutral metric are those with the greatest values
	allNotMeasured            // seeds in any state are taken for active ones
	worstOfLast               // a worst value is that of the last frame that has it
	mutantCount
)

type oracleTimeline struct {
	run, id    string
	watermark  int64
	sightings  []oracleSighting
	open       map[int64][]int // records folded, by window start
	sealed     map[int64]bool  // by window start
	identities map[int]bool    // of rejected frames; rejectedIdentities only
	repeats    map[oracleLayer]int64
}

type oracleLayer struct {
	start int64
	layer string
}

type oracleSighting struct {
	slot       int
	at, bucket int64
}

// oracleEra is a configuration and the event time from which it holds.
type oracleEra struct {
	cfg     Config
	from    int64
	since   bool // from the beginning of time
	retired bool
}

type oracleRun struct {
	oracle
	log       []Record
	timelines map[[2]string]*oracleTimeline
	clock     int64
	latest    int64 // append time
	floor     int64
	eras      []*oracleEra
	begun     int64 // of a log whose beginning is lost: the first record's latest
	emits     bool  // windows that start at from or later
	from      int64
	verdicts  []Outcome
	rollups   []oracleRollup
	index     int32
	before    map[*oracleTimeline]int64
}

// oracleRollup is a rollup without what depends on how its mean was rounded:
// for the neutral metrics of reducer 2, the worst seeds.
type oracleRollup struct {
	oona.Rollup
	farthest map[string]farthest
}

// fold returns the outcome of each record, without details, and all rollups.
func (o oracle) fold(log []Record) ([]Outcome, []oracleRollup) {
	run := oracleRun{oracle: o, log: log, timelines: map[[2]string]*oracleTimeline{}, floor: math.MinInt64, latest: math.MinInt64}
	run.eras = []*oracleEra{{cfg: o.cfg, since: true}}
	for i := range log {
		run.latest = max(run.latest, int64(log[i].AppendedAt))
		if i == 0 {
			run.begun, run.emits, run.from = run.latest, !o.anew, math.MinInt64
		}
		run.index = 0
		run.before = map[*oracleTimeline]int64{}
		for _, t := range run.timelines {
			run.before[t] = t.watermark
		}
		tick := run.passTime(i)
		run.outlive(i)
		verdict, reason := Passed, Reason("")
		if log[i].Configuration != nil {
			reason = run.configure(i)
		}
		if tick || reason == "configured" {
			run.evaluate(i)
		}
		if log[i].Frame != nil {
			verdict, reason = run.decide(i)
		}
		run.verdicts = append(run.verdicts, Outcome{Verdict: verdict, Reason: reason})
	}
	return run.verdicts, run.rollups
}

// outlive decides whether what is lost still matters.
func (o *oracleRun) outlive(i int) {
	if o.emits || o.log[i].Offset < o.end || o.clock < o.longestHorizon() || o.latest-o.begun <= o.memory() {
		return
	}
	o.emits = true
	for _, a := range o.eras {
		if !a.retired {
			o.from = max(o.from, o.latest+a.cfg.MaxSkew.Microseconds()+1)
		}
	}
}

// longestHorizon is five quarters of the greatest of any configuration in reach.
func (o *oracleRun) longestHorizon() (longest int64) {
	for _, a := range o.eras {
		if !a.retired {
			longest = max(longest, 5*int64(math.Ceil(float64(a.cfg.IdleHorizon.Microseconds())/4)))
		}
	}
	return longest
}

func (o *oracleRun) hidden(start int64) bool { return !o.emits || start < o.from }

func (o *oracleRun) bucketWidth() int64 {
	return int64(math.Ceil(float64(o.cfg.IdleHorizon.Microseconds()) / 4))
}

// passTime reports whether the watermarks are due.
func (o *oracleRun) passTime(i int) bool {
	before := o.clock
	if i > 0 {
		gap := int64(o.log[i].AppendedAt - o.log[i-1].AppendedAt)
		if limit := 2 * o.cfg.TickInterval.Microseconds(); gap > limit && o.mutant != unboundedClock {
			gap = limit
		}
		if gap > 0 {
			o.clock += gap
		}
	}
	tick := o.cfg.TickInterval.Microseconds()
	return before/tick != o.clock/tick || before/o.bucketWidth() != o.clock/o.bucketWidth()
}

func (o *oracleRun) evaluate(i int) {
	var all []*oracleTimeline
	for _, t := range o.timelines {
		f := o.log[i].Frame
		if o.mutant == ownTrafficOnly && (f == nil || t.run != string(f.Run) || t.id != string(f.Timeline)) {
			continue
		}
		o.raise(t, i)
		all = append(all, t)
	}
	o.close(all, i)
	memory := o.memory()
	for _, t := range o.timelines {
		if o.quiet(t) && t.watermark < o.latest-memory && o.mutant != noForgetting {
			o.forget(t)
		}
	}
	for k, a := range o.eras[:len(o.eras)-1] {
		inUse := false
		for _, t := range o.timelines {
			for start := range t.open {
				inUse = inUse || o.era(start) == a
			}
		}
		if !a.retired && (inUse || o.eras[k+1].from >= o.latest-o.memory()) {
			break
		}
		a.retired = true
	}
}

func (o *oracleRun) memory() (longest int64) {
	for _, a := range o.eras {
		if !a.retired {
			longest = max(longest, (a.cfg.MaxDelay + a.cfg.MaxSkew).Microseconds())
		}
	}
	return longest
}

// era is that of an event time.
func (o *oracleRun) era(at int64) *oracleEra {
	for k := len(o.eras) - 1; ; k-- {
		if o.eras[k].since || o.eras[k].from <= at {
			return o.eras[k]
		}
	}
}

// window is where the window of an event time starts, when it ends, and what
// watermark closes it.
func (o *oracleRun) window(at int64) (start, end, closes int64) {
	a := o.era(at)
	length := a.cfg.Length.Microseconds()
	start = int64(math.Floor(float64(at-a.from)/float64(length)))*length + a.from
	return start, start + length, start + length + a.cfg.AllowedLateness.Microseconds()
}

// configure decides about a configuration record.
func (o *oracleRun) configure(i int) Reason {
	next, last := o.log[i].Configuration, o.eras[len(o.eras)-1]
	if next.Config.Validate() != nil {
		return "void"
	}
	if i == 0 && !o.anew {
		o.eras, o.cfg = []*oracleEra{{cfg: next.Config, since: true}}, next.Config
		return "configured"
	}
	from := int64(next.From)
	early := from <= o.latest+last.cfg.MaxSkew.Microseconds() && o.mutant != earlyConfiguration
	if next.Config.Generation <= last.cfg.Generation || next.Config.FrontierSlots != last.cfg.FrontierSlots || early || !last.since && from <= last.from {
		return "void"
	}
	if start, end, _ := o.window(from); start != from && o.mutant != cutWindows {
		from = end
	}
	o.eras = append(o.eras, &oracleEra{cfg: next.Config, from: from})
	old := o.bucketWidth()
	for _, t := range o.timelines {
		t.sightings = o.active(t)
	}
	o.cfg = next.Config
	for _, t := range o.timelines {
		for k := range t.sightings {
			if o.mutant == oldBuckets {
				break
			}
			s := &t.sightings[k]
			s.bucket = min(s.bucket*old+old-1, o.clock) / o.bucketWidth()
		}
	}
	return "configured"
}

// active are the sightings that hold a timeline's watermark.
func (o *oracleRun) active(t *oracleTimeline) []oracleSighting {
	var list []oracleSighting
	for _, s := range t.sightings {
		if o.mutant == noIdleness || s.bucket >= o.clock/o.bucketWidth()-4 {
			list = append(list, s)
		}
	}
	return list
}

func (o *oracleRun) quiet(t *oracleTimeline) bool { return len(t.open) == 0 && len(o.active(t)) == 0 }

func (o *oracleRun) forget(t *oracleTimeline) {
	delete(o.timelines, [2]string{t.run, t.id})
	if o.mutant != noFloor {
		o.floor = max(o.floor, t.watermark)
	}
}

// makeRoom forgets the quiet timeline that is furthest behind, and reports
// whether there is one.
func (o *oracleRun) makeRoom() bool {
	var quiet []*oracleTimeline
	for _, t := range o.timelines {
		if o.quiet(t) {
			quiet = append(quiet, t)
		}
	}
	if len(quiet) == 0 || o.mutant == noEviction {
		return false
	}
	hash := func(t *oracleTimeline) uint64 { return timelineKey{oona.RunID(t.run), oona.TimelineID(t.id)}.hash() }
	o.forget(slices.MinFunc(quiet, func(a, b *oracleTimeline) int {
		return cmp.Or(cmp.Compare(a.watermark, b.watermark), cmp.Compare(hash(a), hash(b)))
	}))
	return true
}

// raise computes a timeline's watermark from all that it has seen.
func (o *oracleRun) raise(t *oracleTimeline, i int) {
	reach := map[int]int64{}
	for _, s := range o.active(t) {
		if at, seen := reach[s.slot]; !seen || s.at > at {
			reach[s.slot] = s.at
		}
	}
	candidates := []int64{}
	for _, at := range reach {
		candidates = append(candidates, at-o.cfg.OutOfOrderness.Microseconds())
	}
	if len(candidates) > 0 {
		to := slices.Min(candidates)
		if o.mutant == maximumTimestamp {
			to = slices.Max(candidates)
		}
		t.watermark = max(t.watermark, to)
		return
	}
	for start := range t.open {
		_, _, closes := o.window(start)
		t.watermark = max(t.watermark, closes)
	}
	if o.mutant == idleToTheEnd {
		t.watermark = max(t.watermark, int64(o.log[i].AppendedAt))
	}
}

func (o *oracleRun) decide(i int) (Verdict, Reason) {
	r := o.log[i]
	f := r.Frame
	at := int64(f.ObservedAt)
	era := o.era(at)
	if era.retired {
		return Quarantined, "stale"
	}
	if at-int64(r.AppendedAt) > era.cfg.MaxSkew.Microseconds() {
		return Quarantined, "future"
	}
	if int64(r.AppendedAt)-at > era.cfg.MaxDelay.Microseconds() {
		return Quarantined, "stale"
	}
	key := [2]string{string(f.Run), string(f.Timeline)}
	t := o.timelines[key]
	if t == nil {
		if len(o.timelines) >= o.cfg.MaxTimelines && !o.makeRoom() {
			return Overflowed, "timelines"
		}
		t = &oracleTimeline{run: key[0], id: key[1], watermark: o.floor, open: map[int64][]int{}, sealed: map[int64]bool{}, identities: map[int]bool{}, repeats: map[oracleLayer]int64{}}
		o.timelines[key] = t
		o.before[t] = t.watermark
	}
	verdict, reason := o.place(t, i)
	path := r.Path
	if o.mutant == noPath {
		path = ""
	}
	if o.mutant != lateFramesStay || verdict != Late {
		t.sightings = append(t.sightings, oracleSighting{slotNumber(f.Producer, path, o.cfg.FrontierSlots), at, o.clock / o.bucketWidth()})
	}
	o.raise(t, i)
	o.close([]*oracleTimeline{t}, i)
	return verdict, reason
}

// place decides about a frame within its timeline.
func (o *oracleRun) place(t *oracleTimeline, i int) (Verdict, Reason) {
	f := o.log[i].Frame
	start, _, closes := o.window(int64(f.ObservedAt))
	if closes < t.watermark || closes == t.watermark && o.mutant != exclusiveLateness {
		return Late, "late"
	}
	for openStart, members := range t.open {
		if openStart != start && o.mutant != identitiesAcross {
			continue
		}
		for _, j := range members {
			g := o.log[j].Frame
			if o.mutant == noDuplicateCheck || g.Producer != f.Producer || g.Epoch != f.Epoch || g.Sequence != f.Sequence {
				continue
			}
			if o.log[j].Checksum != o.log[i].Checksum {
				return Quarantined, "conflict"
			}
			t.repeats[oracleLayer{openStart, string(g.Layer)}]++
			return Duplicate, "duplicate"
		}
	}
	for j := range t.identities {
		if g := o.log[j].Frame; g.Producer == f.Producer && g.Epoch == f.Epoch && g.Sequence == f.Sequence {
			return Duplicate, "duplicate"
		}
	}
	if reason := o.overflow(t, start, f); reason != "" {
		if o.mutant == rejectedIdentities {
			t.identities[i] = true
		}
		return Overflowed, reason
	}
	if !o.layers(t)[oracleLayer{start, string(f.Layer)}] {
		if o.mutant == noSeals {
			t.sealed = map[int64]bool{}
		}
		total := 0
		for _, u := range o.timelines {
			total += len(o.layers(u))
		}
		if t.sealed[start] || total >= o.cfg.MaxAccumulators || len(o.layers(t)) >= o.cfg.MaxTimelineAccumulators {
			t.sealed[start] = true
			return Overflowed, "sealed"
		}
	}
	t.open[start] = append(t.open[start], i)
	if o.hidden(start) {
		return Late, "lost-history"
	}
	return Folded, ""
}

// layers are those of the timeline's open windows.
func (o *oracleRun) layers(t *oracleTimeline) map[oracleLayer]bool {
	set := map[oracleLayer]bool{}
	for start, members := range t.open {
		for _, j := range members {
			set[oracleLayer{start, string(o.log[j].Frame.Layer)}] = true
		}
	}
	return set
}

func (o *oracleRun) overflow(t *oracleTimeline, start int64, f *oona.Frame) Reason {
	layers, metrics, seeds := map[oona.LayerID]bool{f.Layer: true}, map[string]bool{}, map[oona.SeedID]bool{}
	frames := []*oona.Frame{f}
	for _, j := range t.open[start] {
		layers[o.log[j].Frame.Layer] = true
		if o.log[j].Frame.Layer == f.Layer {
			frames = append(frames, o.log[j].Frame)
		}
	}
	for _, g := range frames {
		for _, c := range g.Metrics {
			metrics[c.Name] = true
		}
		for _, id := range g.Seeds {
			seeds[id] = true
		}
	}
	cfg := o.era(start).cfg
	switch {
	case len(layers) > cfg.MaxLayers:
		return "layers"
	case len(metrics) > cfg.MaxMetrics:
		return "metrics"
	case len(seeds) > cfg.MaxSeeds:
		return "seeds"
	}
	return ""
}

// close emits what the watermarks of these timelines have passed.
func (o *oracleRun) close(timelines []*oracleTimeline, i int) {
	type closing struct {
		t          *oracleTimeline
		start, end int64
		layer      string
	}
	var all []closing
	for _, t := range timelines {
		for start, members := range t.open {
			_, end, closes := o.window(start)
			if closes > t.watermark {
				continue
			}
			layers := map[string]bool{}
			for _, j := range members {
				layers[string(o.log[j].Frame.Layer)] = true
			}
			for layer := range layers {
				all = append(all, closing{t, start, end, layer})
			}
		}
	}
	slices.SortFunc(all, func(a, b closing) int {
		return cmp.Or(cmp.Compare(a.end, b.end), cmp.Compare(a.t.run, b.t.run), cmp.Compare(a.t.id, b.t.id), cmp.Compare(a.layer, b.layer))
	})
	for _, c := range all {
		if o.hidden(c.start) {
			o.index++
			continue
		}
		o.emit(c.t, c.start, c.layer, i)
	}
	for _, c := range all {
		delete(c.t.open, c.start)
	}
}

func (o *oracleRun) emit(t *oracleTimeline, start int64, layer string, i int) {
	var members []Record
	for _, j := range t.open[start] {
		if string(o.log[j].Frame.Layer) == layer {
			members = append(members, o.log[j])
		}
	}
	cfg := o.era(start).cfg
	seconds := float64(cfg.Length.Microseconds()) / 1e6 // Length.Seconds() rounds twice
	health := oona.Rollup{
		Group: oona.Health, Run: oona.RunID(t.run), Layer: oona.LayerID(layer), Timeline: oona.TimelineID(t.id),
		Start: oona.Micros(start), End: oona.Micros(start + cfg.Length.Microseconds()),
		Trigger: oona.Trigger{Offset: o.log[i].Offset, Index: o.index}, Watermark: oona.Micros(o.before[t]),
		FirstOffset: members[0].Offset, LastOffset: members[len(members)-1].Offset,
		Frames: int64(len(members)), Duplicates: t.repeats[oracleLayer{start, layer}], Generation: cfg.Generation, Reducer: cfg.Reducer,
	}
	o.index++
	states := map[oona.SeedID]oona.State{}
	var steps, times []int64
	names := map[string]bool{}
	for _, r := range members {
		health.Readings += int64(len(r.Frame.Seeds))
		steps, times = append(steps, r.Frame.Step), append(times, int64(r.Frame.ObservedAt))
		for k, id := range r.Frame.Seeds {
			states[id] = r.Frame.States[k]
		}
		for _, c := range r.Frame.Metrics {
			names[c.Name] = true
		}
	}
	performance := health
	performance.Group = oona.Performance
	for _, s := range states {
		health.Seeds.Seen++
		health.Seeds.ByState[s]++
		if s == oona.Training || s == oona.Grafting || s == oona.FineTuning {
			health.Seeds.Active++
		}
	}
	performance.Rates.FramesPerSecond = float64(health.Frames) / seconds
	performance.Rates.ReadingsPerSecond = float64(health.Readings) / seconds
	if cfg.Reducer == 2 {
		o.speed(&performance.Rates, members)
	} else if span := slices.Max(times) - slices.Min(times); span > 0 {
		performance.Rates.StepsPerSecond = float64(slices.Max(steps)-slices.Min(steps)) / (float64(span) / 1e6)
	}
	performance.Rates.Delay = o.log[i].AppendedAt - oona.Micros(slices.Max(times))
	sorted := []string{}
	for name := range names {
		sorted = append(sorted, name)
	}
	slices.Sort(sorted)
	far := map[string]farthest{}
	for _, name := range sorted {
		about := testCatalogue(name)
		summary := o.summarize(name, about.Direction, cfg, members)
		if about.Direction == oona.Neutral && cfg.Reducer == 2 {
			far[name] = farthest{o.mutant, name, cfg.WorstSeeds, members}
		}
		if about.Group == oona.Health {
			health.Metrics = append(health.Metrics, summary)
		} else {
			performance.Metrics = append(performance.Metrics, summary)
		}
	}
	o.rollups = append(o.rollups, oracleRollup{health, far}, oracleRollup{performance, far})
}

// speed is that of reducer 2.
func (o *oracleRun) speed(rates *oona.Rates, members []Record) {
	type producer struct {
		id    oona.ProducerID
		epoch oona.Micros
	}
	of := map[producer][]*oona.Frame{}
	for _, r := range members {
		p := producer{r.Frame.Producer, r.Frame.Epoch}
		if o.mutant == stepsAcrossEpochs {
			p.epoch = 0
		}
		of[p] = append(of[p], r.Frame)
	}
	for _, frames := range of {
		if o.mutant != stepsAsTheyCame {
			slices.SortStableFunc(frames, func(f, g *oona.Frame) int {
				return cmp.Or(cmp.Compare(f.Epoch, g.Epoch), cmp.Compare(f.Sequence, g.Sequence))
			})
		}
		for k := range frames[1:] {
			rise, passed := frames[k+1].Step-frames[k].Step, frames[k+1].ObservedAt-frames[k].ObservedAt
			if passed > 0 && (rise >= 0 || o.mutant == fallsCount) {
				rates.Steps += max(rise, 0)
				rates.StepTime += passed
			}
		}
	}
	if rates.StepTime > 0 {
		rates.StepsPerSecond = float64(rates.Steps) / (float64(rates.StepTime) / 1e6)
	}
}

// testCatalogues are testCatalogue, whatever a log names.
var testCatalogues = Always(testCatalogue)

// testCatalogue is that of the property test's metrics.
func testCatalogue(name string) oona.Metric {
	switch name {
	case "loss":
		return oona.Metric{Name: name, Group: oona.Health, Direction: oona.LowerIsBetter}
	case "norm":
		return oona.Metric{Name: name, Group: oona.Health}
	case "gain":
		return oona.Metric{Name: name, Group: oona.Performance, Direction: oona.HigherIsBetter}
	}
	return oona.Metric{Name: name, Group: oona.Performance}
}

func (o *oracleRun) summarize(name string, direction oona.Direction, cfg Config, members []Record) oona.MetricSummary {
	s := oona.MetricSummary{Name: name}
	var finite []float64
	worst := map[oona.SeedID]oona.SeedValue{}
	for _, r := range members {
		for _, c := range r.Frame.Metrics {
			if c.Name != name {
				continue
			}
			for k, v := range c.Values {
				x := float64(v)
				switch {
				case math.IsNaN(x):
					s.NotMeasured++
					if state := r.Frame.States[k]; cfg.Reducer == 2 && (o.mutant == allNotMeasured || state == oona.Training || state == oona.Grafting || state == oona.FineTuning) {
						s.NotMeasuredActive++
					}
					continue
				case math.IsInf(x, 0):
					s.Infinite++
					continue
				}
				finite = append(finite, x)
				id := r.Frame.Seeds[k]
				before, seen := worst[id]
				if !seen || direction == oona.LowerIsBetter && x > before.Value || direction == oona.HigherIsBetter && x < before.Value || o.mutant == worstOfLast && x == before.Value {
					worst[id] = oona.SeedValue{Seed: id, Value: x, Offset: r.Offset}
				}
			}
		}
	}
	s.Count = int64(len(finite))
	if len(finite) == 0 {
		return s
	}
	s.Min, s.Max = slices.Min(finite), slices.Max(finite)
	s.Sum, s.Mean, s.M2 = exact.Moments(finite)
	s.Histogram = exact.Histogram(finite)
	if direction == oona.Neutral {
		return s
	}
	for _, value := range worst {
		if cfg.Reducer == 1 {
			value.Offset = oona.NoOffset
		}
		s.Worst = append(s.Worst, value)
	}
	slices.SortFunc(s.Worst, func(a, b oona.SeedValue) int {
		byValue := cmp.Compare(a.Value, b.Value)
		if a.Value == b.Value { // also 0 and -0
			byValue = 0
		}
		if direction == oona.LowerIsBetter {
			byValue = -byValue
		}
		return cmp.Or(byValue, cmp.Compare(a.Seed, b.Seed))
	})
	s.Worst = s.Worst[:min(len(s.Worst), cfg.WorstSeeds)]
	return s
}

// farthest are the frames of a layer's window, of which the seeds that are
// farthest from the mean of a metric are wanted.
type farthest struct {
	mutant  mutant
	metric  string
	limit   int
	members []Record
}

// from computes distances with 600 bits, of all samples of all seeds.
func (f farthest) from(mean float64) []oona.SeedValue {
	type sample struct {
		oona.SeedValue
		distance *big.Float
	}
	if f.mutant == farthestFromZero {
		mean = 0
	}
	var all []sample
	for _, r := range f.members {
		for _, c := range r.Frame.Metrics {
			for k, v := range c.Values {
				x := float64(v)
				if c.Name != f.metric || math.IsNaN(x) || math.IsInf(x, 0) {
					continue
				}
				d := new(big.Float).SetPrec(600).SetFloat64(x)
				d.Sub(d, new(big.Float).SetFloat64(mean))
				all = append(all, sample{oona.SeedValue{Seed: r.Frame.Seeds[k], Value: x, Offset: r.Offset}, d.Abs(d)})
			}
		}
	}
	// Of a seed's samples that are equally far, the greater, and then the first.
	slices.SortStableFunc(all, func(a, b sample) int {
		return cmp.Or(b.distance.Cmp(a.distance), cmp.Compare(a.Seed, b.Seed), cmp.Compare(b.Value+0, a.Value+0))
	})
	var list []oona.SeedValue
	for _, s := range all {
		known := slices.ContainsFunc(list, func(t oona.SeedValue) bool { return t.Seed == s.Seed })
		if !known && len(list) < f.limit {
			list = append(list, s.SeedValue)
		}
	}
	return list
}
