package worker

import (
	"io"
	"log/slog"
	"os"
	"strings"

	"golang.org/x/term"
)

// LogConfig configures the log.
type LogConfig struct {
	Level  string `default:"info" enum:"debug,info,warn,error" help:"Minimum level to log: debug, info, warn or error."`
	Format string `default:"auto" enum:"auto,text,json" help:"Format of log lines: text, json, or auto (text on a terminal, otherwise json)."`
}

// NewLogger returns a logger that writes to w. If the level is unknown, it is info.
func NewLogger(cfg LogConfig, w io.Writer) *slog.Logger {
	return slog.New(newHandler(cfg, w, isTerminal(w)))
}

func newHandler(cfg LogConfig, w io.Writer, terminal bool) slog.Handler {
	var level slog.Level
	_ = level.UnmarshalText([]byte(cfg.Level)) // the flag is an enum; the zero level is info
	options := &slog.HandlerOptions{Level: level, ReplaceAttr: readable}
	if cfg.Format == "json" || cfg.Format != "text" && !terminal {
		return slog.NewJSONHandler(w, options)
	}
	return slog.NewTextHandler(w, options)
}

// readable formats durations as "1.5s", for which slog writes nanoseconds in JSON, and
// errors in one line.
func readable(_ []string, a slog.Attr) slog.Attr {
	if a.Value.Kind() == slog.KindDuration {
		a.Value = slog.StringValue(a.Value.Duration().String())
	}
	if err, ok := a.Value.Any().(error); ok {
		if text := err.Error(); strings.Contains(text, "\n") {
			a.Value = slog.StringValue(oneLine(text))
		}
	}
	return a
}

// oneLine joins the lines of a text.
func oneLine(text string) string {
	one := ""
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		switch {
		case one == "" || line == "":
		case strings.HasSuffix(one, ":"):
			one += " "
		default:
			one += "; "
		}
		one += line
	}
	return one
}

func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}
