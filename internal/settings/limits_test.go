package settings_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/bus/memory"
	"github.com/morphogenetic/oona/internal/settings"
	"github.com/morphogenetic/oona/windows"
)

// delayed returns a configuration of a generation from an event time on, with a max-delay.
func delayed(generation int32, from oona.Micros, delay time.Duration) oona.WindowConfiguration {
	cfg := windows.DefaultConfig()
	cfg.Generation, cfg.MaxDelay = generation, delay
	return windows.Configuration{Config: cfg, From: from}.Record()
}

// The limits are those of all configurations that are in the topic: a correction replaces
// what was wrong, and a log that was made again begins anew.
func TestReadLimits(t *testing.T) {
	onBus(t, func(t *testing.T, b *memory.Bus, topics oona.Topics) {
		time.Sleep(10000 * time.Hour)
		now := oona.MicrosOf(time.Now())
		hours := func(n float64) *oona.Frame { return &oona.Frame{ObservedAt: now - oona.Micros(n*3600e6)} }
		makeTopics(t, b, topics, 2)
		write := func(entries ...settings.Entry) {
			t.Helper()
			if err := settings.Write(t.Context(), b, topics, entries...); err != nil {
				t.Fatal(err)
			}
		}
		both := func(c oona.WindowConfiguration) { write(settings.WindowsEntry(0, c), settings.WindowsEntry(1, c)) }
		stale := func(name string, want bool, f *oona.Frame) {
			t.Helper()
			l, err := settings.ReadLimits(t.Context(), b, topics)
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			if why, _ := l.Judge(f, now, now); (why == windows.ReasonStale) != want {
				t.Errorf("%s: %q", name, why)
			}
		}
		unknown := func(name string) {
			t.Helper()
			if l, err := settings.ReadLimits(t.Context(), b, topics); !errors.Is(err, settings.ErrNoLimits) || l.Known() {
				t.Errorf("%s: %v, %v", name, l, err)
			}
		}
		unknown("an empty topic")
		write(settings.WindowsEntry(0, delayed(1, 0, 10*time.Hour)))
		unknown("a partition without a configuration")
		write(settings.WindowsEntry(1, delayed(1, 0, 10*time.Hour)))
		stale("one configuration", true, hours(11))
		stale("one configuration", false, hours(9))
		both(delayed(3, now-5*3600e6, time.Hour))
		stale("the time before the second one", false, hours(9))
		stale("the time before the second one", true, hours(11))
		stale("the time of the second one", true, hours(3))
		both(delayed(2, now-5*3600e6, 4*time.Hour))
		stale("a correction of the second one", false, hours(3))
		both(delayed(1, 0, time.Hour))
		stale("a log that was made again", true, hours(9))
		publish(t, b, topics.Settings, keyed("windows/1", nil))
		unknown("a configuration that was deleted")
		later := delayed(2, now, time.Hour)
		later.Reducer = windows.Reducer + 1
		write(settings.WindowsEntry(1, later))
		if _, err := settings.ReadLimits(t.Context(), b, topics); !errors.Is(err, settings.ErrNoLimits) || !errors.Is(err, windows.ErrReducer) {
			t.Errorf("a configuration of a later version: %v", err)
		}
	})
}

// Changes are followed. Without the topics the limits are not known, which is logged once.
func TestFollowLimits(t *testing.T) {
	onBus(t, func(t *testing.T, b *memory.Bus, topics oona.Topics) {
		var log safeBuffer
		var limits atomic.Pointer[windows.Limits]
		ctx, stop := context.WithCancel(t.Context())
		var following sync.WaitGroup
		following.Go(func() {
			settings.FollowLimits(ctx, b, topics, slog.New(slog.NewTextHandler(&log, nil)), limits.Store)
		})
		time.Sleep(3 * time.Minute)
		if limits.Load().Known() || strings.Count(log.String(), "level=WARN") != 1 {
			t.Errorf("without topics they are %v\n%s", limits.Load(), log.String())
		}
		makeTopics(t, b, topics, 1)
		time.Sleep(time.Minute)
		if err := settings.Write(t.Context(), b, topics, settings.WindowsEntry(0, delayed(1, 0, time.Hour))); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		if !limits.Load().Known() || strings.Count(log.String(), "level=WARN") != 2 || strings.Count(log.String(), "level=INFO") != 1 {
			t.Errorf("they are %v\n%s", limits.Load(), log.String())
		}
		publish(t, b, topics.Settings, keyed("windows/0", nil))
		time.Sleep(time.Minute)
		if limits.Load().Known() || strings.Count(log.String(), "level=WARN") != 3 {
			t.Errorf("after a deletion they are %v\n%s", limits.Load(), log.String())
		}
		stop()
		following.Wait()
	})
}

// safeBuffer is a buffer for a log.
type safeBuffer struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (b *safeBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.Write(p)
}

func (b *safeBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.String()
}
