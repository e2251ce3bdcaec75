package parquet

import "github.com/morphogenetic/oona/replay/records"

// runEndRow is a row of the ends of runs. Their files are in the folder of the run, as they have no
// layer.
type runEndRow struct {
	At            int64  `parquet:"time,timestamp(microsecond)"`
	Step          int64  `parquet:"step"`
	Outcome       string `parquet:"outcome,dict"`
	Reason        string `parquet:"reason,dict"`
	Timeline      string `parquet:"timeline,dict"`
	Producer      string `parquet:"producer_id,dict"`
	ProducerEpoch int64  `parquet:"producer_epoch,timestamp(microsecond)"`
	Offset        int64  `parquet:"offset"`
}

// addRunEnd adds the row of the end of a run to its part.
func (w *writer) addRunEnd(r *records.Record) *part {
	e := r.RunEnd
	p := w.part(r, partKey{table: w.table, run: e.Run})
	hold(p, runEndRow{
		At: int64(e.At), Step: e.Step, Outcome: e.Outcome.String(), Reason: e.Reason,
		Timeline: string(e.Timeline), Producer: string(e.Producer), ProducerEpoch: e.ProducerEpoch, Offset: r.At.Offset,
	})
	w.grow(p, r, 1, rowOverhead+len(r.Message.Payload)/4)
	return p
}
