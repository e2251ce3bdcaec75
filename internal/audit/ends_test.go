package audit_test

import (
	"fmt"
	"slices"
	"testing"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/bus"
	"github.com/morphogenetic/oona/internal/audit"
	"github.com/morphogenetic/oona/schemas/avro"
)

// end writes the end of a run at a second after the events of way.
func (r *trail) end(run oona.RunID, second int64) {
	r.t.Helper()
	e := oona.RunEnd{Run: run, At: 1_790_000_001_000_000 + oona.Micros(second)*1_000_000}
	r.publish(r.topics.RunEnded, bus.NewMessage(avro.AppendRunEnd(nil, &e), bus.Target{Key: []byte(run), Partition: bus.Hash([]byte(run)), Hashed: true}))
}

// TestRunEnds: of each run that is asked for, the latest end is found.
func TestRunEnds(t *testing.T) {
	r := newTrail(t)
	r.write(way()...)
	for second, run := range []oona.RunID{"r", "a", "r", "b"} {
		r.end(run, int64(second))
	}
	r.end("r", 1) // written later than the one that counts
	for want, o := range map[string]audit.Options{
		"[a 1 r 2 b 3]": {Seed: oona.AnySeed},
		"[r 2]":         {Seed: 7}, // the other runs have no events
		"[b 3]":         {Seed: oona.AnySeed, Runs: []oona.RunID{"b", "c"}},
		"[a 1 r 1]":     {Seed: oona.AnySeed, From: 1_790_000_001_500_000, Until: 1_790_000_003_000_000},
		"[]":            {Seed: oona.AnySeed, Layer: "none"},
	} {
		s, _ := r.run(o)
		got := []string{}
		for _, e := range s.Ends {
			got = append(got, fmt.Sprintf("%s %d", e.Run, (e.At-1_790_000_001_000_000)/1_000_000))
		}
		if fmt.Sprint(got) != want || s.Flagged() || s.NoEnds != nil {
			t.Errorf("%+v: the ends are %v, want %s; %+v", o, got, want, s)
		}
	}
	r.publish(r.topics.RunEnded, bus.NewMessage([]byte("rubbish"), bus.Target{Key: []byte("r")}))
	if s, _ := r.run(audit.Options{Seed: oona.AnySeed}); s.Faults[audit.Unreadable] != 1 || len(s.Ends) != 3 {
		t.Errorf("with a record that is no end: %+v", s)
	}
}

// TestRunEndsWithoutTheirTopic: a topic of the ends of runs that cannot be read is noted, and the audit
// is complete all the same.
func TestRunEndsWithoutTheirTopic(t *testing.T) {
	for reason, err := range map[string]error{"denied": bus.ErrDenied, "missing": bus.ErrNoTopic} {
		r := newTrail(t)
		r.write(way()...)
		r.end("r", 1)
		s, failed := audit.Run(t.Context(), &closing{Log: r, topic: r.topics.RunEnded, err: err}, audit.Options{Topics: r.topics, Seed: oona.AnySeed}, func(*audit.Life) error { return nil })
		if failed != nil || s.NoEnds == nil || s.NoEnds.Reason != reason || len(s.Unread) != 0 || s.Events != 7 {
			t.Errorf("%v: %+v, %v", err, s, failed)
		}
	}
}

// TestRunEndsAreBounded: of too many runs, those that ended last are found.
func TestRunEndsAreBounded(t *testing.T) {
	r := newTrail(t)
	const runs = 20_002
	for i := range runs {
		r.end(oona.RunID(fmt.Sprint("r", i)), int64(i+1)%runs)
	}
	s, _ := r.run(audit.Options{Seed: oona.AnySeed})
	if !s.MoreEnds || len(s.Ends) != 10_000 || s.Ends[9999].Run != "r20000" || slices.ContainsFunc(s.Ends, func(e audit.RunEnd) bool { return e.Run == "r20001" }) {
		t.Errorf("%d ends, and more: %t", len(s.Ends), s.MoreEnds)
	}
}
