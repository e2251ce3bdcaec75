package windows

import (
	"fmt"
	"math"
	"math/rand/v2"
	"time"

	"github.com/morphogenetic/oona"
)

// schedule makes a random log of one partition. It has runs with ranks, producers and paths; trainers
// that are disconnected and then send their spools, on the same path or on another; repeats, conflicts
// and frames out of order; steps of the append clock; outages; impossible event times; and values of
// every kind.
type schedule struct {
	rng          *rand.Rand
	cfg          Config
	now          oona.Micros // true time
	skew         oona.Micros // skew of the leader's clock
	producers    []*testProducer
	log          []Record
	last         Config   // configuration in the last configuration record, valid or void
	longestDelay int      // in milliseconds
	delayed      []Record // records that were sent and arrive later

	shortestTick, longestTick, longestHorizon time.Duration // limits over all configurations
	sent                                      []Record
}

type testProducer struct {
	run      oona.RunID
	timeline oona.TimelineID
	id       oona.ProducerID
	path     string
	epoch    oona.Micros
	sequence int64
	step     int64
	ended    bool
	cutOff   bool
	spool    []Record
}

func newSchedule(seed uint64) *schedule {
	rng := rand.New(rand.NewPCG(seed, 0))
	ms := func(least, most int) time.Duration {
		return time.Duration(least+rng.IntN(most-least+1)) * time.Millisecond
	}
	longestDelay := []int{4000, 60_000}[rng.IntN(2)] // with the short delay, timelines and configurations are soon forgotten
	cfg := Config{
		Length: ms(700, 4000), OutOfOrderness: ms(0, 900), AllowedLateness: ms(0, 2500),
		TickInterval: ms(100, 900), MaxSkew: ms(500, 2000), MaxDelay: ms(1000, longestDelay),
		MaxTimelines: 2 + rng.IntN(5), MaxLayers: 1 + rng.IntN(4), MaxMetrics: 2 + rng.IntN(4), MaxSeeds: 6 + rng.IntN(12),
		MaxAccumulators: 4 + rng.IntN(24), MaxTimelineAccumulators: 2 + rng.IntN(12),
		FrontierSlots: []int{1, 3, 64, 4096}[rng.IntN(4)], WorstSeeds: rng.IntN(5), Generation: int32(rng.IntN(3)), Reducer: 1 + rng.Int32N(Reducer),
	}
	cfg.IdleHorizon = 2*cfg.TickInterval + ms(1, 6000)
	s := &schedule{shortestTick: cfg.TickInterval, longestTick: cfg.TickInterval, longestHorizon: cfg.IdleHorizon, rng: rng, cfg: cfg, last: cfg, longestDelay: longestDelay, now: 1_700_000_000_000_000}
	if rng.IntN(4) == 0 {
		s.now = -s.now // before 1970
	}
	for run := range 1 + rng.IntN(4) {
		for rank := range 1 + rng.IntN(2) {
			for id := range 1 + rng.IntN(3) {
				p := &testProducer{run: oona.RunID(fmt.Sprint("run", run)), id: oona.ProducerID(fmt.Sprint("p", id)), path: fmt.Sprint("in", rng.IntN(2))}
				if rank > 0 {
					p.timeline = oona.TimelineID(fmt.Sprint("rank", rank))
				}
				s.producers = append(s.producers, p)
			}
		}
	}
	return s
}

// make runs the schedule for about n records. Then only ticks follow, until all windows have closed.
func (s *schedule) make(n int) []Record {
	if s.rng.IntN(3) == 0 {
		s.configure()
	}
	for len(s.log) < n {
		s.passTime()
		s.arrive()
		switch s.rng.IntN(20) {
		case 0:
			s.append(Record{}) // a tick, or an undecodable record
		case 1:
			s.repeat()
		case 2:
			s.conflict()
		case 3:
			s.impossible()
		case 4:
			if s.rng.IntN(4) == 0 {
				s.configure()
			}
		default:
			s.produce(s.producers[s.rng.IntN(len(s.producers))])
		}
	}
	for quiet := time.Duration(0); quiet <= s.longestHorizon/4*6+2*s.longestTick; quiet += s.shortestTick {
		s.now += oona.Micros(s.shortestTick.Microseconds())
		s.append(Record{})
	}
	return s.log
}

func (s *schedule) passTime() {
	switch s.rng.IntN(60) {
	case 0: // an outage of the bus, or a time without records
		s.now += oona.Micros(s.rng.IntN(15_000_000))
	case 1: // the partition's leader changes
		step := []int{4_000_000, 20_000_000}[s.rng.IntN(2)]
		s.skew = oona.Micros(s.rng.IntN(step) - step/2)
	case 2, 3, 4, 5: // a batch: equal append times
	default:
		s.now += oona.Micros(s.rng.IntN(200_000))
	}
}

