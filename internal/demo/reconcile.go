package demo

import (
	"fmt"
	"io"
	"text/tabwriter"
)

// Report says what became of every frame and every rollup of a demo. All counts
// start when the demo is ready, so a data directory may hold older runs.
type Report struct {
	// Frames that loadgen sent. Each was acknowledged with 200, refused for
	// good, or not yet answered when loadgen was stopped.
	Sent         int64 `json:"sent"`
	Acknowledged int64 `json:"acknowledged"`
	Refused      int64 `json:"refused"`
	Unanswered   int64 `json:"unanswered"`
	// Frames that ingest accepted from loadgen and from other clients. A frame
	// that was sent twice counts twice.
	Accepted int64 `json:"accepted"`
	// Records on the seed-metrics topic from any writer, without Oona's own records.
	Records int64 `json:"records"`
	// The same records by what the aggregator did with them.
	Folded      int64 `json:"folded"`
	Duplicate   int64 `json:"duplicate"`
	Late        int64 `json:"late"`
	Quarantined int64 `json:"quarantined"`
	Overflowed  int64 `json:"overflowed"`
	Dead        int64 `json:"dead"`
	// Records on the side topics.
	SideRecords SideRecords `json:"side_records"`
	// Tensors of acknowledged frames, claims that ingest made or confirmed in
	// accepted frames, and the tensors on the topic and in the store.
	TensorsSent    int64        `json:"tensors_sent"`
	ClaimsAccepted int64        `json:"claims_accepted"`
	Tensors        TensorCounts `json:"tensors"`
	// Rollups of both groups: emitted by the aggregator, on the rollup topics,
	// and read by the exporter.
	RollupsEmitted int64 `json:"rollups_emitted"`
	RollupsOnBus   int64 `json:"rollups_on_bus"`
	RollupsRead    int64 `json:"rollups_read"`
	// Events that loadgen sent, those that were acknowledged with 200, those that
	// ingest accepted from anyone, and those on the topics of events. EventsRecorded is how many
	// the recording has, in all runs that were played; of a run that was stopped, only those
	// that were acknowledged. EventsRead is the number of different events of these runs that
	// an audit has read back, and EventFaults how much is wrong with them, as oona audit says it.
	EventsRecorded     int64 `json:"events_recorded"`
	EventsSent         int64 `json:"events_sent"`
	EventsAcknowledged int64 `json:"events_acknowledged"`
	EventsAccepted     int64 `json:"events_accepted"`
	EventsOnBus        int64 `json:"events_on_bus"`
	EventsRead         int64 `json:"events_read"`
	EventFaults        int64 `json:"event_faults"`
	// Runs whose end was acknowledged, and those of which it was read back. EventsAccepted and
	// EventsOnBus count ends of runs, too.
	RunsEnded     int64 `json:"runs_ended"`
	RunsEndedRead int64 `json:"runs_ended_read"`
	// Windows that were still open at the end. Their frames are folded, but their
	// rollups are not emitted.
	OpenWindows int64 `json:"open_windows"`

	Checks []Check `json:"checks"`
	Agree  bool    `json:"agree"`
}

// SideRecords counts the records on the side topics.
type SideRecords struct {
	Late       int64 `json:"late"`
	Quarantine int64 `json:"quarantine"`
	Overflow   int64 `json:"overflow"`
	Dead       int64 `json:"dead"`
}

// Check is a relation that must hold between two counts: Left equals Right, or is
// at most Right if AtMost is set.
type Check struct {
	Claim  string `json:"claim"`
	Left   int64  `json:"left"`
	Right  int64  `json:"right"`
	AtMost bool   `json:"at_most"`
	Agree  bool   `json:"agree"`
}

