package main

import (
	"bytes"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

// shownProgress is what a terminal shows of a replay.
var shownProgress = regexp.MustCompile(`\r\x1b\[Krecords(, after \d+ from before the range)?: \d+ of \d+, \d+/s`)

// All outputs show their progress on a terminal, and only there.
func TestReplayShowsItsProgress(t *testing.T) {
	_, cfg := startBroker(t)
	i := &installation{t: t, cfg: cfg, topics: defaultNames(t), group: "kasmina"}
	i.applyTopics()
	i.recordMinutes(0, 3)
	i.aggregateAll()
	dir := t.TempDir()
	term := newTerminal(t, 100, 24)
	on := func(args ...string) (status int, out, shown string) {
		t.Helper()
		term.mu.Lock()
		term.text.Reset()
		term.mu.Unlock()
		var printed bytes.Buffer
		args = append([]string{"replay", "--brokers", strings.Join(i.cfg.Brokers, ","), "--group", i.group}, args...)
		status = newGrammar().execute(t.Context(), args, streams{strings.NewReader(""), &printed, term.tty})
		_, _ = term.tty.WriteString("ended\n")
		for shown = term.written(); !strings.Contains(shown, "ended"); shown = term.written() {
			time.Sleep(time.Millisecond)
		}
		return status, printed.String(), shown
	}
	archive := filepath.Join(dir, "archive")
	for _, args := range [][]string{
		{"--archive", archive}, {"--aggregate"}, {archive, "--aggregate"}, {archive, "--aggregate", "--from=offset:20"}, {archive, "--archive", filepath.Join(dir, "copy")},
		{"--avro", filepath.Join(dir, "avro")}, {"--parquet", filepath.Join(dir, "parquet")}, {"--lines"}, {"--aggregate", "--window=1m"}, {"--aggregate", "--lines"},
	} {
		if status, out, shown := on(args...); status != 0 || !shownProgress.MatchString(shown) || strings.Contains(out, "\x1b") {
			t.Errorf("%v: status %d, %q, on the terminal %q", args, status, out, shown)
		}
		args = append(args, "--no-progress")
		if status, _, shown := on(args...); status != 0 || strings.Contains(shown, "\x1b[K") {
			t.Errorf("%v: status %d, on the terminal %q", args, status, shown)
		}
	}
	if _, out, shown := on("--archive", filepath.Join(dir, "json"), "--json"); !shownProgress.MatchString(shown) || !strings.HasPrefix(out, "{") {
		t.Errorf("with --json: %q, on the terminal %q", out, shown)
	}
}
