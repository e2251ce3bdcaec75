package parquet

import (
	"maps"
	"slices"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/replay/records"
)

// eventRow is a row of the events: a transition of a seed.
type eventRow struct {
	At            int64      `parquet:"time,timestamp(microsecond)"`
	Step          int64      `parquet:"step"`
	Sequence      int64      `parquet:"sequence"`
	Seed          int32      `parquet:"seed"`
	From          int32      `parquet:"from_state"`
	To            int32      `parquet:"to_state"`
	Reason        string     `parquet:"reason,dict"`
	Evidence      []evidence `parquet:"evidence,list"` // ascending by name
	Mark          string     `parquet:"mark,dict"`
	Command       string     `parquet:"command_id,dict"`
	Actor         string     `parquet:"actor,dict"`
	Node          string     `parquet:"node,dict"`
	Session       int64      `parquet:"session"`
	Epoch         int64      `parquet:"epoch"`
	JournalIndex  int64      `parquet:"journal_index"`
	Blueprint     string     `parquet:"blueprint_id,dict"`
	Position      int64      `parquet:"trigger_position"`
	Index         int32      `parquet:"trigger_index"`
	Incarnation   int64      `parquet:"incarnation"`
	Timeline      string     `parquet:"timeline,dict"`
	Producer      string     `parquet:"producer_id,dict"`
	ProducerEpoch int64      `parquet:"producer_epoch,timestamp(microsecond)"`
	Offset        int64      `parquet:"offset"`
}

type evidence struct {
	Name  string  `parquet:"name,dict"`
	Value float64 `parquet:"value"`
}

var marks = [oona.EventMarkCount]string{oona.EventNormal: "NORMAL", oona.EventAdopted: "ADOPTED", oona.EventRewound: "REWOUND"}

func eventOf(r *records.Record) eventRow {
	e := r.Event
	row := eventRow{
		At: int64(e.At), Step: e.Step, Sequence: e.Sequence, Seed: int32(e.Seed), From: int32(e.From), To: int32(e.To),
		Reason: e.Reason, Mark: marks[e.Mark], Command: e.Command, Actor: e.Actor, Node: e.Node, Session: e.Session,
		Epoch: e.Epoch, JournalIndex: e.JournalIndex, Blueprint: e.Blueprint, Position: e.TriggerPosition, Index: e.TriggerIndex,
		Incarnation: int64(e.Incarnation), Timeline: string(e.Timeline), Producer: string(e.Producer), ProducerEpoch: e.ProducerEpoch,
		Offset: r.At.Offset,
	}
	for _, name := range slices.Sorted(maps.Keys(e.Evidence)) {
		row.Evidence = append(row.Evidence, evidence{name, e.Evidence[name]})
	}
	return row
}

// addEvent adds the row of an event to its part.
func (w *writer) addEvent(r *records.Record) *part {
	p := w.part(r, partKey{w.table, r.Event.Run, r.Event.Layer})
	row := eventOf(r)
	hold(p, row)
	w.grow(p, r, 1, rowOverhead+8*len(row.Evidence)+len(r.Message.Payload)/4) // the payload has the texts
	return p
}
