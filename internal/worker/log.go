package worker

import (
	"io"
	"log/slog"
	"os"

	"golang.org/x/term"
)

// LogConfig says what is logged and how.
type LogConfig struct {
	Level  string `default:"info" enum:"debug,info,warn,error" help:"The least level that is logged: debug, info, warn or error."`
	Format string `default:"auto" enum:"auto,text,json" help:"text, json, or auto: text on a terminal, json elsewhere."`
}

// NewLogger returns a logger that writes to w. An unknown level is info.
func NewLogger(cfg LogConfig, w io.Writer) *slog.Logger {
	var level slog.Level
	_ = level.UnmarshalText([]byte(cfg.Level)) // the flag is an enum; the zero level is info
	options := &slog.HandlerOptions{Level: level, ReplaceAttr: readable}
	if cfg.Format == "json" || cfg.Format != "text" && !isTerminal(w) {
		return slog.New(slog.NewJSONHandler(w, options))
	}
	return slog.New(slog.NewTextHandler(w, options))
}

// readable has a time span written as "1.5s" in JSON too, where slog writes
// nanoseconds.
func readable(_ []string, a slog.Attr) slog.Attr {
	if a.Value.Kind() == slog.KindDuration {
		a.Value = slog.StringValue(a.Value.Duration().String())
	}
	return a
}

func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}
