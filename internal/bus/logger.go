package bus

import (
	"context"
	"log/slog"

	"github.com/ThreeDotsLabs/watermill"
)

// quiet is Watermill's logger over slog, one level down, as Watermill tells of
// each connection and each message. It builds nothing for a level that is off.
type quiet struct{ logger *slog.Logger }

func (q quiet) Error(text string, err error, fields watermill.LogFields) {
	q.log(slog.LevelWarn, text, fields.Add(watermill.LogFields{"err": err}))
}

func (q quiet) Info(text string, fields watermill.LogFields) { q.log(slog.LevelDebug, text, fields) }

func (q quiet) Debug(text string, fields watermill.LogFields) {
	q.log(slog.LevelDebug-4, text, fields)
}

func (q quiet) Trace(text string, fields watermill.LogFields) {
	q.log(slog.LevelDebug-8, text, fields)
}

func (q quiet) With(fields watermill.LogFields) watermill.LoggerAdapter {
	return quiet{q.logger.With(attributes(fields)...)}
}

func (q quiet) log(level slog.Level, text string, fields watermill.LogFields) {
	if q.logger.Enabled(context.Background(), level) {
		q.logger.Log(context.Background(), level, text, attributes(fields)...)
	}
}

func attributes(fields watermill.LogFields) []any {
	attrs := make([]any, 0, 2*len(fields))
	for name, value := range fields {
		attrs = append(attrs, name, value)
	}
	return attrs
}
