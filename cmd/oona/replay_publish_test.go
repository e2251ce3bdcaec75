package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/bus"
	"github.com/morphogenetic/oona/bus/kafka"
	"github.com/morphogenetic/oona/pipeline/remotewrite"
	"github.com/morphogenetic/oona/replay/manifest"
	"github.com/morphogenetic/oona/replay/whatif"
)

// publishes runs oona replay --aggregate --publish for frames of the installation.
func (i *installation) publishes(prefix string, args ...string) (status int, out, messages string) {
	i.t.Helper()
	all := []string{"replay", i.topics.SeedMetrics, "--aggregate", "--publish", "--prefix", prefix, "--brokers", strings.Join(i.cfg.Brokers, ","), "--group", i.group}
	return run(i.t, append(all, args...)...)
}

// payloadsOf returns the records of a topic, by partition.
func (i *installation) payloadsOf(topic string) (all [][]string) {
	i.t.Helper()
	at := kafka.New(i.cfg, nil)
	for p, held := range i.heldOf(topic) {
		var payloads []string
		if err := at.Read(i.t.Context(), topic, bus.Range{Partition: int32(p), From: held.Start, End: held.End}, func(msg *message.Message) error {
			payloads = append(payloads, string(msg.Payload))
			return nil
		}); err != nil {
			i.t.Fatal(err)
		}
		all = append(all, payloads)
	}
	return all
}

// Replay publishes rollups to other topics, from the bus and from an archive. A second replay
// adds nothing. With the windows of the log, the rollups are byte for byte those that the
// aggregator has published. Replay refuses to publish to the topics of the log itself.
func TestReplayPublish(t *testing.T) {
	onInstallations(t, func(t *testing.T, i *installation) {
		i.applyTopics()
		i.recordMinutes(0, 6)
		i.aggregateAll()
		again, err := oona.NewTopics(i.group + "-again")
		if err != nil {
			t.Fatal(err)
		}
		status, _, messages := i.publishes(i.group+"-again", "--yes")
		if status != exitFailed || !strings.Contains(messages, "--create") {
			t.Errorf("publishing to topics that do not exist ends with status %d and says %q", status, messages)
		}
		if status, _, messages = i.publishes(i.group+"-again", "--create"); status != exitFailed || !strings.Contains(messages, "--yes") {
			t.Errorf("publishing without a confirmation ends with status %d and says %q", status, messages)
		}
		if status, _, messages = i.publishes(i.group+"-again", "--create", "--dry-run"); status != 0 || !strings.Contains(messages, "would be created") || strings.Contains(messages, " 0 rollups would") {
			t.Errorf("a dry run ends with status %d and says %q", status, messages)
		}
		if status, _, messages = i.publishes(i.group, "--yes"); status != exitFailed || !strings.Contains(messages, errOwnTopics.Error()) {
			t.Errorf("publishing to the topics of the log itself ends with status %d and says %q", status, messages)
		}
		for _, more := range [][]string{{"--create"}, {}, {"--until", "offset:1000000"}} {
			if status, _, messages := i.publishes(i.group+"-again", append(more, "--yes")...); status != 0 {
				t.Fatalf("publishing with %v ends with status %d and says %q", more, status, messages)
			}
			for own, other := range map[string]string{i.topics.LayerHealth: again.LayerHealth, i.topics.LayerPerformance: again.LayerPerformance} {
				if got, want := i.payloadsOf(other), i.payloadsOf(own); len(want[0]) == 0 || fmt.Sprint(got) != fmt.Sprint(want) {
					t.Errorf("the partitions of %s have %d and %d rollups, want the same as those of %s, which have %d and %d", other, len(got[0]), len(got[1]), own, len(want[0]), len(want[1]))
				}
			}
		}
		i.linesOf(again)
		i.publishOthers()
		i.publishLonger()
	})
}

// linesOf replays rollups as lines. Their prefix has no topic of frames. It does so with the
// prefix of the log, and with that of the rollups.
func (i *installation) linesOf(again oona.Topics) {
	i.t.Helper()
	for _, prefix := range []string{i.group, strings.TrimSuffix(again.LayerHealth, ".telemetry.layer.health")} {
		status, out, messages := run(i.t, "replay", again.LayerHealth, "--lines", "--prefix", prefix, "--brokers", strings.Join(i.cfg.Brokers, ","))
		if status != 0 || !strings.Contains(out, `"kind":"rollup"`) || strings.Contains(out, `"kind":"undecoded"`) {
			i.t.Errorf("replay with --prefix %s ends with status %d, prints %.300s and says %s", prefix, status, out, messages)
		}
	}
}

