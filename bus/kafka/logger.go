package kafka

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"github.com/IBM/sarama"
	"github.com/ThreeDotsLabs/watermill"
)

// watermillLogger writes the log lines of Watermill to slog, one level lower, because Watermill logs
// each connection and each message.
type watermillLogger struct {
	logger *slog.Logger
	errors *throttle
	failed func(error) // is called with each error; may be nil
}

func newWatermillLogger(logger *slog.Logger) watermillLogger {
	return watermillLogger{logger: logger, errors: &throttle{now: time.Now, texts: make(map[string]*throttled)}}
}

// throttle allows each text once a second. While a coordinator is unavailable, Watermill repeats the
// same text a hundred times a second.
type throttle struct {
	now func() time.Time

	mu    sync.Mutex
	texts map[string]*throttled // there are only a few dozen different texts
}

type throttled struct {
	last    time.Time
	skipped int
}

const throttleInterval = time.Second

// allow returns how often the text was suppressed since it was last allowed.
func (t *throttle) allow(text string) (skipped int, ok bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	seen := t.texts[text]
	if seen == nil {
		seen = new(throttled)
		t.texts[text] = seen
	}
	if now := t.now(); now.Sub(seen.last) >= throttleInterval {
		skipped, seen.skipped, seen.last = seen.skipped, 0, now
		return skipped, true
	}
	seen.skipped++
	return 0, false
}

func (q watermillLogger) Error(text string, err error, fields watermill.LogFields) {
	err = refusedAccess(err)
	if q.failed != nil && err != nil {
		q.failed(err)
	}
	skipped, ok := q.errors.allow(text)
	if !ok {
		return
	}
	fields = fields.Add(watermill.LogFields{"err": err})
	if skipped > 0 {
		fields = fields.Add(watermill.LogFields{"suppressed": skipped})
	}
	level := slog.LevelWarn
	if errors.Is(err, sarama.ErrDecompressedBatchTooLarge) {
		// sarama fetches the batch again and again, and does not report its offset.
		level, text = slog.LevelError, "a batch of records is too large after decompression: its partition is not read beyond the group's committed offset; delete the batch with kafka-delete-records"
	}
	q.log(level, text, fields)
}

func (q watermillLogger) Info(text string, fields watermill.LogFields) {
	q.log(slog.LevelDebug, text, fields)
}

func (q watermillLogger) Debug(text string, fields watermill.LogFields) {
	q.log(slog.LevelDebug-4, text, fields)
}

func (q watermillLogger) Trace(text string, fields watermill.LogFields) {
	q.log(slog.LevelDebug-8, text, fields)
}

func (q watermillLogger) With(fields watermill.LogFields) watermill.LoggerAdapter {
	return watermillLogger{q.logger.With(attributes(fields)...), q.errors, q.failed}
}

func (q watermillLogger) log(level slog.Level, text string, fields watermill.LogFields) {
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
