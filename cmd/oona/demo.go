package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"

	"github.com/morphogenetic/oona/internal/demo"
)

type demoCommand struct {
	demo.Config `embed:""`
}

var errDisagree = errors.New("the sums do not agree")

// Run returns an error, and so sets the exit status, if the sums do not agree.
func (c *demoCommand) Run(ctx context.Context, logger *slog.Logger, to streams) error {
	out := to.out
	if c.JSON {
		out = to.messages
	}
	screen, closeScreen := openScreen(out)
	defer closeScreen()
	report, err := demo.Run(ctx, c.Config, screen, aboveTable(screen, logger))
	if err != nil {
		return err
	}
	if err := report.Print(out); err != nil {
		return err
	}
	if c.JSON {
		if err := writeJSON(to.out, report); err != nil {
			return fmt.Errorf("print the reconciliation: %w", err)
		}
	}
	if !report.Agree {
		return errDisagree
	}
	return nil
}