// append appends a record to the log.
func (s *schedule) append(r Record) {
	r.Offset = int64(len(s.log))
	if n := len(s.log); n > 0 {
		r.Offset = s.log[n-1].Offset + 1 + int64(s.rng.IntN(2)) // offsets have gaps
	}
	r.AppendedAt = s.now + s.skew
	s.log = append(s.log, r)
	if r.Frame != nil {
		s.sent = append(s.sent, r)
	}
}

func (s *schedule) arrive() {
	kept := s.delayed[:0]
	for _, r := range s.delayed {
		if s.rng.IntN(6) == 0 {
			s.append(r)
			continue
		}
		kept = append(kept, r)
	}
	s.delayed = kept
}

func (s *schedule) produce(p *testProducer) {
	if p.ended {
		return
	}
	switch s.rng.IntN(40) {
	case 0:
		p.cutOff = !p.cutOff
		if !p.cutOff && s.rng.IntN(2) == 0 {
			p.path = fmt.Sprint("in", s.rng.IntN(3))
		}
	case 1:
		p.ended = s.rng.IntN(3) == 0
		if s.rng.IntN(4) == 0 { // the trainer continues with another run, or with an earlier one
			p.run = oona.RunID(fmt.Sprint("run", s.rng.IntN(8)))
		}
	case 2: // the trainer restarts from its last checkpoint
		p.epoch, p.sequence, p.step = p.epoch+1, 0, p.step/2
	case 3: // the trainer goes back to a checkpoint
		p.step /= 2
	}
	r := Record{Path: p.path, Checksum: s.rng.Uint64(), Frame: s.frame(p)}
	switch {
	case p.cutOff:
		p.spool = append(p.spool, r)
	case len(p.spool) > 0:
		// The spool is sent in order, on its old path, while new frames are sent on the new
		// path.
		n := min(len(p.spool), 1+s.rng.IntN(3))
		for _, spooled := range p.spool[:n] {
			s.append(spooled)
		}
		p.spool = p.spool[n:]
		s.append(r)
	case s.rng.IntN(8) == 0:
		s.delayed = append(s.delayed, r)
	default:
		s.append(r)
	}
}

func (s *schedule) frame(p *testProducer) *oona.Frame {
	f := &oona.Frame{
		Run: p.run, Timeline: p.timeline, Producer: p.id, Epoch: 7 + p.epoch, Sequence: p.sequence,
		Layer:      oona.LayerID(fmt.Sprint("layer", s.rng.IntN(4))),
		ObservedAt: s.now - oona.Micros(s.rng.IntN(300_000)),
		Step:       p.step,
	}
	p.sequence++
	p.step += s.rng.Int64N(3)
	first, n := s.rng.IntN(3), 1+s.rng.IntN(9)
	switch s.rng.IntN(4) {
	case 0: // the seeds of a layer are in two frames
		first, n = 4*s.rng.IntN(2), 4
	case 1: // the whole layer
		first, n = 0, 8
	}
	for i := range n {
		f.Seeds = append(f.Seeds, oona.SeedID(first+i))
	}
	if s.rng.IntN(5) == 0 {
		s.rng.Shuffle(n, func(i, j int) { f.Seeds[i], f.Seeds[j] = f.Seeds[j], f.Seeds[i] })
	}
	for range n {
		f.States = append(f.States, oona.State(s.rng.IntN(oona.StateCount)))
	}
	names := []string{"loss", "norm", "gain", "blend", "heat"}
	if s.rng.IntN(3) == 0 {
		s.rng.Shuffle(len(names), func(i, j int) { names[i], names[j] = names[j], names[i] })
	}
	kind := s.rng.IntN(4)
	for _, name := range names[:s.rng.IntN(5)] {
		c := oona.Column{Name: name}
		for range n {
			c.Values = append(c.Values, s.value(kind))
		}
		f.Metrics = append(f.Metrics, c)
	}
	return f
}

func (s *schedule) value(kind int) float32 {
	special := []float32{
		float32(math.NaN()), float32(math.Inf(1)), float32(math.Inf(-1)), 0, float32(math.Copysign(0, -1)), 1, -1,
		math.SmallestNonzeroFloat32, -math.SmallestNonzeroFloat32, 0x1p-126, -0x1p-126, 0x1.000002p-126, 0x1.fffffcp-127,
		math.MaxFloat32, -math.MaxFloat32, 2, 0.5, 0x1.000002p0, 0x1.fffffep-1,
	}
	switch kind {
	case 0:
		return special[s.rng.IntN(len(special))]
	case 1:
		return float32(s.rng.ExpFloat64()) // positive
	case 2:
		return float32(s.rng.IntN(3) - 1) // often equal
	}
	if s.rng.IntN(10) == 0 {
		return special[s.rng.IntN(3)]
	}
	return float32(s.rng.NormFloat64() * math.Exp2(float64(s.rng.IntN(60)-30)))
}

