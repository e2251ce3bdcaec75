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
	Run    oona.RunID   // empty for all runs
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
	Deleted bool         `json:"deleted"`          // whether a topic has lost its first records
	Fewer   int          `json:"fewer_partitions"` // records whose partition is right only for fewer partitions than the topic has now
	writers map[oona.RunID]writer
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

// Run audits the events that the topics have now. It calls each with the life of each seed. It
// reads the seeds in parts, and the lives of each part are sorted by run, layer and seed.
func Run(ctx context.Context, log Log, o Options, each func(*Life) error) (*Summary, error) {
	if o.Memory == 0 {
		o.Memory = DefaultMemory
	}
	a := &audit{Options: o, log: log, each: each, summary: Summary{Faults: make(map[Kind]int), writers: make(map[oona.RunID]writer)}}
	var err error
	if a.extents, err = log.Extents(ctx, o.Topics.Events()...); err != nil {
		return nil, fmt.Errorf("read the topics of events: %w", err)
	}
	for _, partitions := range a.extents {
		for _, e := range partitions {
			a.summary.Deleted = a.summary.Deleted || e.Start > 0
		}
	}
	a.places = newPlaces(a.extents)
	parts := a.estimate()
	for remainder := range parts {
		if err := a.seeds(ctx, parts, remainder); err != nil {
			return nil, err
		}
	}
	for _, run := range slices.Sorted(maps.Keys(a.summary.writers)) {
		if w := a.summary.writers[run]; w.control && w.trainer {
			a.summary.other(Fault{Writers, fmt.Sprintf("run %s has events of the control plane and of a trainer; a run has one writer", run)})
		}
	}
	return &a.summary, nil
}

type audit struct {
	Options
	log     Log
	each    func(*Life) error
	extents map[string][]bus.Extent
	places  places
	summary Summary
}

// typicalPayload is a typical size of an encoded event, in bytes.
const typicalPayload = 128

// estimate returns the number of parts into which the seeds should probably be divided.
func (a *audit) estimate() int32 {
	if a.Run != "" || a.Layer != "" || a.Seed != oona.AnySeed || a.From != 0 || a.Until != 0 {
		return 1
	}
	var records int64
	for _, partitions := range a.extents {
		for _, e := range partitions {
			records += e.End - e.Start
		}
	}
	parts := int32(1)
	for parts < mostParts && records*(recordOverhead+typicalPayload) > int64(parts)*int64(a.Memory) {
		parts *= 2
	}
	return parts
}

// mostParts is the maximum number of parts into which the seeds are divided.
const mostParts = 1 << 20

// errMemory means that the events of a part of the seeds do not fit into the memory.
var errMemory = errors.New("the events of a seed take too much memory")

// seeds audits the seeds whose hash has the given remainder. If their events do not fit into the
// memory, it divides them further.
func (a *audit) seeds(ctx context.Context, parts, remainder int32) error {
	p := newPart(a, parts, remainder)
	err := p.read(ctx)
	switch {
	case errors.Is(err, errMemory) && parts < mostParts:
		if err := a.seeds(ctx, 2*parts, remainder); err != nil {
			return err
		}
		return a.seeds(ctx, 2*parts, remainder+parts)
	case err != nil:
		return err
	}
	return p.end()
}

// part has the records of a part of the seeds.
type part struct {
	*audit
	parts, remainder int32

	lives      map[string]*kept // by the key of their seed
	found      map[uint64]int32 // index of a record among those of its seed, by the hash of what repeats have in common
	seed       maphash.Seed
	bytes      int
	writers    map[oona.RunID]writer
	unreadable []Fault // at most mostOther
	uncounted  int     // further records that cannot be read
}

// kept is what is kept of the records of a seed.
type kept struct {
	records []stored
	// outside has the events outside the range of times, by sequence number: the states to which
	// they lead. A clock that steps back puts events into the range whose predecessors are outside.
	outside map[int64]states
}

func newPart(a *audit, parts, remainder int32) *part {
	return &part{audit: a, parts: parts, remainder: remainder, lives: make(map[string]*kept), found: make(map[uint64]int32), seed: maphash.MakeSeed(), writers: make(map[oona.RunID]writer)}
}

func (p *part) read(ctx context.Context) error {
	for _, topic := range p.Topics.Events() {
		for partition, held := range p.extents[topic] {
			r := bus.Range{Partition: int32(partition), From: held.Start, End: held.End}
			if err := p.log.Read(ctx, topic, r, p.take); err != nil {
				return err
			}
		}
	}
	return nil
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
	if p.parts > 1 && bus.Hash(key)%p.parts != p.remainder || err == nil && !p.asked(run, layer, seed) {
		return nil
	}
	var e oona.SeedEvent
	rest, err := avro.DecodeEvent(msg.Payload, &e)
	if err == nil && len(rest) > 0 {
		err = fmt.Errorf("%d bytes follow the event", len(rest))
	}
	if err == nil {
		err = e.Validate()
	}
	if err != nil && len(p.unreadable) == mostOther {
		p.uncounted++
		return nil
	}
	if err != nil {
		p.unreadable = append(p.unreadable, Fault{Unreadable, fmt.Sprintf("offset %d of %s/%d is not an event: %v", at.Offset, at.Topic, at.Partition, err)})
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
	return (p.Run == "" || run == p.Run) && (p.Layer == "" || layer == p.Layer) && (p.Seed == oona.AnySeed || seed == p.Seed)
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
	if err := p.need(len(payload)+recordOverhead, e); err != nil {
		return err
	}
	w := p.writers[e.Run]
	w.control, w.trainer = w.control || e.TriggerPosition != 0, w.trainer || e.TriggerPosition == 0
	p.writers[e.Run] = w
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
		if err := p.need(outsideOverhead, e); err != nil {
			return err
		}
		of.outside = make(map[int64]states)
	}
	to, known := of.outside[e.Sequence]
	of.outside[e.Sequence] = to | only(e.To)
	if known {
		return nil
	}
	return p.need(outsideBytes, e)
}

// need counts memory that is needed for an event.
func (p *part) need(bytes int, e *oona.SeedEvent) error {
	if p.bytes += bytes; p.bytes > p.Memory {
		return fmt.Errorf("%w: run %s, layer %s, seed %d; audit a shorter time (--from, --until)", errMemory, e.Run, e.Layer, e.Seed)
	}
	return nil
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
	for _, f := range p.unreadable {
		s.other(f)
	}
	if p.uncounted > 0 {
		s.Faults[Unreadable] += p.uncounted
	}
	for run, w := range p.writers {
		all := s.writers[run]
		s.writers[run] = writer{all.control || w.control, all.trainer || w.trainer}
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
