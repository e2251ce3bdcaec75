package history_test

import (
	"log/slog"
	"testing"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/internal/history"
	"github.com/morphogenetic/oona/internal/settings"
	"github.com/morphogenetic/oona/schemas/avro"
)

// rollup publishes a rollup of both groups that has a trigger in partition 0.
func (i *installation) rollup(trigger oona.Trigger) {
	i.Helper()
	for _, group := range []oona.Group{oona.Health, oona.Performance} {
		r := oona.Rollup{
			Group: group, Run: "r", Layer: "l", Start: 1_700_000_000e6, End: 1_700_000_010e6, Trigger: trigger,
			FirstOffset: 1, LastOffset: 2, Frames: 1, Generation: 1, Reducer: 2,
		}
		r.Hash = r.ContentHash()
		i.publish(i.topics.Rollup(group), 0, message.NewMessage("", avro.AppendRollup(nil, &r)))
	}
}

// asked returns what an examination is about.
func (i *installation) asked() history.Installation {
	return history.Installation{Bus: i.bus, Topics: i.topics, Group: group, Logger: slog.New(slog.DiscardHandler)}
}

// misfits returns how many faults there are.
func (i *installation) misfits() int {
	i.Helper()
	all, err := history.Misfits(i.Context(), i.asked(), true)
	if err != nil {
		i.Fatal(err)
	}
	return len(all)
}

func (i *installation) held() *settings.Settings {
	i.Helper()
	held, err := settings.Read(i.Context(), i.bus, i.topics, slog.New(slog.DiscardHandler))
	if err != nil {
		i.Fatal(err)
	}
	return held
}

// Rollups of a greater incarnation, or of an offset that the log does not have, are a
// misfit until the log begins a new incarnation.
func TestRollupsThatTheLogDoesNotHave(t *testing.T) {
	for name, trigger := range map[string]func(now oona.Incarnation, end int64) oona.Trigger{
		"a greater incarnation": func(now oona.Incarnation, _ int64) oona.Trigger {
			return oona.Trigger{Incarnation: now + 3600e6, Offset: 1}
		},
		"an offset beyond the end": func(now oona.Incarnation, end int64) oona.Trigger {
			return oona.Trigger{Incarnation: now, Offset: end}
		},
	} {
		t.Run(name, func(t *testing.T) {
			onInstallation(t, 1, func(i *installation) {
				i.configured()
				i.tick(0)
				p := i.history("").Partitions[0]
				i.rollup(oona.Trigger{Incarnation: p.Engine.Incarnation(), Offset: p.Next - 1})
				if n := i.misfits(); n != 0 {
					i.Errorf("with rollups of the log, there are %d misfits", n)
				}
				i.rollup(trigger(p.Engine.Incarnation(), p.Next))
				if n := i.misfits(); n != 1 {
					i.Errorf("there are %d misfits, want one", n)
				}
				e, err := history.Examine(i.Context(), i.asked(), func(e *history.Examination, p *history.Partition) bool { return e.NeedsIncarnation(p) })
				if err != nil {
					i.Fatal(err)
				}
				if p := e.History.Partitions[0]; !e.NeedsIncarnation(p) {
					i.Errorf("the partition needs no incarnation: %+v", p)
				} else if err := e.BeginIncarnation(i.Context(), p, "test"); err != nil {
					i.Fatal(err)
				}
				if n := i.misfits(); n != 0 {
					i.Errorf("in the new incarnation, there are %d misfits", n)
				}
			})
		})
	}
}

// A settings topic that was lost is corrected from the logs.
func TestSettingsAreCorrected(t *testing.T) {
	onInstallation(t, 2, func(i *installation) {
		i.configured()
		before := i.held()
		if err := i.bus.DeleteTopic(i.topics.Settings); err != nil {
			i.Fatal(err)
		}
		i.make(2)
		if n := i.misfits(); n != 4 {
			i.Errorf("without settings, there are %d misfits, want an incarnation and a generation of 2 partitions", n)
		}
		h := i.history("")
		corrections := h.Corrections(i.held())
		if len(corrections) != 4 || corrections[3].Partition != 1 {
			i.Fatalf("the corrections are %+v", corrections)
		}
		if err := h.Correct(i.Context(), i.topics, corrections); err != nil {
			i.Fatal(err)
		}
		after := i.held()
		if again := h.Corrections(after); len(again) != 0 || i.misfits() != 0 {
			i.Errorf("after the correction, %+v is to be corrected", again)
		}
		for p := range int32(2) {
			if after.Windows[p] != before.Windows[p] || after.Incarnation(h.Topic, p) != before.Incarnation(h.Topic, p) {
				i.Errorf("partition %d has %+v, had %+v", p, after, before)
			}
		}
	})
}
