package audit_test

import (
	"fmt"
	"slices"
	"testing"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/internal/audit"
)

// TestPasses: the number of passes over the topics depends on the distinct events that are
// audited. Repeats cost no pass, and none is given up because there was not enough memory.
func TestPasses(t *testing.T) {
	r := newTrail(t)
	const seeds, sent = 40, 5
	for range sent {
		for seed := range oona.SeedID(seeds) {
			all := way()
			for i := range all {
				all[i].Seed = seed
			}
			r.write(all...)
		}
	}
	whole, _ := r.run(audit.Options{Seed: oona.AnySeed})
	if whole.Repeats != (sent-1)*7*seeds {
		t.Fatalf("%d repeats: the case is not hard enough", whole.Repeats)
	}
	for _, c := range []struct {
		runs   []oona.RunID
		memory int
		passes int
	}{
		{nil, 100_000, 1}, // the events take about 80,000 bytes
		{[]oona.RunID{"r"}, 100_000, 1},
		{nil, 60_000, 2},
		{[]oona.RunID{"r"}, 60_000, 2},
		{[]oona.RunID{"another"}, 1, 1},
		{[]oona.RunID{"another", "r", "a third"}, 100_000, 1}, // not one for each run
	} {
		log, lives := &counting{Log: r}, 0
		s, err := audit.Run(t.Context(), log, audit.Options{Topics: r.topics, Runs: c.runs, Seed: oona.AnySeed, Memory: c.memory}, func(*audit.Life) error { lives++; return nil })
		if err != nil {
			t.Fatal(err)
		}
		if passes := log.reads / (len(r.topics.Events()) * partitions); passes != c.passes {
			t.Errorf("runs %q with %d bytes: %d passes, want %d", c.runs, c.memory, passes, c.passes)
		}
		if (c.runs == nil || slices.Contains(c.runs, "r")) && (lives != seeds || s.Seeds != seeds || s.Events != whole.Events || s.Repeats != whole.Repeats || fmt.Sprint(s.Faults) != fmt.Sprint(whole.Faults)) {
			t.Errorf("runs %q with %d bytes: %+v, want %+v", c.runs, c.memory, s, whole)
		}
	}
}
