package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"

	"github.com/morphogenetic/oona/bus"
	"github.com/morphogenetic/oona/deadletters"
)

type deadLettersDiscard struct {
	Places []string      `arg:"" optional:"" name:"place" help:"Records: TOPIC/PARTITION/OFFSET, as list prints it, or TOPIC/PARTITION/INCARNATION/OFFSET of where the record was before. Default: all that the flags select."`
	Which  letterFilters `embed:""`

	Undo   bool   `env:"-" help:"Undo a discard: the records are open again."`
	DryRun bool   `env:"-" help:"Only print how many records would be marked."`
	Yes    bool   `env:"-" help:"Do not ask for confirmation."`
	By     string `env:"-" placeholder:"NAME" help:"Name of the person who discards the records. The command list shows it. Default: the user of this process."`
	JSON   bool   `name:"json" env:"-" help:"Print the result as JSON."`
}

// Run discards.
func (d *deadLettersDiscard) Run(ctx context.Context, c *grammar, to streams, logger *slog.Logger) (err error) {
	m, err := c.DeadLetters.open(ctx, &d.Which, d.Places, logger)
	if err != nil {
		return err
	}
	publisher, err := m.bus.Publisher(bus.PublisherOptions{})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, publisher.Close()) }()
	shown := newProgress(to.messages)
	discard := &deadletters.Discard{Box: m.Box, Publisher: publisher, Selection: m.selection, Undo: d.Undo, Read: shown.record, DryRun: true}
	discard.Call, discard.By = caller(d.By)
	run := func(what string) (deadletters.DiscardReport, error) {
		shown.begin(what, m.total)
		defer shown.end()
		return discard.Run(ctx)
	}
	report, err := run("reading records")
	if err != nil {
		return err
	}
	if err := found(d.Places, report.Selected); err != nil {
		return err
	}
	verb := "Discard"
	if d.Undo {
		verb = "Open again"
	}
	if !d.DryRun && report.Changed > 0 {
		if err := confirm(to, d.Yes, fmt.Sprintf("%s %s of %d selected?", verb, plural(int64(report.Changed), "record"), report.Selected)); err != nil {
			return err
		}
		discard.DryRun = false
		if report, err = run("marking records"); err != nil {
			return err
		}
	}
	report.DryRun = d.DryRun // also if there was nothing to mark
	if d.JSON {
		return writeJSON(to.out, report)
	}
	said := "Discarded"
	switch {
	case d.DryRun:
		said = "To " + map[bool]string{false: "discard", true: "open again"}[d.Undo]
	case d.Undo:
		said = "Open again"
	}
	fmt.Fprintf(to.out, "%s: %s of %d selected; redriven before: %d\n", said, plural(int64(report.Changed), "record"), report.Selected, report.Done)
	if report.Unreadable > 0 {
		_, err = fmt.Fprintf(to.out, "  %6d left as they are, as what was done about them cannot be read\n", report.Unreadable)
	}
	return err
}
