package scenarios

import (
	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/internal/catalogue"
	"github.com/morphogenetic/oona/pipeline/aggregate"
	"github.com/morphogenetic/oona/windows"
)

// A log that lost its end, or is of a topic that was made again, has another
// life. What comes of each life is held against the log as it is then.

// beginning is where a partition began anew.
type beginning struct {
	commit windows.Commit // of the life before; the zero value where it is gone
	end    int64
}

// newLife begins a life of the log: what is in the other topics is of those
// before, and what was acknowledged may be lost.
func (w *world) newLife() {
	w.Helper()
	w.marks, w.anew = make(map[string]map[int32]int64), nil
	for _, topic := range w.topics.Specs(0) {
		if topic.Name != w.topics.SeedMetrics {
			_, w.marks[topic.Name] = kafka.extents(w.T, w.ctx, topic.Name)
		}
	}
	w.ledger.forget()
}

// incarnations returns the incarnation records of each partition's log.
func (r *result) incarnations(w *world) map[int32][]oona.IncarnationStart {
	w.Helper()
	found := make(map[int32][]oona.IncarnationStart)
	for p, records := range r.log {
		for i := range records {
			if in := w.asFolded(&records[i]); in.Incarnation != nil {
				found[p] = append(found[p], *in.Incarnation)
			}
		}
	}
	return found
}

// begun returns how many incarnations begin to a reader of both topics that has
// taken the rollups of all lives: one for each partition of a topic in each life
// but the first.
func begun(lives ...*result) (n int) {
	type place struct {
		group     oona.Group
		partition int32
	}
	known := make(map[place]bool)
	for _, life := range lives {
		now := make(map[place]bool)
		for key, rollup := range life.rollups {
			now[place{key.group, rollup.partition}] = true
		}
		for at := range now {
			if known[at] {
				n++
			}
			known[at] = true
		}
	}
	return n
}

// configured are the windows that `oona topics apply` has configured.
func (w *world) configured() windows.Config {
	w.Helper()
	known, err := catalogue.Default()
	if err != nil {
		w.Fatal(err)
	}
	c := w.windows
	c.Generation, c.Reducer, c.Catalogue = 1, windows.Reducer, known.Hash()
	return c
}

// reached returns how far the group had read each partition when it committed.
func (w *world) reached() map[int32]windows.Reached {
	w.Helper()
	reached := make(map[int32]windows.Reached)
	for p, commit := range w.commits() {
		r, err := commit.Reached()
		if err != nil {
			w.Fatal(err)
		}
		reached[p] = r
	}
	return reached
}

// commits returns those of the aggregators' group, of partitions that have one.
func (w *world) commits() map[int32]windows.Commit {
	w.Helper()
	commits := make(map[int32]windows.Commit)
	for p, c := range kafka.commits(w.T, w.ctx, w.prefix, w.topics.SeedMetrics, partitions) {
		if c.Offset == oona.NoOffset {
			continue
		}
		_, commit, err := aggregate.ParseCommit(c)
		if err != nil {
			w.Fatalf("partition %d: %v", p, err)
		}
		commits[p] = commit
	}
	return commits
}
