package export

import (
	"fmt"
	"io"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"
)

// writeStatusText writes a status for people.
func writeStatusText(to io.Writer, s *runStatus) {
	var text strings.Builder
	fmt.Fprintf(&text, "run %s: %s", s.Run, s.State)
	if e := s.Ended; e != nil {
		fmt.Fprintf(&text, " at %s, %s", stamp(e.At), e.Outcome)
		if e.Step > 0 {
			fmt.Fprintf(&text, " at step %d", e.Step)
		}
		if e.Reason != "" {
			fmt.Fprintf(&text, " (%s)", oneLine(e.Reason))
		}
	}
	switch {
	case s.LastRollup != nil:
		fmt.Fprintf(&text, ", last rollup at %s, latest window until %s", stamp(*s.LastRollup), stamp(*s.LastWindow))
	case s.LastWindow == nil:
		text.WriteString(" (no window of it was read)")
	}
	text.WriteString("\n")
	for _, note := range s.Notes {
		fmt.Fprintf(&text, "note: %s\n", note)
	}
	text.WriteString("\n")
	writeLayers(&text, s)
	writeAside(&text, s)
	for _, p := range s.Problems {
		fmt.Fprintf(&text, "problem: %s\n", p)
	}
	_, _ = io.WriteString(to, text.String()) // the client may be gone
}

func writeLayers(text *strings.Builder, s *runStatus) {
	if len(s.Layers) == 0 {
		text.WriteString("No window of its layers has closed recently.\n\n")
		return
	}
	text.WriteString("The last windows of each layer:\n")
	table := tabwriter.NewWriter(text, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "layer\tstart\tend\tframes\treadings\tduplicates\tdelay")
	for _, y := range s.Layers {
		for _, w := range y.Windows {
			name := oneLine(string(y.Layer))
			if w.Timeline != "" {
				name += " (" + oneLine(string(w.Timeline)) + ")"
			}
			fmt.Fprintf(table, "%s\t%s\t%s\t%d\t%d\t%d\t%.1f s\n", name, stamp(w.Start), stamp(w.End), w.Frames, w.Readings, w.Duplicates, w.Delay)
		}
	}
	_ = table.Flush() // a strings.Builder does not fail
	text.WriteString("\n")
}

func writeAside(text *strings.Builder, s *runStatus) {
	if len(s.Aside) == 0 {
		fmt.Fprintf(text, "No record of it was put aside since %s.\n", stamp(s.Since))
	}
	for _, g := range s.Aside {
		fmt.Fprintf(text, "put aside, %s: %s in %s, appended from %s to %s\n  %s\n", oneLine(g.Reason), recordsOf(g.Records), g.Topic, stamp(g.First), stamp(g.Last), g.Do)
		for _, e := range g.Examples {
			fmt.Fprintf(text, "  offset %d:", e.Offset)
			if e.Layer != "" {
				fmt.Fprintf(text, " layer %s", oneLine(string(e.Layer)))
			}
			if e.Producer != "" && e.Sequence != nil {
				fmt.Fprintf(text, " producer %s frame %d", oneLine(string(e.Producer)), *e.Sequence)
			}
			if e.ObservedAt != nil {
				fmt.Fprintf(text, " observed at %s", stamp(*e.ObservedAt))
			}
			fmt.Fprintf(text, ", appended at %s\n    %s\n", stamp(e.AppendedAt), oneLine(e.Detail))
		}
	}
	if !s.Complete {
		fmt.Fprintf(text, "Not everything since %s was read: there may be more.\n", stamp(s.Since))
	}
	if s.UnknownRun > 0 {
		fmt.Fprintf(text, "%s whose run is not known: also put aside.\n", recordsOf(s.UnknownRun))
	}
}

func recordsOf(n int) string {
	if n == 1 {
		return "1 record"
	}
	return strconv.Itoa(n) + " records"
}

func stamp(t time.Time) string { return t.UTC().Format("2006-01-02T15:04:05.000Z") }

// oneLine replaces what could look like lines or colours of ours.
func oneLine(text string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || r >= 0x80 && r < 0xa0 {
			return ' '
		}
		return r
	}, text)
}

// whatToDo says what the author of a trainer can do about records that were put aside for a
// reason.
func whatToDo(reason string) string {
	if do, known := remedies[reason]; known {
		return do
	}
	return "The detail of the examples says why. The operator can look at the records with oona dead-letters show."
}

var remedies = map[string]string{
	"late":         "The windows of these frames had closed. Send frames sooner, or send those of one time together: other producers of the run were ahead by more than the allowed lateness, or none of its frames had arrived for longer than the idle horizon, as while ingest was away. The operator can allow more (oona windows apply --allowed-lateness), and what is late can be folded again: see docs/backfill.md.",
	"lost-history": "The log had lost records, and windows of that time may have been emitted before. Nothing is wrong with the trainer: the operator can fold the frames again, see docs/backfill.md.",
	"stale":        "observed_at is too old. Check the unit (microseconds since 1970) and the trainer's clock. Frames that are really that old can be folded apart from the others: see docs/backfill.md.",
	"future":       "observed_at is ahead of the broker's clock. Set the trainer's clock, or correct the unit (microseconds since 1970).",
	"conflict":     "A frame with the same producer, epoch and sequence was folded before, with other content. Use each sequence number once, and a new producer_epoch after each start of the trainer.",
	"timelines":    "There are too many runs at the same time in a partition. Wait until others have ended, or ask the operator for more (oona windows apply --max-timelines).",
	"layers":       "The run has more layers than a window allows. Send fewer, or ask the operator for more (oona windows apply --max-layers).",
	"metrics":      "The layer has more metrics than a window allows. Send fewer, or ask the operator for more (oona windows apply --max-metrics).",
	"seeds":        "The layer has more seeds than a window allows. Send fewer, or ask the operator for more (oona windows apply --max-seeds).",
	"sealed":       "Too many windows of layers were open at the same time. Send the frames of all layers in step, or ask the operator for more (oona windows apply --max-accumulators).",
	"size":         "The frame is larger than aggregators take. Send fewer seeds or metrics in a frame.",
	"undecodable":  "The record is not a frame. Check what the trainer sends to the raw topic; docs/protocol.md has the formats.",
	"invalid":      "The frame is not valid: the detail names the field.",
	"too-large":    "The record or one of its frames is too large. Split frames by seed ids.",
}
