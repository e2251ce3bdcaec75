package demo

import (
	"fmt"
	"io"
	"text/tabwriter"
)

// Report is where every frame and every rollup of a demo went. All numbers
// count from when the demo was ready, so that a data directory may hold older
// runs.
type Report struct {
	// Frames that the player sent: answered 200, refused for good, or without
	// an answer when the player was stopped.
	Sent         int64 `json:"sent"`
	Acknowledged int64 `json:"acknowledged"`
	Refused      int64 `json:"refused"`
	Unanswered   int64 `json:"unanswered"`
	// Frames that ingest accepted, the player's and others', resent ones again.
	Accepted int64 `json:"accepted"`
	// Records on the seed-metrics topic but Oona's own, by whoever wrote them.
	Records int64 `json:"records"`
	// What the aggregator made of each.
	Folded      int64 `json:"folded"`
	Duplicate   int64 `json:"duplicate"`
	Late        int64 `json:"late"`
	Quarantined int64 `json:"quarantined"`
	Overflowed  int64 `json:"overflowed"`
	Dead        int64 `json:"dead"`
	// Records on the side topics.
	SideRecords SideRecords `json:"side_records"`
	// Tensors of acknowledged frames, claims that ingest made or confirmed in
	// accepted ones, and what is on the topic and in the store.
	TensorsSent    int64        `json:"tensors_sent"`
	ClaimsAccepted int64        `json:"claims_accepted"`
	Tensors        TensorCounts `json:"tensors"`
	// Rollups of both kinds: emitted by the aggregator, on their topics, and
	// read by the exporter.
	RollupsEmitted int64 `json:"rollups_emitted"`
	RollupsOnBus   int64 `json:"rollups_on_bus"`
	RollupsRead    int64 `json:"rollups_read"`
	// Windows that were still open at the end: their frames are folded, their
	// rollups not emitted.
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

// Check is one relation between two counts that must hold: they are equal, or
// the left is at most the right.
type Check struct {
	Claim  string `json:"claim"`
	Left   int64  `json:"left"`
	Right  int64  `json:"right"`
	AtMost bool   `json:"at_most"`
	Agree  bool   `json:"agree"`
}

// reconcile fills Checks and Agree. windowsClosed says that no window may be
// open any more.
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

// Print writes the report for a person.
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
