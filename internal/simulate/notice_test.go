package simulate

import (
	"slices"
	"testing"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/windows"
	"github.com/morphogenetic/oona/windows/model"
)

// TestReadersNotice changes what was published or what the model says. The checks must
// notice each change.
func TestReadersNotice(t *testing.T) {
	first := func(p *partition, side bool) int {
		return slices.IndexFunc(p.published, func(q publication) bool { return q.side == side })
	}
	again := func(p *partition, side bool, change func(*publication)) {
		q := p.published[first(p, side)]
		change(&q)
		p.published = append(p.published, q)
	}
	for name, tamper := range map[string]func(*partition){
		"a rollup is missing": func(p *partition) {
			i := first(p, false)
			trigger, group := p.published[i].rollup.trigger, p.published[i].rollup.group
			p.published = slices.DeleteFunc(p.published, func(q publication) bool {
				return !q.side && q.rollup.trigger == trigger && q.rollup.group == group
			})
		},
		"a rollup has two contents": func(p *partition) { again(p, false, func(q *publication) { q.hash++ }) },
		"a rollup has two triggers": func(p *partition) { again(p, false, func(q *publication) { q.rollup.trigger.Offset += 1 << 40 }) },
		"a rollup is of nothing": func(p *partition) {
			again(p, false, func(q *publication) { q.key.layer, q.rollup.trigger.Offset = "none", 1<<40 })
		},
		"a window is cut by another": func(p *partition) { tamperAll(p, func(q *publication) { q.end += 3600e6 }) },
		"a frame is folded twice": func(p *partition) {
			first := slices.IndexFunc(p.log.Accounts, func(a model.Account) bool { return a.Outcome.Verdict == windows.Folded })
			for i := range p.log.Accounts[first+1:] {
				p.log.Accounts[first+1+i].Record.Checksum = p.log.Accounts[first].Record.Checksum
			}
		},
		"a rollup is of before a loss": func(p *partition) {
			p.past = &past{keys: map[rollupKey]bool{p.published[first(p, false)].key: true}, highest: oona.Trigger{Offset: -1}}
		},
		"no reader sees a rollup after a loss": func(p *partition) { p.past = &past{highest: oona.Trigger{Offset: 1 << 40}} },
		"a rollup has lost a frame":            func(p *partition) { tamperAll(p, func(q *publication) { q.frames-- }) },
		"rollups come in disorder":             func(p *partition) { slices.Reverse(p.published) },
		"a side record has two ends":           func(p *partition) { again(p, true, func(q *publication) { q.reason = "another" }) },
		"a side record is missing": func(p *partition) {
			origin := p.published[first(p, true)].origin
			p.published = slices.DeleteFunc(p.published, func(q publication) bool { return q.side && q.origin == origin })
		},
		"a folded record is in a side topic": func(p *partition) {
			i := slices.IndexFunc(p.log.Accounts, func(a model.Account) bool { return a.Outcome.Verdict == windows.Folded })
			again(p, true, func(q *publication) { q.origin = p.log.Accounts[i].Record.Offset })
		},
		"a side record is of no record": func(p *partition) { again(p, true, func(q *publication) { q.origin = 1 << 40 }) },
	} {
		t.Run(name, func(t *testing.T) {
			p := played(t)
			if err := p.read(); err != nil {
				t.Fatalf("before: %v", err)
			}
			tamper(p)
			if err := p.read(); err == nil {
				t.Error("the checks do not notice it")
			} else {
				t.Log(err)
			}
		})
	}
}

// TestComparedWithTheWholeLog changes the rollups of the whole log, with which those of a
// log that lost its beginning are compared.
func TestComparedWithTheWholeLog(t *testing.T) {
	for seed := range uint64(2000) {
		s := newSchedule(seed)
		p := playedSchedule(t, s)
		if err := p.read(); err != nil {
			t.Fatalf("schedule %d: %v", seed, err)
		}
		if p.counts.likeTheWhole == 0 {
			continue
		}
		for i := range p.past.whole.Accounts {
			for j := range p.past.whole.Accounts[i].Rollups {
				p.past.whole.Accounts[i].Rollups[j].Frames++
			}
		}
		if err := p.compare(); err == nil {
			t.Error("the comparison does not notice other contents")
		}
		return
	}
	t.Error("no schedule is compared with the whole log")
}

func tamperAll(p *partition, change func(*publication)) {
	for i := range p.published {
		change(&p.published[i])
	}
}

// played returns a partition after the first schedule that published many records.
func played(t *testing.T) *partition {
	t.Helper()
	for seed := uint64(0); ; seed++ {
		if p := playedSchedule(t, newSchedule(seed)); p.past == nil && len(p.published) > 500 {
			return p
		}
	}
}

func playedSchedule(t *testing.T, s schedule) *partition {
	t.Helper()
	p, err := newPartition(s.cfg)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range s.events {
		if err := p.play(e); err != nil {
			t.Fatal(err)
		}
	}
	if err := p.finish(s.settle); err != nil {
		t.Fatal(err)
	}
	return p
}

// TestCommitBeforePublish shows that the checks notice a worker that commits before it has
// published. The engine cannot prevent this.
func TestCommitBeforePublish(t *testing.T) {
	for seed := range uint64(200) {
		s := newSchedule(seed)
		p, err := newPartition(s.cfg)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range s.events {
			if err := p.play(e); err != nil {
				t.Fatalf("schedule %d: %v", seed, err)
			}
			for _, o := range p.owners {
				for i := range o.covered {
					o.covered[i].after = 0
				}
			}
		}
		if err := p.finish(s.settle); err != nil {
			t.Fatalf("schedule %d: %v", seed, err)
		}
		if err := p.read(); err != nil {
			t.Logf("schedule %d: %v", seed, err)
			return
		}
	}
	t.Error("200 schedules pass although workers commit before they publish")
}
