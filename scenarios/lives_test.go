package scenarios

import (
	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/internal/catalogue"
	"github.com/morphogenetic/oona/pipeline/aggregate"
	"github.com/morphogenetic/oona/windows"
)

// When a log loses its end, or its topic is made again, a new life of the log begins. What is
// published in each life is compared with the log of that life.

// beginning is where a partition started over.
type beginning struct {
	commit windows.Commit // of the previous life; the zero value if it is lost
	end    int64
}

// newLife begins a new life of the log. The present records of the other topics belong to
// earlier lives, and acknowledged frames may be lost.
func (w *world) newLife() {
	w.Helper()
	w.marks, w.restarted = make(map[string]map[int32]int64), nil
	for _, topic := range w.topics.Specs(0) {
		if topic.Name != w.topics.SeedMetrics {
			_, w.marks[topic.Name] = kafka.extents(w.T, w.ctx, topic.Name)
		}
	}
	w.acks.forget()
}

// incarnations returns the incarnation records of each partition.
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

// begun returns the number of incarnations that a reader of both topics must notice: one per
// topic, partition, and life except the first.
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

// configured returns the windows that `oona topics apply` has configured.
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

// reached returns for each partition how far the group had read it at its last commit.
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

// commits returns the commits of the aggregators' group.
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
