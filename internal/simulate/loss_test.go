package simulate

import (
	"fmt"
	"reflect"
	"slices"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/windows"
)

// loss is what the oracle of a log's rest knows: where the log ended when an
// owner began anew, and from where on windows are emitted.
type loss struct {
	end   int64 // offset
	begun int64 // the greatest append time as of the first record
	emits bool
	from  int64
}

func (l *loss) hides(start int64) bool { return l != nil && (!l.emits || start < l.from) }

// outlive looks whether what is lost still matters: whether the log has been
// read to where it ended, for so long that no frame of before is accepted any
// more, and that every active producer was seen.
func (o *oracle) outlive(first bool) {
	l := o.lost
	if first {
		l.begun = o.latest
	}
	var horizon, skew int64
	for _, a := range o.eras {
		if !a.retired {
			quarter := (a.cfg.IdleHorizon.Microseconds() + 3) / 4
			horizon, skew = max(horizon, 5*quarter), max(skew, a.cfg.MaxSkew.Microseconds())
		}
	}
	if !l.emits && o.offset >= l.end && o.clock >= horizon && o.latest-o.memory() > l.begun {
		l.emits, l.from = true, o.latest+skew+1
	}
}

// past is what was published before a log lost its beginning.
type past struct {
	keys    map[rollupKey]bool
	highest oona.Trigger
	whole   *oracle // goes on with the whole log where its rest must come to the same; else nil
}

// loseBeginning truncates the log and loses the commit, or has the log overtake
// it. All owners are gone, and one is told to go on from here.
func (p *partition) loseBeginning(bits uint64) error {
	log := p.log
	if len(log.accounts) == 0 {
		return nil
	}
	if _, _, err := p.readers(); err != nil {
		return err
	}
	if p.past == nil {
		p.past = &past{keys: map[rollupKey]bool{}, highest: oona.Trigger{Offset: -1}}
	}
	for _, q := range p.published {
		if !q.side {
			p.past.keys[q.key] = true
			if q.rollup.trigger.After(p.past.highest) {
				p.past.highest = q.rollup.trigger
			}
		}
	}
	first := p.cut(bits)
	start, end := log.accounts[first].record.Offset, log.accounts[len(log.accounts)-1].record.Offset+1
	var overtaken windows.Commit
	rest := newOracle(p.flags)
	if p.committed != nil && p.committed.commit.Offset < start && log.lost == nil && bits&1 != 0 {
		overtaken = p.committed.commit
		rest = p.upTo(p.committed)
		p.counts.overtaken++
	}
	rest.lost, rest.counts = &loss{end: end}, log.counts
	p.log, p.owners, p.published, p.configured, p.hashes = rest, nil, nil, nil, map[rollupPlace]uint64{}
	for i := range log.accounts[first:] {
		p.fold(log.accounts[first+i].record)
	}
	p.counts.beginningsLost++
	engine, err := windows.BeginAnew(p.flags, windows.Always(catalogue), overtaken, start, end)
	if err != nil {
		return fmt.Errorf("beginning anew: %w", err)
	}
	c, err := engine.Commit() // at once: it keeps where the log ended
	if err != nil {
		return fmt.Errorf("the first commit: %w", err)
	}
	p.committed = &committed{c, start, p.flags}
	p.owners = []*owner{{p: p, flags: p.flags, engine: engine, liveFrom: start}}
	return nil
}

// cut chooses the record at which the log is to begin: any, or one at which the
// log clock begins a tick interval and a bucket. From there, the rest of a log
// without configurations must come to the same as the whole, unless a cap of
// the partition is reached, or lost append times were ahead by more than max
// delay and skew.
func (p *partition) cut(bits uint64) int {
	log := p.log
	var inPhase []int
	for i := range log.accounts {
		if c := log.accounts[i].clock; c%log.bucketWidth() == 0 && c%log.cfg.TickInterval.Microseconds() == 0 {
			inPhase = append(inPhase, i)
		}
	}
	p.past.whole = nil
	n := uint64(len(inPhase))
	if n == 0 || bits&6 == 0 {
		return int(bits >> 8 % uint64(len(log.accounts)))
	}
	first := inPhase[bits>>8%n]
	latest := int64(log.accounts[first].record.AppendedAt) + log.memory()
	ahead := slices.ContainsFunc(log.accounts[:first], func(a account) bool { return int64(a.record.AppendedAt) > latest })
	if log.counts.firsts == 0 && log.counts.configured == 0 && log.lost == nil && !ahead {
		p.past.whole = log
	}
	return first
}

// upTo is what an oracle of the log up to a commit leaves to one that begins
// anew: its configurations and the greatest append time.
func (p *partition) upTo(c *committed) *oracle {
	before := newOracle(c.flags)
	for i := range p.log.accounts {
		if r := p.log.accounts[i].record; r.Offset < c.processedTo {
			before.fold(r)
		}
	}
	rest := newOracle(before.cfg)
	rest.eras, rest.latest = before.eras, before.latest
	return rest
}

// compare holds what is emitted after a loss against what was emitted before,
// and against what the whole log would have come to.
func (p *partition) compare() error {
	if p.past == nil {
		return nil
	}
	for _, q := range p.published {
		if q.side {
			continue
		}
		p.counts.rollupsAfterLoss++
		if p.past.keys[q.key] || !q.rollup.trigger.After(p.past.highest) {
			return fmt.Errorf("%+v at %+v, after a loss: it was emitted before, or not all readers see it", q.key, q.rollup)
		}
	}
	whole := p.past.whole
	if whole == nil || !p.log.lost.emits || whole.counts.configured+whole.counts.firsts > 0 || p.log.crowded()+whole.crowded() > 0 {
		return nil
	}
	emitted := func(o *oracle) (list []content) {
		for i := range o.accounts {
			for _, r := range o.accounts[i].rollups {
				if int64(r.Start) >= p.log.lost.from {
					list = append(list, r)
				}
			}
		}
		return list
	}
	got, want := emitted(p.log), emitted(whole)
	if !reflect.DeepEqual(got, want) {
		return fmt.Errorf("after a loss, %d rollups from %s on are\n%+v\nand of the whole log %d:\n%+v", len(got), seconds(oona.Micros(p.log.lost.from)), got, len(want), want)
	}
	p.counts.likeTheWhole += len(got)
	return nil
}

// crowded counts what a cap of the partition did.
func (o *oracle) crowded() int { return o.counts.evicted + o.counts.sealed + o.counts.overflowed }
