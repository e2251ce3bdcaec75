package worker

import (
	"bytes"
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/morphogenetic/oona/internal/secret"
)

// A worker notices a changed secret file, also if it never needs it.
func TestAnIdleWorkerLooksAtSecretFiles(t *testing.T) {
	path := filepath.Join(t.TempDir(), "token")
	write := func(content string) {
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("old")
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		ctx, stop := context.WithCancel(t.Context())
		w := &Worker{Secrets: secret.NewFiles(slog.New(slog.NewTextHandler(&log, nil))), stop: stop}
		if _, err := secret.Open(w.Secrets, "--token-file", []string{path}, secret.Text); err != nil {
			t.Fatal(err)
		}
		ended := make(chan error)
		go func() {
			ended <- w.Run(ctx, Component{"idle", func(ctx context.Context) error { <-ctx.Done(); return nil }})
		}()
		write("new")
		time.Sleep(secret.Interval)
		synctest.Wait()
		if !strings.Contains(log.String(), "setting=--token-file") {
			t.Errorf("the log is\n%s", log.String())
		}
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}
