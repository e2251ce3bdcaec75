package deadletters_test

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/morphogenetic/oona/deadletters"
)

// What a filter has started ends with it, whether the filter ends by itself or not.
func TestFilterLeavesNothingRunning(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		filter string
		cancel bool
	}{
		"in the background": {`sleep 600 >FIFO 2>&1 & cat`, false},
		"with the output":   {`sleep 600 3>FIFO & cat`, false},
		"interrupted":       {`sleep 600 >FIFO; cat`, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			w.letter(w.topics.Quarantine, frameMessage(frame(0, time.Now())), 0, "future")
			fifo := filepath.Join(t.TempDir(), "fifo")
			if err := syscall.Mkfifo(fifo, 0o600); err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			ended := make(chan error, 1)
			go func() {
				file, err := os.Open(fifo) // waits until the program has opened it
				if tt.cancel {
					cancel()
				}
				if err == nil {
					_, err = io.ReadAll(file) // until the program is gone
					err = errors.Join(err, file.Close())
				}
				ended <- err
			}()
			r := w.redrive()
			r.Repair.Filter = strings.ReplaceAll(tt.filter, "FIFO", fifo)
			_, err := r.Run(ctx)
			if tt.cancel && !errors.Is(err, context.Canceled) {
				t.Errorf("%v", err)
			}
			select {
			case err := <-ended:
				if err != nil {
					t.Error(err)
				}
			case <-time.After(5 * time.Minute):
				t.Error("a program that the filter has started runs on")
			}
		})
	}
}

// The reason says what the filter did, not how it was found out.
func TestFilterErrors(t *testing.T) {
	t.Parallel()
	for _, filter := range []string{"exit 3", "sleep 60 & cat", "kill -9 $$"} {
		t.Run(filter, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			w.letter(w.topics.Quarantine, frameMessage(frame(0, time.Now())), 0, "future")
			r := w.redrive()
			r.Repair.Filter = filter
			_, err := r.Run(t.Context())
			wrong, ok := errors.AsType[*deadletters.FilterError](err)
			if !ok || strings.Contains(wrong.Reason, "WaitDelay") || strings.HasSuffix(strings.TrimSpace(wrong.Reason), ":") {
				t.Errorf("%v", err)
			}
		})
	}
}
