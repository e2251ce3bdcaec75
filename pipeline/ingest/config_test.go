package ingest

import (
	"bytes"
	"errors"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/morphogenetic/oona"
)

func TestConfigIsValidated(t *testing.T) {
	for name, change := range map[string]func(*Config){
		"--instance":          func(c *Config) { c.Instance = "a b" },
		"--max-body-bytes":    func(c *Config) { c.MaxBodyBytes = 0 },
		"--max-frames":        func(c *Config) { c.MaxFrames = -1 },
		"--max-message-bytes": func(c *Config) { c.MaxMessageBytes = recordOverhead },
		"--max-in-flight":     func(c *Config) { c.MaxInFlight = 0 },
		"--max-upload-bytes":  func(c *Config) { c.MaxUploadBytes = 0 },
		"--publish-timeout":   func(c *Config) { c.PublishTimeout = 0 },
		"topic":               func(c *Config) { c.Topic = "" },
	} {
		cfg := DefaultConfig()
		cfg.Topic = "t"
		change(&cfg)
		_, err := New(cfg, newBus(t), prometheus.NewRegistry(), slog.New(slog.DiscardHandler))
		if wrong, ok := errors.AsType[*oona.FieldError](err); !ok || wrong.Field != name {
			t.Errorf("%s: error is %v", name, err)
		}
	}
	for host, want := range map[string]string{"": "ingest", "node 1/ä": "node-1--", "web-0.oona": "web-0.oona", strings.Repeat("h", 200): strings.Repeat("h", 128)} {
		if got := instanceOf(host); got != want {
			t.Errorf("instance of %q is %q, want %q", host, got, want)
		}
	}
}

func TestThrottle(t *testing.T) {
	limit := throttle{every: 10 * time.Second, kinds: make(map[string]*throttled)}
	at := time.Unix(1_000, 0)
	for i, c := range []struct {
		after   time.Duration
		skipped int
		ok      bool
	}{{0, 0, true}, {1, 0, false}, {9 * time.Second, 0, false}, {10 * time.Second, 2, true}, {11 * time.Second, 0, false}, {20 * time.Second, 1, true}, {30 * time.Second, 0, true}} {
		if skipped, ok := limit.allow("a", at.Add(c.after)); skipped != c.skipped || ok != c.ok {
			t.Errorf("event %d: %d, %t", i, skipped, ok)
		}
	}
}

// Dead letters of a bad trainer do not hide that the store is down.
func TestWarningsHideNoOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStage(t, newBus(t), nil)
		var log bytes.Buffer
		s.logger = slog.New(slog.NewTextHandler(&log, nil))
		for range 100 {
			s.warn("a dead letter")
		}
		s.warn("no store")
		s.warn("no store")
		time.Sleep(10 * time.Second)
		s.warn("no store")
		s.warn("a dead letter")
		var got []string
		for line := range strings.Lines(log.String()) {
			_, text, _ := strings.Cut(strings.TrimSpace(line), "msg=")
			got = append(got, text)
		}
		want := []string{`"a dead letter" suppressed=0`, `"no store" suppressed=0`, `"no store" suppressed=1`, `"a dead letter" suppressed=99`}
		if !slices.Equal(got, want) {
			t.Errorf("logged %q, want %q", got, want)
		}
	})
}

func TestTraceParent(t *testing.T) {
	const good = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
	for value, want := range map[string]bool{
		good: true, strings.Replace(good, "00", "cc", 1): true,
		"": false, good + "-x": false, strings.ToUpper(good): false, strings.Replace(good, "00", "ff", 1): false,
		strings.ReplaceAll(good, "-", "_"): false, good[:52] + "-0\n": false,
		"00-00000000000000000000000000000000-b7ad6b7169203331-01": false,
		"00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01": false,
	} {
		if got := traceOf(http.Header{"Traceparent": {value}}) != ""; got != want {
			t.Errorf("%q: taken is %t", value, got)
		}
	}
	if traceOf(http.Header{"Traceparent": {good, good}}) != "" {
		t.Error("two headers are taken")
	}
}
