package main

import (
	"io"
	"log/slog"
	"os"
	"os/signal"
	"syscall"

	"golang.org/x/term"

	"github.com/morphogenetic/oona/internal/watch"
)

// terminalSize returns a function that returns the columns and rows of the terminal w,
// or nil if w is not a terminal on which text can be replaced.
func terminalSize(w io.Writer) func() (columns, rows int) {
	f, ok := w.(*os.File)
	if !ok || !term.IsTerminal(int(f.Fd())) || os.Getenv("TERM") == "dumb" {
		return nil
	}
	return func() (columns, rows int) {
		columns, rows, err := term.GetSize(int(f.Fd()))
		if err != nil || columns <= 0 || rows <= 0 {
			return 80, 24
		}
		return columns, rows
	}
}

// openScreen returns the screen of a table that is written to w. The caller must close it.
func openScreen(w io.Writer) (screen watch.Screen, closed func()) {
	size := terminalSize(w)
	if size == nil {
		return watch.Screen{Out: w}, func() {}
	}
	resized := make(chan os.Signal, 1)
	signal.Notify(resized, syscall.SIGWINCH)
	// See https://no-color.org.
	color := os.Getenv("NO_COLOR") == ""
	return watch.Screen{Out: w, Size: size, Resized: resized, Colours: color, Region: new(watch.Region)}, func() { signal.Stop(resized) }
}

// aboveTable returns a logger whose lines do not disturb the table on the screen.
func aboveTable(screen watch.Screen, logger *slog.Logger) *slog.Logger {
	if screen.Region == nil {
		return logger
	}
	return slog.New(screen.Region.Above(screen.Out, logger.Handler()))
}
