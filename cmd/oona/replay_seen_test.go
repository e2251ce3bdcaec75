package main

import (
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/schemas/avro"
)

// If nothing is selected, the command says what is there instead.
func TestReplaySaysWhatIsThere(t *testing.T) {
	w := newWatched(t)
	w.fill()
	for _, c := range []struct {
		asked []string
		says  []string
	}{
		{[]string{"--run=b"}, []string{"--run b is not there", "a"}},
		{[]string{"--layer=enc.7"}, []string{"--layer enc.7 is not there", "enc.0, enc.1"}},
		{[]string{"--metric=los"}, []string{"--metric los is not there", "loss, norm"}},
		{[]string{"--state=culled"}, []string{"--state CULLED is not there", "DORMANT, TRAINING"}},
		{[]string{"--seed=9"}, []string{"--seed is not there", "from 1 to 2"}},
		{[]string{"--seed=1", "--state=dormant"}, []string{"not there together"}},
		{[]string{"--run=a", "--layer=enc.0"}, nil},
		{nil, nil},
	} {
		args := append([]string{"--lines", w.topics.SeedMetrics}, c.asked...)
		status, out, messages := w.replayOf(args...)
		want := 0
		if c.says != nil {
			want = exitNothing
		}
		if status != want || (out == "") != (c.says != nil) || strings.Contains(messages, "nothing was selected") != (c.says != nil) {
			t.Errorf("%v: status %d, %q, %q", c.asked, status, out, messages)
		}
		for _, s := range c.says {
			if !strings.Contains(messages, s) {
				t.Errorf("%v: %q does not say %q", c.asked, messages, s)
			}
		}
	}
	if _, _, messages := w.replayOf("--lines", "--run=b", "--from=offset:4", w.topics.SeedMetrics); !strings.Contains(messages, "no frames, rollups or events") {
		t.Errorf("of a range without frames: %q", messages)
	}

	dir := filepath.Join(t.TempDir(), "files")
	for _, until := range []string{"--until=offset:1", "--until=offset:1", "--until=now"} {
		if status, _, messages := w.replayOf("--avro", dir, "--run=a", "--layer=enc.0", until, w.topics.SeedMetrics); status != 0 || strings.Contains(messages, "nothing was selected") {
			t.Errorf("a directory that is continued to %s: status %d, %q", until, status, messages)
		}
	}
}

// Whatever a selection is for, the exit status says that it selects nothing: also when the
// command is run again, and not if an earlier call has selected something.
func TestReplayThatSelectsNothing(t *testing.T) {
	w := newWatched(t)
	w.fill()
	for _, action := range [][]string{{"--lines"}, {"--to-topic", w.topics.Quarantine, "--yes"}, {"--avro", t.TempDir()}, {"--parquet", t.TempDir()}} {
		for _, until := range []string{"offset:2", "now", "now"} {
			status, _, messages := w.replayOf(slices.Concat(action, []string{"--run=b", "--until", until, w.topics.SeedMetrics})...)
			if status != exitNothing || !strings.Contains(messages, errNothing.Error()) {
				t.Errorf("%v until %s of another run: status %d, %q", action, until, status, messages)
			}
		}
		directory := action[0] == "--avro" || action[0] == "--parquet"
		if directory {
			action = []string{action[0], t.TempDir()} // a directory is for one selection
		}
		for range 2 {
			if status, _, messages := w.replayOf(slices.Concat(action, []string{"--run=a", w.topics.SeedMetrics})...); status != 0 {
				t.Errorf("%v of what is there: status %d, %q", action, status, messages)
			}
		}
		if directory {
			action = []string{action[0], t.TempDir()}
		}
		if status, _, messages := w.replayOf(slices.Concat(action, []string{"--until=offset:0", w.topics.SeedMetrics})...); status != 0 {
			t.Errorf("%v of all of an empty range: status %d, %q", action, status, messages)
		}
	}
}

// A directory that does not exist is taken for a topic, and the error says so.
func TestReplayOfAMistypedDirectory(t *testing.T) {
	w := newWatched(t)
	const taken = "was taken for a topic or an address"
	for _, source := range []string{"run-42", "./run-42", filepath.Join(t.TempDir(), "run-42")} {
		for _, action := range []string{"--aggregate", "--lines"} {
			if status, _, messages := w.replayOf(source, action, "--group=g"); status == 0 || !strings.Contains(messages, source+" "+taken) && !strings.Contains(messages, "no directory "+source) {
				t.Errorf("%s %s: status %d, %q", source, action, status, messages)
			}
		}
		if status, _, messages := run(t, "replay", source, "--aggregate", "--brokers=127.0.0.1:1"); status == 0 || !strings.Contains(messages, source+" "+taken) {
			t.Errorf("%s without a bus: status %d, %q", source, status, messages)
		}
	}
	if status, _, messages := run(t, "replay", w.topics.SeedMetrics, "--lines", "--brokers=127.0.0.1:1"); status == 0 || strings.Contains(messages, taken) {
		t.Errorf("a topic without a bus: status %d, %q", status, messages)
	}
}

// A frame without metrics has a list of none in JSON.
func TestLinesOfAFrameWithoutMetrics(t *testing.T) {
	w := newWatched(t)
	f := framed("enc.0", 0)
	f.Metrics = nil
	w.publish(w.topics.SeedMetrics, avro.AppendFrame(nil, f), withKey, string(oona.Key(f.Run, f.Layer)))
	if lines := w.lines(w.topics.SeedMetrics); len(lines) != 1 || !strings.Contains(lines[0], `"metrics":[]`) {
		t.Errorf("%s", lines)
	}
}
