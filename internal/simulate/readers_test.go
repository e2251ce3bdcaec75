package simulate

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/windows"
	"github.com/morphogenetic/oona/windows/model"
)

// reader reads a rollup topic. It drops rollups that are not above the highest trigger that
// it has seen.
type reader struct {
	group   oona.Group
	highest oona.Trigger
	seen    map[rollupKey]publication
}

// readers reads all that was published. It returns the readers, and the records in side
// topics by offset.
func (p *partition) readers() (map[oona.Group]*reader, map[int64]windows.Reason, error) {
	readers := map[oona.Group]*reader{}
	for _, g := range []oona.Group{oona.Health, oona.Performance} {
		readers[g] = &reader{group: g, highest: oona.Trigger{Offset: -1}, seen: map[rollupKey]publication{}}
	}
	contents, sides := map[rollupKey]uint64{}, map[int64]windows.Reason{}
	for _, q := range p.published {
		if q.side {
			if before, seen := sides[q.origin]; seen {
				p.counts.sideRepeats++
				if before != q.reason {
					return nil, nil, fmt.Errorf("offset %d went to side topics as %s and as %s", q.origin, before, q.reason)
				}
			}
			sides[q.origin] = q.reason
			continue
		}
		if before, seen := contents[q.key]; seen && before != q.hash {
			return nil, nil, fmt.Errorf("%+v has two contents", q.key)
		}
		contents[q.key] = q.hash
		if err := readers[q.key.group].read(q); err != nil {
			return nil, nil, err
		}
	}
	return readers, sides, nil
}

// read checks what was published.
func (p *partition) read() error {
	readers, sides, err := p.readers()
	if err != nil {
		return err
	}
	rollups := 0
	for _, r := range readers {
		rollups += len(r.seen)
	}
	p.counts.rollups += rollups
	p.counts.reEmissions += len(p.published) - rollups - len(sides) - p.counts.sideRepeats
	for _, r := range readers {
		if err := errors.Join(r.complete(p.log, p.hashes), r.disjoint()); err != nil {
			return err
		}
	}
	if err := p.compare(); err != nil {
		return err
	}
	return p.conserve(readers[oona.Health], sides)
}

func (r *reader) read(q publication) error {
	if !q.rollup.trigger.After(r.highest) {
		return nil
	}
	if before, seen := r.seen[q.key]; seen {
		return fmt.Errorf("a reader sees %+v twice, at %+v and at %+v", q.key, before.rollup, q.rollup)
	}
	r.highest = q.rollup.trigger
	r.seen[q.key] = q
	return nil
}

// complete compares the rollups that a reader has seen with those of the model.
func (r *reader) complete(log *model.Model, hashes map[rollupPlace]uint64) error {
	n := 0
	for i := range log.Accounts {
		for j := range log.Accounts[i].Rollups {
			want := &log.Accounts[i].Rollups[j].Rollup
			q, seen := r.seen[keyOf(want)]
			switch place := (rollupPlace{want.Trigger, want.Group}); {
			case want.Group != r.group:
				continue
			case !seen:
				return fmt.Errorf("no reader sees %+v of offset %d", keyOf(want), want.Trigger.Offset)
			case q.rollup != place || q.hash != hashes[place]:
				return fmt.Errorf("a reader sees another %+v", keyOf(want))
			}
			n++
		}
	}
	if n != len(r.seen) {
		return fmt.Errorf("a reader sees %d rollups, the log has %d", len(r.seen), n)
	}
	return nil
}

// disjoint checks, without the model, that windows of a layer do not overlap.
func (r *reader) disjoint() error {
	byStart := slices.SortedFunc(maps.Keys(r.seen), func(a, b rollupKey) int {
		return cmp.Or(cmp.Compare(a.run, b.run), cmp.Compare(a.timeline, b.timeline), cmp.Compare(a.layer, b.layer), cmp.Compare(a.start, b.start))
	})
	for i, key := range byStart[:max(len(byStart)-1, 0)] {
		next := byStart[i+1]
		if next.run == key.run && next.timeline == key.timeline && next.layer == key.layer && r.seen[key].end > next.start {
			return fmt.Errorf("%+v ends at %s, within %+v", key, seconds(r.seen[key].end), next)
		}
	}
	return nil
}

// conserve checks that each record of the log is accounted for exactly once.
func (p *partition) conserve(health *reader, sides map[int64]windows.Reason) error {
	folded, once := map[rollupKey]int64{}, map[uint64]bool{}
	for i := range p.log.Accounts {
		a := &p.log.Accounts[i]
		p.counts.verdicts[a.Outcome.Verdict]++
		if i := slices.Index(notFolded[:], a.Outcome.Reason); i >= 0 {
			p.counts.reasons[i]++
		}
		reason, aside := sides[a.Record.Offset]
		switch a.Outcome.Verdict {
		case windows.Folded:
			if once[a.Record.Checksum] {
				return fmt.Errorf("offset %d is folded, as is a repeat of it", a.Record.Offset)
			}
			once[a.Record.Checksum] = true
			f := a.Record.Frame
			start := p.log.WindowStart(int64(f.ObservedAt))
			folded[rollupKey{f.Run, f.Timeline, f.Layer, oona.Micros(start), oona.Health}]++
		case windows.Late, windows.Quarantined, windows.Overflowed:
			if !aside || reason != a.Outcome.Reason {
				return fmt.Errorf("offset %d is in side topics as %q, want %q", a.Record.Offset, reason, a.Outcome.Reason)
			}
			delete(sides, a.Record.Offset)
			continue
		}
		if aside {
			return fmt.Errorf("offset %d, which is %s, is in a side topic as %s", a.Record.Offset, a.Outcome.Verdict, reason)
		}
	}
	if len(sides) > 0 {
		return fmt.Errorf("side topics hold what the log does not: %v", sides)
	}
	p.counts.records += len(p.log.Accounts)
	for _, r := range p.log.OpenRecords() {
		f := r.Frame
		p.counts.stillOpen++
		folded[rollupKey{f.Run, f.Timeline, f.Layer, oona.Micros(p.log.WindowStart(int64(f.ObservedAt))), oona.Health}]--
	}
	for key, n := range folded {
		if q := health.seen[key]; q.frames != n {
			return fmt.Errorf("%d frames of %+v were folded, and its rollup holds %d", n, key, q.frames)
		}
	}
	p.counts.model = p.log.Events
	return nil
}
