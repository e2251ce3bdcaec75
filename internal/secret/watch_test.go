package secret

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
)

// While Run runs, a change and a fault of a file are noticed though nobody asks for its
// content.
func TestIdleFilesAreLookedAt(t *testing.T) {
	m := newMount(t, "old")
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		files := NewFiles(slog.New(slog.NewTextHandler(&log, nil)))
		_, err := Open(files, "--password-file", []string{m.path}, func(contents [][]byte) (string, error) {
			if text, _ := Text(contents); text != "bad" {
				return text, nil
			}
			return "", errors.New("refused")
		})
		if err != nil {
			t.Fatal(err)
		}
		ctx, stop := context.WithCancel(t.Context())
		ended := make(chan error)
		go func() { ended <- files.Run(ctx) }()
		opened := time.Now()
		loaded := func() float64 { return testutil.ToFloat64(files.loaded.WithLabelValues("--password-file")) }
		failures := func() float64 { return testutil.ToFloat64(files.failures.WithLabelValues("--password-file")) }

		m.change("new")
		time.Sleep(Interval)
		synctest.Wait()
		if want := float64(opened.Add(Interval).Unix()); loaded() != want || failures() != 0 {
			t.Errorf("loaded at %v, want %v; %v failures", loaded(), want, failures())
		}
		m.change("bad")
		time.Sleep(Interval)
		synctest.Wait()
		if failures() != 1 || strings.Count(log.String(), "level=ERROR") != 1 {
			t.Errorf("%v failures, and the log is\n%s", failures(), log.String())
		}
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}

// lines is a log that a test reads while it is written.
type lines struct {
	mu   sync.Mutex
	said []string
}

func (l *lines) Write(line []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.said = append(l.said, string(line))
	return len(line), nil
}

// take returns the lines since the last call.
func (l *lines) take() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	said := l.said
	l.said = nil
	return said
}

// A certificate that expires soon is warned of each day, until it is renewed.
func TestExpiryIsWarnedOf(t *testing.T) {
	const day = 24 * time.Hour
	for name, test := range map[string]struct {
		valid time.Duration // from the start of the test
		days  []int         // on which there is a warning
	}{
		"of a year":   {18 * day, []int{5, 6, 7, 8}}, // day 4 ends with exactly 14 days
		"of a day":    {day, []int{1, 2, 3, 4, 5, 6, 7, 8}},
		"has expired": {-day, []int{1, 2, 3, 4, 5, 6, 7, 8}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				log := new(lines)
				files := NewFiles(slog.New(slog.NewTextHandler(log, nil)))
				ctx, stop := context.WithCancel(t.Context())
				ended := make(chan error)
				go func() { ended <- files.Run(ctx) }()
				begun := time.Now()
				start := begun
				if name == "of a year" {
					start = begun.Add(-347 * day)
				}
				files.Valid("--cert-file", start, begun.Add(test.valid))
				warned := make(map[int]bool)
				for d := range 9 {
					synctest.Wait()
					said := log.take()
					warned[d] = len(said) > 0
					if len(said) > 1 || warned[d] && !strings.Contains(said[0], "level=WARN") {
						t.Errorf("on day %d the log is %q", d, said)
					}
					time.Sleep(day + time.Second)
				}
				for d := range 9 {
					want := false
					for _, w := range test.days {
						want = want || w == d
					}
					if warned[d] != want {
						t.Errorf("day %d: warned %v, want %v", d, warned[d], want)
					}
				}
				files.Valid("--cert-file", time.Now(), time.Now().Add(365*day))
				synctest.Wait()
				log.take()
				time.Sleep(3 * day)
				synctest.Wait()
				if said := log.take(); len(said) > 0 {
					t.Errorf("after the renewal the log is %q", said)
				}
				if got, want := testutil.ToFloat64(files.expiry.WithLabelValues("--cert-file")), float64(time.Now().Add(362*day).Unix()); got != want {
					t.Errorf("the metric is %v, want %v", got, want)
				}
				stop()
				if err := <-ended; err != nil {
					t.Error(err)
				}
			})
		})
	}
}
