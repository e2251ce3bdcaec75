package watch

import (
	"fmt"
	"strings"
	"time"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/schemas/avro"
)

// RunEnd is the JSON form of the end of a run. Its names are those of run_end.v1.avsc.
type RunEnd struct {
	Run           oona.RunID      `json:"run_id"`
	At            time.Time       `json:"at"`
	Step          int64           `json:"step"`
	Outcome       string          `json:"outcome"`
	Reason        string          `json:"reason"`
	Timeline      oona.TimelineID `json:"timeline,omitempty"`
	Producer      oona.ProducerID `json:"producer_id,omitempty"`
	ProducerEpoch int64           `json:"producer_epoch,omitempty"`
}

// RunEndOf returns the JSON form of the end of a run.
func RunEndOf(e *oona.RunEnd) *RunEnd {
	return &RunEnd{
		Run: e.Run, At: e.At.Time(), Step: e.Step, Outcome: e.Outcome.String(), Reason: e.Reason,
		Timeline: e.Timeline, Producer: e.Producer, ProducerEpoch: e.ProducerEpoch,
	}
}

func runEndRecord(about Record, value []byte) *Record {
	var e oona.RunEnd
	err := avro.Alone(avro.DecodeRunEnd(value, &e))
	if err != nil {
		return about.withError(value, err)
	}
	about.Kind, about.RunEnd = kindRunEnd, RunEndOf(&e)
	about.run, about.layer = e.Run, ""
	return &about
}

func (e *RunEnd) line(b *strings.Builder) {
	fmt.Fprintf(b, "end of run %s  %s  step %d  at %s", e.Run, e.Outcome, e.Step, e.At.Local().Format("15:04:05.000"))
	if e.Reason != "" {
		b.WriteString("  " + e.Reason)
	}
}
