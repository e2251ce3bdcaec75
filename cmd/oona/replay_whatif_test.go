package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/morphogenetic/oona"
)

// imaginedRollup is a line of oona replay --aggregate --what-if --lines.
type imaginedRollup struct {
	Kind      string
	Partition int32
	Rollup    struct {
		Group   string
		Layer   oona.LayerID `json:"layer_id"`
		Start   time.Time    `json:"window_start"`
		End     time.Time    `json:"window_end"`
		Offset  int64        `json:"trigger_offset"`
		Frames  int64
		Reducer int32
		Kind    string  `json:"window_kind"`
		Hop     float64 `json:"window_hop_seconds"`
	}
}

func imaginedLines(t *testing.T, out string) (all []imaginedRollup) {
	t.Helper()
	lines := bufio.NewScanner(strings.NewReader(out))
	lines.Buffer(nil, 16<<20)
	for lines.Scan() {
		var r imaginedRollup
		if err := json.Unmarshal(lines.Bytes(), &r); err != nil {
			t.Fatalf("%v in %q", err, lines.Text())
		}
		all = append(all, r)
	}
	return all
}

// The frames of eight minutes, each layer's every five seconds, in other windows.
func TestReplayWhatIf(t *testing.T) {
	onInstallations(t, func(t *testing.T, i *installation) {
		i.applyTopics()
		i.recordMinutes(0, 8)
		for _, partial := range []bool{false, true} {
			args := []string{"--aggregate", "--window", "1m", "--lateness", "7s", "--lines"}
			want := 7 // the last one is open
			if partial {
				args, want = append(args, "--partial"), 8
			}
			status, out, messages := i.replays(args...)
			if status != 0 {
				t.Fatalf("status %d, %q", status, messages)
			}
			all := imaginedLines(t, out)
			if len(all) != want*4*2 {
				t.Errorf("%d rollups, want %d windows of 4 layers and 2 groups", len(all), want)
			}
			for _, r := range all {
				if r.Rollup.End.Sub(r.Rollup.Start) != time.Minute || !r.Rollup.Start.Equal(r.Rollup.Start.Truncate(time.Minute)) || r.Rollup.Frames != 12 {
					t.Errorf("%+v", r)
				}
			}
			for _, says := range []string{"window-length: 1m0s (the log: 10s)", "allowed-lateness: 7s (the log: 5s)", "nothing is compared"} {
				if !strings.Contains(messages, says) {
					t.Errorf("the messages have no %q: %q", says, messages)
				}
			}
		}
		i.whatIfKinds()
		i.whatIfFrom()
		i.whatIfOffline()
		i.whatIfFlags()
	})
}

// whatIfFrom folds a range that does not begin with the log. Its frames were observed long
// before they were appended, so all of its windows may lack frames.
func (i *installation) whatIfFrom() {
	i.t.Helper()
	middle := i.heldOf(i.topics.SeedMetrics)[0].End / 2
	from := []string{"--aggregate", "--what-if", "--window-length", "20s", "--partition", "0", "--from", "offset:" + fmt.Sprint(middle), "--json"}
	out := parse[imagined](i.t, i.must(from...))
	if out.Rollups != 0 || out.Before == 0 || out.Open == 0 || out.Frames == 0 {
		i.t.Errorf("from the middle: %+v", out)
	}
	partial := parse[imagined](i.t, i.must(append(from, "--partial")...))
	if partial.Rollups == 0 || partial.Before != 0 || partial.Open != 0 || partial.Frames != out.Frames {
		i.t.Errorf("from the middle, partial: %+v", partial)
	}
	if len(out.Overrides) != 1 || out.Overrides[0] != (override{"window-length", "10s", "20s"}) {
		i.t.Errorf("overrides are %+v", out.Overrides)
	}
}

// whatIfOffline folds an archive with another catalogue, without a bus.
func (i *installation) whatIfOffline() {
	i.t.Helper()
	dir := filepath.Join(i.t.TempDir(), "archive")
	i.must("--archive", dir)
	file := filepath.Join(i.t.TempDir(), "metrics.yaml")
	if err := os.WriteFile(file, []byte("metrics: {gradient_norm: {group: performance, direction: lower_is_better}}\n"), 0o600); err != nil {
		i.t.Fatal(err)
	}
	status, out, messages := i.replaysOffline(dir, "--aggregate", "--what-if", "--catalogue", file, "--lines")
	if status != 0 || len(imaginedLines(i.t, out)) == 0 || !strings.Contains(messages, "catalogue: ") {
		i.t.Fatalf("status %d, %q", status, messages)
	}
	for line := range strings.Lines(out) {
		if strings.Contains(line, `"group":"performance"`) != strings.Contains(line, `"gradient_norm"`) {
			i.t.Errorf("gradient_norm is of performance in the catalogue: %s", line)
		}
	}
}

// whatIfFlags gives flags that do not fit together.
func (i *installation) whatIfFlags() {
	i.t.Helper()
	for _, args := range [][]string{
		{"--window", "1m"}, {"--aggregate", "--window", "1m", "--session", "30s"}, {"--aggregate", "--partial"}, {"--aggregate", "--reducer", "2"},
		{"--aggregate", "--window", "0s"}, {"--aggregate", "--window", "1m/"}, {"--aggregate", "--session", "-1s"},
	} {
		if status, out, _ := i.replays(args...); status != exitUsage || out != "" {
			i.t.Errorf("%v: status %d, %q", args, status, out)
		}
	}
	i.refused(exitFailed, "--window-length", "--aggregate", "--window", "1ns")
	i.refused(exitFailed, "Reducer", "--aggregate", "--window", "1m", "--reducer", "9")
}

// whatIfKinds folds the frames into hopping windows and sessions.
func (i *installation) whatIfKinds() {
	i.t.Helper()
	for _, w := range []struct {
		flag, value, kind string
		hop               float64
		windows           int           // of a layer
		length            time.Duration // of a whole window
		frames            int64
	}{
		{"--window", "1m/20s", "hopping", 20, 24 + 2, time.Minute, 12},
		{"--session", "6s", "session", 0, 1, 8*time.Minute - 5*time.Second + 6*time.Second, 8 * 12},
		{"--session", "5s", "session", 0, 8 * 12, 5 * time.Second, 1},
	} {
		status, out, messages := i.replays("--aggregate", w.flag, w.value, "--lines", "--partial")
		if status != 0 {
			i.t.Fatalf("status %d, %q", status, messages)
		}
		all, whole := imaginedLines(i.t, out), 0
		if len(all) != w.windows*4*2 {
			i.t.Errorf("%s %s: %d rollups, want %d windows of 4 layers and 2 groups", w.flag, w.value, len(all), w.windows)
		}
		for _, r := range all {
			if r.Rollup.Kind != w.kind || r.Rollup.Hop != w.hop || r.Rollup.Reducer != 2 || r.Rollup.End.Sub(r.Rollup.Start) != w.length || r.Rollup.Frames > w.frames {
				i.t.Errorf("%s %s: %+v", w.flag, w.value, r)
			}
			if r.Rollup.Frames == w.frames {
				whole++
			}
		}
		if whole == 0 || !strings.Contains(messages, "window-kind: "+w.kind+" (the log: tumbling)") {
			i.t.Errorf("%s %s: %d whole windows, %q", w.flag, w.value, whole, messages)
		}
	}
	i.refused(exitFailed, "Hop", "--aggregate", "--window", "1m/7s")
	i.refused(exitFailed, "Reducer", "--aggregate", "--session", "7s", "--reducer", "1")
}
