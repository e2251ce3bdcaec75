package deadletters

import (
	"context"
	"time"

	"github.com/morphogenetic/oona/bus"
)

// Discard marks letters that nobody needs, or takes that back.
type Discard struct {
	Box       *Box
	Publisher bus.Publisher // to the topic of redrives
	Selection Selection
	Call, By  string
	Undo      bool // discarded letters are open again
	DryRun    bool // nothing is written

	Read func() // is called for each record that was read; may be nil
}

// DiscardReport is the result of a discard.
type DiscardReport struct {
	DryRun     bool `json:"dry_run"`
	Undo       bool `json:"undo"`
	Selected   int  `json:"selected"`
	Changed    int  `json:"changed"`              // discarded, or open again
	Done       int  `json:"done"`                 // redriven before
	Unreadable int  `json:"unreadable,omitempty"` // what was done about them cannot be read
}

// Run marks the letters.
func (d *Discard) Run(ctx context.Context) (DiscardReport, error) {
	report := DiscardReport{DryRun: d.DryRun, Undo: d.Undo}
	if !d.Box.Ledger.Found && !d.DryRun {
		return report, ErrNoLedger
	}
	var waiting []*Letter
	seen := make(map[Place]bool) // a side topic may have a letter several times
	flush := func() error {
		letters := waiting
		waiting = nil
		return d.mark(ctx, letters, &report)
	}
	err := d.Box.Each(ctx, &d.Selection, d.Read, func(l *Letter) error {
		report.Selected++
		if seen[l.Origin] {
			return nil
		}
		seen[l.Origin] = true
		if waiting = append(waiting, l); len(waiting) < batchLetters {
			return nil
		}
		return flush()
	})
	if err == nil {
		err = flush()
	}
	return report, err
}

// mark marks letters of different places. Another call may have done something about them
// since they were read.
func (d *Discard) mark(ctx context.Context, letters []*Letter, report *DiscardReport) error {
	if !d.DryRun {
		if err := d.Box.Ledger.readOn(ctx); err != nil {
			return err
		}
	}
	var entries []entry
	for _, l := range letters {
		l.Outcome = d.Box.Ledger.Of(l)
		switch state := l.Outcome.State; {
		case state == Done:
			report.Done++
		case state == Unreadable:
			report.Unreadable++
		case d.Undo == (state == Discarded):
			report.Changed++
			entries = append(entries, d.entries(l)...)
		}
	}
	if d.DryRun {
		return nil
	}
	foreign, err := d.Box.Ledger.write(ctx, d.Publisher, entries)
	for _, f := range foreign {
		switch {
		case f.outcome != nil && f.outcome.State == Done:
			report.Changed--
			report.Done++
		case d.Undo != (f.outcome == nil || f.outcome.State != Discarded):
			report.Changed--
		}
	}
	return err
}

// entries returns the entries of the ledger that are written for a letter.
func (d *Discard) entries(l *Letter) []entry {
	o := l.Outcome
	switch {
	case !d.Undo:
		// The frames of a pending letter may be on the bus, so they are kept for undo.
		o.Version, o.State, o.Side, o.Letter, o.Call, o.By, o.At = outcomeVersion, Discarded, l.Side.Short(), l.digest(), d.Call, d.By, time.Now().UTC()
		return []entry{{l.Origin, &o}}
	case o.Sent == "":
		return []entry{{place: l.Origin}}
	}
	o.State = Pending // it was. A pending outcome does not replace another, so that one is removed first
	return []entry{{place: l.Origin}, {l.Origin, &o}}
}