// reconcile sets Checks and Agree. If windowsClosed is set, an open window is a
// disagreement.
func (r *Report) reconcile(windowsClosed bool) {
	settled := r.Folded + r.Duplicate + r.Late + r.Quarantined + r.Overflowed + r.Dead
	r.Checks = []Check{
		equal("sent = acknowledged + refused + unanswered", r.Sent, r.Acknowledged+r.Refused+r.Unanswered),
		atMost("acknowledged <= accepted by ingest (others may send too)", r.Acknowledged, r.Accepted),
		atMost("accepted <= records on the topic (others may write too)", r.Accepted, r.Records),
		equal("records = folded + duplicate + late + quarantined + overflowed + dead", r.Records, settled),
		equal("late = records on the late topic", r.Late, r.SideRecords.Late),
		equal("quarantined = records on the quarantine topic", r.Quarantined, r.SideRecords.Quarantine),
		equal("overflowed = records on the overflow topic", r.Overflowed, r.SideRecords.Overflow),
		equal("dead = records on the dead-letter topic", r.Dead, r.SideRecords.Dead),
		atMost("tensors acknowledged <= tensors on the topic, in frames and claimed", r.TensorsSent, r.Tensors.Inline+r.Tensors.Claimed),
		atMost("claims accepted by ingest <= claims on the topic", r.ClaimsAccepted, r.Tensors.Claimed),
		equal("claims on the topic = tensors read back and verified", r.Tensors.Claimed, r.Tensors.Verified),
		equal("events of the recording = events acknowledged", r.EventsRecorded, r.EventsAcknowledged),
		atMost("events and ends of runs acknowledged <= accepted by ingest (others may send too)", r.EventsAcknowledged+r.RunsEnded, r.EventsAccepted),
		atMost("events and ends of runs accepted <= on their topics (others may write too)", r.EventsAccepted, r.EventsOnBus),
		atMost("events acknowledged <= events read back", r.EventsAcknowledged, r.EventsRead),
		atMost("events read back <= events sent", r.EventsRead, r.EventsSent),
		equal("nothing is wrong with the events (oona audit)", r.EventFaults, 0),
		atMost("ends of runs acknowledged <= ends of runs read back", r.RunsEnded, r.RunsEndedRead),
		equal("rollups emitted = rollups on the bus", r.RollupsEmitted, r.RollupsOnBus),
		equal("rollups emitted = rollups read by the exporter", r.RollupsEmitted, r.RollupsRead),
	}
	if windowsClosed {
		r.Checks = append(r.Checks, equal("no window is left open", r.OpenWindows, 0))
	}
	r.Agree = true
	for _, c := range r.Checks {
		r.Agree = r.Agree && c.Agree
	}
}

func equal(claim string, left, right int64) Check {
	return Check{Claim: claim, Left: left, Right: right, Agree: left == right}
}

func atMost(claim string, left, right int64) Check {
	return Check{Claim: claim, Left: left, Right: right, AtMost: true, Agree: left <= right}
}

// Print writes the report to w as text.
func (r *Report) Print(w io.Writer) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	row := func(name string, n int64, note string) { fmt.Fprintf(t, "%s\t%d\t  %s\n", name, n, note) }
	fmt.Fprintln(w, "\nReconciliation")
	row("frames sent", r.Sent, fmt.Sprintf("acknowledged %d, refused %d, unanswered %d", r.Acknowledged, r.Refused, r.Unanswered))
	row("accepted", r.Accepted, "by ingest, each on the bus before its 200")
	row("records", r.Records, "on the seed-metrics topic")
	row("folded", r.Folded, "into rollups")
	row("duplicate", r.Duplicate, "")
	row("late", r.Late, "")
	row("quarantined", r.Quarantined, "")
	row("overflowed", r.Overflowed, "")
	row("dead", r.Dead, "")
	row("tensors sent", r.TensorsSent, fmt.Sprintf("on the topic: %d in frames, %d claimed", r.Tensors.Inline, r.Tensors.Claimed))
	row("read back", r.Tensors.Verified, "from the tensor store, and verified")
	row("events sent", r.EventsSent, fmt.Sprintf("acknowledged %d; the recording has %d", r.EventsAcknowledged, r.EventsRecorded))
	row("runs ended", r.RunsEnded, "acknowledged")
	row("accepted", r.EventsAccepted, fmt.Sprintf("events and ends of runs, by ingest; on their topics %d", r.EventsOnBus))
	row("read back", r.EventsRead, fmt.Sprintf("events, and the ends of runs: %d", r.RunsEndedRead))
	row("rollups emitted", r.RollupsEmitted, fmt.Sprintf("windows still open: %d", r.OpenWindows))
	row("read by the exporter", r.RollupsRead, "")
	if err := t.Flush(); err != nil {
		return fmt.Errorf("print the reconciliation: %w", err)
	}
	if r.Agree {
		bounds := 0
		for _, c := range r.Checks {
			if c.AtMost {
				bounds++
			}
		}
		_, err := fmt.Fprintf(w, "All checks hold: %d sums are equal, %d counts are within their bound.\n", len(r.Checks)-bounds, bounds)
		return err
	}
	for _, c := range r.Checks {
		if !c.Agree {
			fmt.Fprintf(w, "DISAGREE: %s: %d against %d\n", c.Claim, c.Left, c.Right)
		}
	}
	return nil
}
