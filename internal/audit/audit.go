package audit

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"maps"
	"slices"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/bus"
	"github.com/morphogenetic/oona/schemas/avro"
)

// Log reads topics. A bus.Bus is a Log.
type Log interface {
	Extents(ctx context.Context, topics ...string) (map[string][]bus.Extent, error)
	Read(ctx context.Context, topic string, r bus.Range, take func(*message.Message) error) error
}

// Options select the events that are audited.
type Options struct {
	Topics oona.Topics
	Runs   []oona.RunID // empty for all runs
	Layer  oona.LayerID // empty for all layers
	Seed   oona.SeedID  // AnySeed for all seeds
	// From and Until are the range of the times of the events that are in lives, without Until; 0
	// means no bound. The other events of a seed still count as its past.
	From, Until oona.Micros
	Memory      int // maximum size of the events in memory, in bytes; 0 means DefaultMemory
}

// DefaultMemory is enough for about 800,000 distinct events.
const DefaultMemory = 256 << 20

// Summary is the result of an audit.
type Summary struct {
	Seeds   int          `json:"seeds"`
	Events  int          `json:"events"`  // distinct events
	Repeats int          `json:"repeats"` // records that repeat an event
	Faults  map[Kind]int `json:"faults"`
	Other   []Fault      `json:"other,omitempty"`  // faults that belong to no seed, at most mostOther
	Unread  []Unread     `json:"unread,omitempty"` // topics that were not audited
	Deleted bool         `json:"deleted"`          // whether a topic has lost its first records
	Fewer   int          `json:"fewer_partitions"` // records whose partition is right only for fewer partitions than the topic has now
	writers map[oona.RunID]writer

	Ends     []RunEnd `json:"-"`                         // of the runs, in the order of their times
	MoreEnds bool     `json:"more_run_ends,omitempty"`   // whether Ends lacks the earliest ends of more than mostEnds runs
	NoEnds   *Unread  `json:"run_ends_unread,omitempty"` // the topic of the ends of runs, if it was not read
}

// mostOther is the maximum length of Summary.Other. Further faults are only counted.
const mostOther = 1000

// writer records who has written the events of a run.
type writer struct{ control, trainer bool }

// Flagged reports whether the audit has found a fault.
func (s *Summary) Flagged() bool { return len(s.Faults) > 0 }

func (s *Summary) other(f Fault) {
	s.Faults[f.Kind]++
	if len(s.Other) < mostOther {
		s.Other = append(s.Other, f)
	}
}

// Run audits the events that the topics have now. It calls each with the life of each seed. If the
// events need more memory than there is, it audits a part of the seeds in each of several passes. The
// lives of a part are sorted by run, layer and seed. If a topic does not exist or may not be read, it
// audits the others, and Summary.Unread has the topic; it fails if none can be read.
func Run(ctx context.Context, log Log, o Options, each func(*Life) error) (*Summary, error) {
	if o.Memory == 0 {
		o.Memory = DefaultMemory
	}
	a := &audit{Options: o, runs: make(map[oona.RunID]bool), log: log, each: each, summary: Summary{Faults: make(map[Kind]int), writers: make(map[oona.RunID]writer)}}
	for _, run := range o.Runs {
		a.runs[run] = true
	}
	if err := a.look(ctx); err != nil {
		return nil, fmt.Errorf("read the topics of events: %w", err)
	}
	if err := a.ends(ctx); err != nil {
		return nil, fmt.Errorf("read the topic of the ends of runs: %w", err)
	}
	a.places = newPlaces(a.extents)
	for waiting := []share{{1, 0}}; len(waiting) > 0; {
		p := newPart(a, waiting[len(waiting)-1])
		waiting = waiting[:len(waiting)-1]
		if err := p.read(ctx); err != nil {
			return nil, fmt.Errorf("read the topics of events: %w", err)
		}
		if err := p.end(); err != nil {
			return nil, err
		}
		waiting = append(waiting, p.later...)
		a.passes++
	}
	for _, partitions := range a.extents {
		for _, e := range partitions {
			a.summary.Deleted = a.summary.Deleted || e.Start > 0
		}
	}
	for _, run := range slices.Sorted(maps.Keys(a.summary.writers)) {
		if w := a.summary.writers[run]; w.control && w.trainer {
			a.summary.other(Fault{Writers, fmt.Sprintf("run %s has events of the control plane and of a trainer; a run has one writer", run)})
		}
	}
	if o.Layer != "" || o.Seed != oona.AnySeed {
		a.summary.Ends = slices.DeleteFunc(a.summary.Ends, func(e RunEnd) bool {
			_, audited := a.summary.writers[e.Run]
			return !audited
		})
	}
	return &a.summary, nil
}