// publishOthers publishes rollups of other windows to topics that have some.
func (i *installation) publishOthers() {
	i.t.Helper()
	status, _, messages := i.publishes(i.group+"-again", "--yes", "--window", "20s")
	if status != exitFailed || !strings.Contains(messages, whatif.ErrOtherRollups.Error()) {
		i.t.Errorf("publishing rollups of other windows ends with status %d and says %q", status, messages)
	}
	few := i.group + "-few"
	topics, err := oona.NewTopics(few)
	if err != nil {
		i.t.Fatal(err)
	}
	if _, err := kafka.New(i.cfg, nil).Apply(i.t.Context(), topics.Specs(1)); err != nil {
		i.t.Fatal(err)
	}
	if status, _, messages := i.publishes(few, "--yes"); status != exitFailed || !strings.Contains(messages, "partition of the same number") {
		i.t.Errorf("publishing to topics with fewer partitions ends with status %d and says %q", status, messages)
	}
}

// publishLonger publishes a range twice: in two parts, of which the second contains the first,
// and at once from an archive. For the archive, only the target of the rollups is on the bus.
func (i *installation) publishLonger() {
	i.t.Helper()
	parts, once := i.group+"-parts", i.group+"-once"
	for _, until := range []string{"offset:60", "now"} {
		if status, _, messages := i.publishes(parts, "--create", "--yes", "--window", "30s/10s", "--until", until); status != 0 {
			i.t.Fatalf("publishing until %s ends with status %d and says %q", until, status, messages)
		}
	}
	dir := filepath.Join(i.t.TempDir(), "archive")
	i.must("--archive", dir)
	status, _, messages := run(i.t, "replay", dir, "--aggregate", "--publish", "--prefix", once, "--create", "--yes", "--window", "30s/10s", "--brokers", strings.Join(i.cfg.Brokers, ","))
	if status != 0 {
		i.t.Fatalf("publishing from the archive ends with status %d and says %q", status, messages)
	}
	for _, suffix := range []string{".telemetry.layer.health", ".telemetry.layer.performance"} {
		if got, want := i.payloadsOf(parts+suffix), i.payloadsOf(once+suffix); len(want[0]) == 0 || fmt.Sprint(got) != fmt.Sprint(want) {
			i.t.Errorf("the partitions of %s have %d and %d rollups if they are published in parts, and %d and %d if they are published at once", suffix, len(got[0]), len(got[1]), len(want[0]), len(want[1]))
		}
	}
}

// A frame that came too late for its window is in the window after a replay with more lateness.
func TestReplayLateFrames(t *testing.T) {
	onInstallations(t, func(t *testing.T, i *installation) {
		i.applyTopics()
		i.recordMinutes(0, 3)
		i.recordMinutes(1, 2) // late, and again from the first step: other sequences of the same windows
		frames := func(args ...string) (all int64) {
			status, out, messages := i.replays(append(args, "--aggregate", "--window", "1m", "--partial", "--lines")...)
			if status != 0 {
				t.Fatalf("replay ends with status %d and says %q", status, messages)
			}
			for _, r := range imaginedLines(t, out) {
				all += r.Rollup.Frames
			}
			return all
		}
		in, late := frames("--lateness", "0s"), frames("--lateness", "1h")
		if in != 2*3*12*4 || late != 2*4*12*4 { // of both groups
			t.Errorf("the windows have %d frames without lateness, and %d with an hour of lateness", in, late)
		}
		begin := time.Now().Add(-72 * time.Hour)
		i.record(func(step int) (time.Time, bool) { return begin.Add(time.Duration(step) * time.Second), step < 10 })
		if old := frames("--lateness", "100h", "--max-delay", "100h", "--idle-horizon", "1h"); old != late+2*10*4 {
			t.Errorf("the windows have %d frames with those of three days ago, and %d without them", old, late)
		}
		if still := frames("--lateness", "1h"); still != late {
			t.Errorf("the windows have %d frames with the max-delay of the log, which is a day", still)
		}
	})
}

// The files have the rollups that the replay has made. A second replay adds none, and one with
// other windows is refused.
func TestReplayRollupTables(t *testing.T) {
	onInstallations(t, func(t *testing.T, i *installation) {
		i.applyTopics()
		i.recordMinutes(0, 6)
		for _, form := range []string{"--parquet", "--avro"} {
			i.rollupFiles(form, filepath.Join(t.TempDir(), "files"))
		}
	})
}

