package kafka

import (
	"bytes"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/IBM/sarama"
	"github.com/ThreeDotsLabs/watermill"
)

// An error that is repeated is logged once a second, with the number of suppressed ones.
// Another error is logged immediately.
func TestRepeatedErrorsAreThrottled(t *testing.T) {
	var out bytes.Buffer
	now := time.Date(2026, 5, 1, 0, 0, 0, 0, time.UTC)
	q := newWatermillLogger(slog.New(slog.NewTextHandler(&out, nil)))
	q.errors.now = func() time.Time { return now }
	away := errors.New("away")
	for range 100 {
		q.With(watermill.LogFields{"a": 1}).Error("Group consume error", away, nil)
		now = now.Add(10 * time.Millisecond)
	}
	q.Error("Other error", away, nil)
	q.Error("Group consume error", away, nil)
	lines := strings.Split(strings.TrimSpace(out.String()), "\n")
	if len(lines) != 3 || !strings.Contains(lines[0], "a=1") || !strings.Contains(lines[1], "Other error") || !strings.Contains(lines[2], "suppressed=99") {
		t.Errorf("the log is\n%s", out.String())
	}
}

// An error that stops a partition permanently is logged as an error. The log line says what to do.
func TestUnreadableBatchIsAnError(t *testing.T) {
	var out bytes.Buffer
	q := newWatermillLogger(slog.New(slog.NewTextHandler(&out, nil)))
	q.Error("Sarama internal error", &sarama.ConsumerError{Topic: "seed.raw", Partition: 3, Err: sarama.ErrDecompressedBatchTooLarge}, nil)
	for _, want := range []string{"level=ERROR", "kafka-delete-records", "seed.raw/3"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("the log does not say %s: %s", want, out.String())
		}
	}
}