type audit struct {
	Options
	runs       map[oona.RunID]bool // those of Options
	log        Log
	each       func(*Life) error
	extents    map[string][]bus.Extent // of the topics that can be read
	endExtents []bus.Extent            // of the topic of the ends of runs
	noEnds     error                   // why these are not known
	places     places
	passes     int // how often all records were read
	summary    Summary
}

// share is the seeds whose hash, modulo of, is remainder.
type share struct{ of, remainder int32 }

// has reports whether the share has the seed with a key.
func (s share) has(key []byte) bool { return bus.Hash(key)%s.of == s.remainder }

// mostShares is the maximum number of shares into which the seeds are divided.
const mostShares = 1 << 20

// errMemory means that the events of a share of the seeds do not fit into the memory.
var errMemory = errors.New("the events of a seed take too much memory")

// part has the records of a part of the seeds. It begins with all seeds of its share. When their
// events no longer fit into the memory, it drops half of the seeds, and leaves them for later.
type part struct {
	*audit
	share
	later []share

	lives map[string]*kept // by the key of their seed
	found map[uint64]int32 // index of a record among those of its seed, by the hash of what repeats have in common
	seed  maphash.Seed
	bytes int
}

// kept is what is kept of the records of a seed.
type kept struct {
	bytes   int // of the memory that it takes
	records []stored
	// outside has the events outside the range of times, by sequence number: the states to which
	// they lead. A clock that steps back puts events into the range whose predecessors are outside.
	outside map[int64]states
}

func newPart(a *audit, of share) *part {
	return &part{audit: a, share: of, lives: make(map[string]*kept), found: make(map[uint64]int32), seed: maphash.MakeSeed()}
}

// read reads all topics. It leaves out those that it may not read: a user who may describe a topic
// learns which records it has, but not what they are.
func (p *part) read(ctx context.Context) error {
	for _, topic := range p.Topics.Events() {
		for partition, held := range p.extents[topic] {
			r := bus.Range{Partition: int32(partition), From: held.Start, End: held.End}
			err := p.log.Read(ctx, topic, r, p.take)
			if err != nil && !p.leaveOut(topic, err) {
				return err
			}
			if err != nil {
				break
			}
		}
	}
	return p.anyLeft()
}

// Roughly the memory that something needs, in bytes.
const (
	recordOverhead  = 208 // a record, besides its payload
	outsideOverhead = 320 // a seed with events outside the range of times
	outsideBytes    = 32  // such an event
)

func (p *part) take(msg *message.Message) error {
	at, err := bus.PositionOf(msg)
	if err != nil {
		return err
	}
	// The seed is taken from the event and not from the key of the record, which may be wrong. For
	// most events that are not selected, it is enough to decode the first fields.
	run, layer, seed, err := avro.EventSeed(msg.Payload)
	key := at.Key
	if err == nil {
		key = oona.SeedKey(run, layer, seed)
	} else if run, layer, seed, err = oona.ParseSeedKey(at.Key); err != nil {
		run = ""
	}
	p.places.note(&at, run)
	// The first pass looks at all records, for those that cannot be read. The later ones need not.
	if p.passes > 0 && !p.has(key) || err == nil && !p.asked(run, layer, seed) {
		return nil
	}
	var e oona.SeedEvent
	err = avro.Alone(avro.DecodeEvent(msg.Payload, &e))
	if err == nil {
		err = e.Validate()
	}
	if err != nil && p.passes == 0 {
		p.summary.other(Fault{Unreadable, fmt.Sprintf("offset %d of %s/%d is not an event: %v", at.Offset, at.Topic, at.Partition, err)})
	}
	if err != nil || !p.has(key) {
		return nil
	}
	of := p.lives[string(key)]
	if of == nil {
		of = new(kept)
		p.lives[string(key)] = of
	}
	if p.From > 0 && e.At < p.From || p.Until > 0 && e.At >= p.Until {
		return p.keepOutside(of, &e)
	}
	return p.keep(of, &e, at, key, msg.Payload)
}

func (p *part) asked(run oona.RunID, layer oona.LayerID, seed oona.SeedID) bool {
	return (len(p.runs) == 0 || p.runs[run]) && (p.Layer == "" || layer == p.Layer) && (p.Seed == oona.AnySeed || seed == p.Seed)
}

// keep keeps a record, or counts it if it repeats one in the same partition. So repeats take no
// memory, however many a client has sent.
func (p *part) keep(of *kept, e *oona.SeedEvent, at bus.Position, key, payload []byte) error {
	r := stored{payload: payload, at: at, last: placed{at.Offset, at.Appended}, records: 1, sequence: e.Sequence, fault: p.misplaced(e, at, key)}
	r.at.Key, r.at.Consumer = nil, nil
	hash := p.hash(&r)
	i, known := p.found[hash]
	if known && int(i) < len(of.records) && of.records[i].merge(&r) {
		return nil
	}
	if err := p.need(len(payload)+recordOverhead, of, e); err != nil {
		return err
	}
	w := p.summary.writers[e.Run]
	w.control, w.trainer = w.control || e.TriggerPosition != 0, w.trainer || e.TriggerPosition == 0
	p.summary.writers[e.Run] = w
	r.payload = bytes.Clone(payload)
	p.found[hash] = int32(len(of.records))
	of.records = append(of.records, r)
	return nil
}