// configure writes a configuration record, some of them void.
func (s *schedule) configure() {
	rng := s.rng
	ms := func(least, most int) time.Duration {
		return time.Duration(least+rng.IntN(most-least+1)) * time.Millisecond
	}
	next := s.last
	next.Generation += int32(min(rng.IntN(8), 1))
	next.Length, next.OutOfOrderness, next.AllowedLateness = ms(700, 4000), ms(0, 900), ms(0, 2500)
	next.MaxSkew, next.MaxDelay = ms(500, 3500), ms(1000, s.longestDelay)
	next.MaxTimelines, next.MaxLayers, next.MaxMetrics, next.MaxSeeds = 1+rng.IntN(6), 1+rng.IntN(4), 2+rng.IntN(4), 6+rng.IntN(12)
	next.Reducer = 1 + rng.Int32N(Reducer)
	next.MaxAccumulators, next.MaxTimelineAccumulators, next.WorstSeeds = 4+rng.IntN(24), 2+rng.IntN(12), rng.IntN(5)
	switch rng.IntN(12) {
	case 0:
		next.FrontierSlots++
	case 1:
		next.MaxSeeds = 0
	case 2, 3, 4:
		next.TickInterval = ms(100, 900)
		next.IdleHorizon = 2*next.TickInterval + ms(1, 6000)
	}
	s.shortestTick, s.longestTick = min(s.shortestTick, next.TickInterval), max(s.longestTick, next.TickInterval)
	s.longestHorizon = max(s.longestHorizon, next.IdleHorizon)
	from := s.now + s.skew + oona.Micros(rng.IntN(6_000_000))
	if rng.IntN(2) == 0 { // a clock is too far ahead for the current configuration
		p := s.producers[rng.IntN(len(s.producers))]
		f := s.frame(p)
		f.ObservedAt = from + oona.Micros(rng.IntN(1_500_000))
		s.append(Record{Path: p.path, Checksum: rng.Uint64(), Frame: f})
	}
	s.append(Record{Configuration: &Configuration{next, from}})
	s.last.Generation = next.Generation
	if len(s.log) == 1 && next.Validate() == nil {
		s.last = next
	}
}

// repeat sends a frame again, perhaps on another path.
func (s *schedule) repeat() {
	if len(s.sent) == 0 {
		return
	}
	r := s.sent[len(s.sent)-1-s.rng.IntN(min(len(s.sent), 30))]
	if s.rng.IntN(3) == 0 {
		r.Path = fmt.Sprint("in", s.rng.IntN(3))
	}
	s.append(r)
}

// conflict sends other bytes with the identity of a frame.
func (s *schedule) conflict() {
	if len(s.sent) == 0 {
		return
	}
	r := s.sent[len(s.sent)-1-s.rng.IntN(min(len(s.sent), 30))]
	f := *s.frame(&testProducer{run: r.Frame.Run, timeline: r.Frame.Timeline, id: r.Frame.Producer, epoch: r.Frame.Epoch - 7, sequence: r.Frame.Sequence, step: r.Frame.Step})
	if s.rng.IntN(2) == 0 {
		f.ObservedAt, f.Layer = r.Frame.ObservedAt, r.Frame.Layer
	}
	r.Frame, r.Checksum = &f, s.rng.Uint64()
	s.append(r)
}

// impossible sends a frame with an impossible event time, or with one that is just acceptable.
func (s *schedule) impossible() {
	p := s.producers[s.rng.IntN(len(s.producers))]
	f := s.frame(p)
	appended := s.now + s.skew
	f.ObservedAt = []oona.Micros{
		oona.MicrosOf(time.Date(1, 1, 1, 0, 0, 0, 0, time.UTC)),
		oona.MicrosOf(time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC)),
		appended + oona.Micros(s.cfg.MaxSkew.Microseconds()),
		appended + oona.Micros(s.cfg.MaxSkew.Microseconds()) + 1,
		appended - oona.Micros(s.cfg.MaxDelay.Microseconds()),
		appended - oona.Micros(s.cfg.MaxDelay.Microseconds()) - 1,
		appended + oona.Micros(s.rng.IntN(5_000_000)),
		appended - oona.Micros(s.rng.IntN(10_000_000)),
	}[s.rng.IntN(8)]
	s.append(Record{Path: p.path, Checksum: s.rng.Uint64(), Frame: f})
}

// testCatalogues returns testCatalogue for every hash.
var testCatalogues = Always(testCatalogue)

// testCatalogue has the metrics of schedules.
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
