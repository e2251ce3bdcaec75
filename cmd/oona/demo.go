package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"

	"golang.org/x/term"

	"github.com/morphogenetic/oona/internal/demo"
	"github.com/morphogenetic/oona/internal/watch"
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
	report, err := demo.Run(ctx, c.Config, watch.Screen{Out: out, Size: terminalSize(out)}, logger)
	if err != nil {
		return err
	}
	if err := report.Print(out); err != nil {
		return err
	}
	if c.JSON {
		encoder := json.NewEncoder(to.out)
		encoder.SetIndent("", "  ")
		if err := encoder.Encode(report); err != nil {
			return fmt.Errorf("print the reconciliation: %w", err)
		}
	}
	if !report.Agree {
		return errDisagree
	}
	return nil
}

// terminalSize returns a function that returns the columns and rows of the terminal w,
// or nil if w is not a terminal.
func terminalSize(w io.Writer) func() (columns, rows int) {
	f, ok := w.(*os.File)
	if !ok || !term.IsTerminal(int(f.Fd())) {
		return nil
	}
	return func() (columns, rows int) {
		columns, rows, err := term.GetSize(int(f.Fd()))
		if err != nil {
			return 80, 24
		}
		return columns, rows
	}
}