// hash returns a hash of what repeats have in common. If two records have the same hash and are no
// repeats, lifeOf still finds further repeats of the first one.
func (p *part) hash(r *stored) uint64 {
	var h maphash.Hash
	h.SetSeed(p.seed)
	_, _ = h.Write(r.payload)
	_, _ = h.WriteString(r.at.Topic)
	maphash.WriteComparable(&h, r.at.Partition)
	maphash.WriteComparable(&h, r.fault != "")
	return h.Sum64()
}

// keepOutside keeps of an event outside the range of times what a later event is compared with.
func (p *part) keepOutside(of *kept, e *oona.SeedEvent) error {
	if of.outside == nil {
		if err := p.need(outsideOverhead, of, e); err != nil {
			return err
		}
		of.outside = make(map[int64]states)
	}
	to, known := of.outside[e.Sequence]
	of.outside[e.Sequence] = to | only(e.To)
	if known {
		return nil
	}
	return p.need(outsideBytes, of, e)
}

// need counts memory that is needed for an event. If there is not enough, seeds are left for later,
// and this may be one of them: what is added to it then is not used.
func (p *part) need(bytes int, of *kept, e *oona.SeedEvent) error {
	of.bytes, p.bytes = of.bytes+bytes, p.bytes+bytes
	for p.bytes > p.Memory {
		if p.of == mostShares {
			return fmt.Errorf("%w: run %s, layer %s, seed %d; audit a shorter time (--from, --until)", errMemory, e.Run, e.Layer, e.Seed)
		}
		p.halve()
	}
	return nil
}

// halve leaves half of the seeds for later.
func (p *part) halve() {
	p.later = append(p.later, share{2 * p.of, p.remainder + p.of})
	p.of *= 2
	before := len(p.lives)
	for key, of := range p.lives {
		if !p.has([]byte(key)) {
			p.bytes -= of.bytes
			delete(p.lives, key)
		}
	}
	if len(p.lives) == before {
		return
	}
	clear(p.found)
	for _, of := range p.lives {
		for i := range of.records {
			p.found[p.hash(&of.records[i])] = int32(i)
		}
	}
}

// misplaced returns the reason why a record has the wrong topic or key for its event, or "". The
// partition is checked later, when all records are known: see places.
func (p *part) misplaced(e *oona.SeedEvent, at bus.Position, key []byte) string {
	topic := p.Topics.Event(e)
	switch {
	case at.Topic != topic:
		return "the event belongs to " + topic
	case !bytes.Equal(at.Key, key):
		return fmt.Sprintf("its key is %q", at.Key)
	}
	return ""
}

// end passes on the lives, after all records of the part were read.
func (p *part) end() error {
	keys := slices.SortedFunc(maps.Keys(p.lives), compareKeys)
	s := &p.summary
	for _, key := range keys {
		of := p.lives[key]
		if len(of.records) == 0 {
			continue
		}
		p.judge(of.records, key)
		l, err := lifeOf(of, p.From == 0)
		if err != nil {
			return err
		}
		s.Seeds++
		for _, e := range l.Events {
			s.Events, s.Repeats = s.Events+1, s.Repeats+e.Repeats
			for _, f := range e.Faults {
				s.Faults[f.Kind]++
			}
		}
		if err := p.each(l); err != nil {
			return err
		}
	}
	return nil
}

// judge checks whether the records of a seed are in the right partitions.
func (p *part) judge(records []stored, key string) {
	run, _, _, _ := oona.ParseSeedKey([]byte(key)) // this package made the key, so it is valid
	for i := range records {
		r := &records[i]
		if r.fault != "" {
			continue
		}
		// If the last record was written to the right partition, the earlier ones in that
		// partition were, too.
		var fewer bool
		at := r.at
		at.Offset, at.Appended = r.last.offset, r.last.appended
		if r.fault, fewer = p.places.judge(&at, run); fewer {
			p.summary.Fewer += r.records
		}
	}
}

// compareKeys orders keys of SeedKey by run, layer and seed.
func compareKeys(a, b string) int {
	run, layer, seed, _ := oona.ParseSeedKey([]byte(a)) // this package made the keys, so they are valid
	otherRun, otherLayer, otherSeed, _ := oona.ParseSeedKey([]byte(b))
	return cmp.Or(cmp.Compare(run, otherRun), cmp.Compare(layer, otherLayer), cmp.Compare(seed, otherSeed))
}