func (i *installation) rollupFiles(form, dir string) {
	i.t.Helper()
	t := i.t
	out := parse[imagined](t, i.must("--aggregate", "--window", "30s/10s", form, dir, "--json"))
	count := func() (rollups int64) {
		for _, topic := range parse[*manifest.Manifest](t, readFile(t, filepath.Join(dir, manifest.Name))).Topics {
			if !strings.HasPrefix(topic.Name, i.group+replayedSuffix+".") {
				t.Errorf("a topic of the files has the name %s", topic.Name)
			}
			for _, p := range topic.Partitions {
				rollups += p.Counts.Records
			}
		}
		return rollups
	}
	if n := count(); n != out.Rollups || n == 0 {
		t.Errorf("the files have %d rollups, and the replay made %d", n, out.Rollups)
	}
	i.must("--aggregate", "--window", "30s/10s", form, dir)
	if n := count(); n != out.Rollups {
		t.Errorf("after the second replay the files have %d rollups, and each replay made %d", n, out.Rollups)
	}
	i.refused(exitFailed, errOtherFiles.Error(), "--aggregate", "--window", "2m", form, dir)
}

// needPrometheus returns the path of promtool. Without it, the test is skipped.
func needPrometheus(t *testing.T) string {
	t.Helper()
	promtool, err := exec.LookPath("promtool")
	if err != nil {
		if os.Getenv("OONA_REQUIRE_PROMETHEUS") != "" {
			t.Fatal(err)
		}
		t.Skip("SKIPPED, NOT TESTED WITH A REAL PROMETHEUS, which is not on the PATH (Debian: apt-get install prometheus)")
	}
	return promtool
}

// A real Prometheus takes rollups of two hours ago from OpenMetrics text.
func TestReplayOpenMetrics(t *testing.T) {
	promtool := needPrometheus(t)
	onInstallations(t, func(t *testing.T, i *installation) {
		i.applyTopics()
		begin := i.recordMinutes(0, 8)
		dir := t.TempDir()
		text, data := filepath.Join(dir, "rollups.txt"), filepath.Join(dir, "data")
		i.must("--aggregate", "--window", "1m", "--openmetrics", text)
		if out, err := exec.CommandContext(t.Context(), promtool, "tsdb", "create-blocks-from", "openmetrics", text, data).CombinedOutput(); err != nil {
			t.Fatalf("promtool cannot make blocks of the rollups: %v: %s", err, out)
		}
		address := startBackfilled(t, dir, data, "0s")
		for query, want := range map[string]string{
			`count(count_over_time(kasmina_layer_window_frames{run="replayed",prefix="` + i.group + `",source="oona"}[1h]))`:                  "4",
			`sum(count_over_time(kasmina_layer_window_frames[1h]))`:                                                                           "28",
			`max(max_over_time(kasmina_layer_window_frames[1h]))`:                                                                             "12",
			`max_over_time(kasmina_layer_health_window_max{layer="enc.0",metric="gradient_norm"}[1h])`:                                        "83",
			`min_over_time(kasmina_layer_health_window_end_timestamp_seconds{layer="enc.0"}[1h])`:                                             fmt.Sprint(begin.Add(time.Minute).Unix()),
			`timestamp(kasmina_layer_health_window_end_timestamp_seconds{layer="enc.1"} @ ` + fmt.Sprint(begin.Add(time.Minute).Unix()) + `)`: fmt.Sprint(begin.Add(time.Minute).Unix()),
		} {
			if got := askPrometheus(t, address, query, begin.Add(30*time.Minute)); got != want {
				t.Errorf("Prometheus answers the query %s with %q, want %q", query, got, want)
			}
		}
	})
}

