package simulate

import (
	"fmt"
	"reflect"
	"slices"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/windows"
	"github.com/morphogenetic/oona/windows/model"
)

// past describes the rollups that were published before a log lost its beginning.
type past struct {
	keys    map[rollupKey]bool
	highest oona.Trigger
	whole   *model.Model // model of the whole log, if the rest must give the same rollups; otherwise nil
}

// loseBeginning truncates the log. The commit is lost, too, or needs records that are
// gone. All owners are replaced by one that restarts from the oldest record.
func (p *partition) loseBeginning(bits uint64) error {
	log := p.log
	if len(log.Accounts) == 0 {
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
	start, end := log.Accounts[first].Record.Offset, log.Accounts[len(log.Accounts)-1].Record.Offset+1
	var overtaken windows.Commit
	rest := model.New(p.flags, catalogue).Restart(end)
	if p.committed != nil && p.committed.commit.Offset < start && !log.Recovering() && bits&1 != 0 {
		overtaken = p.committed.commit
		rest = p.upTo(p.committed).Restart(end)
		p.counts.overtaken++
	}
	rest.Events = log.Events
	p.log, p.owners, p.published, p.configured, p.hashes = rest, nil, nil, nil, map[rollupPlace]uint64{}
	for i := range log.Accounts[first:] {
		p.fold(log.Accounts[first+i].Record)
	}
	p.counts.beginningsLost++
	engine, err := windows.Restart(p.flags, windows.Always(catalogue), overtaken, start, end)
	if err != nil {
		return fmt.Errorf("restart: %w", err)
	}
	c, err := engine.Commit() // made before any record is read; it has the offset at which the log ended
	if err != nil {
		return fmt.Errorf("the first commit: %w", err)
	}
	p.committed = &committed{c, start, p.flags}
	p.owners = []*owner{{p: p, flags: p.flags, engine: engine, liveFrom: start}}
	return nil
}

// cut chooses the new first record of the log: any record, or one at which the log clock
// begins a tick interval and a bucket. In the second case, a log without configurations
// must give the same rollups as the whole log, unless a cap of the partition is reached
// or lost append times were ahead by more than max delay and skew.
func (p *partition) cut(bits uint64) int {
	log := p.log
	var inPhase []int
	for i := range log.Accounts {
		if log.InStep(log.Accounts[i].Clock) {
			inPhase = append(inPhase, i)
		}
	}
	p.past.whole = nil
	n := uint64(len(inPhase))
	if n == 0 || bits&6 == 0 {
		return int(bits >> 8 % uint64(len(log.Accounts)))
	}
	first := inPhase[bits>>8%n]
	latest := int64(log.Accounts[first].Record.AppendedAt) + log.Retention()
	ahead := slices.ContainsFunc(log.Accounts[:first], func(a model.Account) bool { return int64(a.Record.AppendedAt) > latest })
	if log.Events.Firsts == 0 && log.Events.Configured == 0 && !log.Recovering() && !ahead {
		p.past.whole = log
	}
	return first
}

// upTo returns the model of the log up to where it was processed at a commit.
func (p *partition) upTo(c *committed) *model.Model {
	before := model.New(c.flags, catalogue)
	for i := range p.log.Accounts {
		if r := p.log.Accounts[i].Record; r.Offset < c.processedTo {
			before.Fold(r)
		}
	}
	return before
}

// compare compares the rollups after a loss with those that were emitted before it, and
// with the rollups of the whole log.
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
			return fmt.Errorf("%+v at %+v, after a loss: it was emitted before, or some readers drop it", q.key, q.rollup)
		}
	}
	whole := p.past.whole
	from, emits := p.log.EmitsFrom()
	if whole == nil || !emits || whole.Events.Configured+whole.Events.Firsts > 0 || crowded(p.log)+crowded(whole) > 0 {
		return nil
	}
	emitted := func(m *model.Model) (list []model.Rollup) {
		for i := range m.Accounts {
			for _, r := range m.Accounts[i].Rollups {
				if int64(r.Start) >= from {
					list = append(list, r)
				}
			}
		}
		return list
	}
	got, want := emitted(p.log), emitted(whole)
	if !reflect.DeepEqual(got, want) {
		return fmt.Errorf("after a loss, %d rollups from %s on are\n%+v\nand of the whole log %d:\n%+v", len(got), seconds(oona.Micros(from)), got, len(want), want)
	}
	p.counts.likeTheWhole += len(got)
	return nil
}

// crowded counts how often a cap of the partition was reached.
func crowded(m *model.Model) int { return m.Events.Evicted + m.Events.Sealed + m.Events.Overflowed }