// A real Prometheus takes rollups of two hours ago by remote write: they are published to topics
// that the stage of an exporter reads. Its window for samples out of order is a day.
func TestReplayRemoteWrite(t *testing.T) {
	needPrometheus(t)
	onInstallations(t, func(t *testing.T, i *installation) {
		i.applyTopics()
		begin := i.recordMinutes(0, 8)
		if status, _, messages := i.publishes(i.group+"-old", "--window", "1m", "--create", "--yes"); status != 0 {
			t.Fatalf("publishing old rollups ends with status %d and says %q", status, messages)
		}
		dir := t.TempDir()
		address := startBackfilled(t, dir, filepath.Join(dir, "data"), "1d")
		await(t, "a sample of now", func() bool { return askPrometheus(t, address, "now", time.Now()) != "" })
		i.exports(i.group+"-old", address)
		await(t, "all rollups", func() bool {
			return askPrometheus(t, address, `sum(count_over_time(kasmina_layer_window_frames{prefix="`+i.group+`-old"}[1h]))`, begin.Add(30*time.Minute)) == "28"
		})
		if got := askPrometheus(t, address, `max(max_over_time(kasmina_layer_window_frames[1h]))`, begin.Add(30*time.Minute)); got != "12" {
			t.Errorf("the largest window has %s frames in Prometheus, want 12", got)
		}
	})
}

// exports runs the remote-write stage of an exporter until the test ends.
func (i *installation) exports(prefix, address string) {
	i.t.Helper()
	topics, err := oona.NewTopics(prefix)
	if err != nil {
		i.t.Fatal(err)
	}
	at := kafka.New(i.cfg, nil)
	stage, err := remotewrite.New(remotewrite.Config{Topics: topics, Prefix: prefix, URL: address + "/api/v1/write", MaxRuns: 4, MaxLayers: 8, MaxTotalLayers: 16, MaxMetrics: 8, WorstSeeds: 2, SilentAfter: time.Hour},
		prometheus.NewRegistry(), slog.New(slog.DiscardHandler))
	if err != nil {
		i.t.Fatal(err)
	}
	var members [2]bus.Member
	for g := range members {
		if members[g], err = at.Member(bus.MemberOptions{Group: prefix}, stage); err != nil {
			i.t.Fatal(err)
		}
	}
	ctx, cancel := context.WithCancel(i.t.Context())
	ended := make(chan error, 1)
	go func() { ended <- stage.Run(ctx, members) }()
	i.t.Cleanup(func() {
		cancel()
		if err := errors.Join(<-ended, members[0].Close(), members[1].Close()); err != nil && !errors.Is(err, context.Canceled) {
			i.t.Error(err)
		}
	})
}

// startBackfilled starts a Prometheus on data, and returns its URL. The window is for
// samples out of order.
func startBackfilled(t *testing.T, dir, data, window string) string {
	t.Helper()
	config := filepath.Join(dir, "prometheus.yml")
	text := fmt.Sprintf("storage: {tsdb: {out_of_order_time_window: %s}}\nglobal: {evaluation_interval: 1s}\nrule_files: [rules.yml]\n", window)
	// A rule that has a value now makes two hours ago the past.
	rules := "groups: [{name: now, rules: [{record: now, expr: vector(time())}]}]\n"
	for name, content := range map[string]string{config: text, filepath.Join(dir, "rules.yml"): rules} {
		if err := os.WriteFile(name, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	log, err := os.Create(filepath.Join(dir, "prometheus.log"))
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), "prometheus", "--config.file", config, "--storage.tsdb.path", data, "--web.listen-address", "127.0.0.1:0", "--log.format", "json", "--web.enable-remote-write-receiver")
	cmd.Stderr = log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		_ = log.Close()
	})
	var address string
	await(t, "Prometheus", func() bool {
		for line := range strings.Lines(readFile(t, log.Name())) {
			var said struct{ Msg, Address string }
			if json.Unmarshal([]byte(line), &said) == nil && strings.HasPrefix(said.Msg, "Listening on") {
				address = "http://" + said.Address
			}
		}
		if address == "" {
			return false
		}
		ready, err := http.Get(address + "/-/ready")
		return err == nil && ready.Body.Close() == nil && ready.StatusCode == http.StatusOK
	})
	return address
}

// askPrometheus returns the value of a query at a time, or "" if there is none.
func askPrometheus(t *testing.T, address, query string, at time.Time) string {
	t.Helper()
	response, err := http.Get(address + "/api/v1/query?" + url.Values{"query": {query}, "time": {fmt.Sprint(at.Unix())}}.Encode())
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	var answer struct {
		Status, Error string
		Data          struct{ Result []struct{ Value []any } }
	}
	if err := json.NewDecoder(response.Body).Decode(&answer); err != nil || answer.Status != "success" {
		t.Fatalf("Prometheus cannot answer the query %s: %v, %s", query, err, answer.Error)
	}
	if len(answer.Data.Result) != 1 {
		return ""
	}
	return fmt.Sprint(answer.Data.Result[0].Value[1])
}
