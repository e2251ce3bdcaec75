package main

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/IBM/sarama"
	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/bus"
	"github.com/morphogenetic/oona/bus/kafka"
	"github.com/morphogenetic/oona/internal/settings"
	"github.com/morphogenetic/oona/schemas/avro"
	"github.com/morphogenetic/oona/windows"
)

// applied makes the installation's topics.
func (i *installation) applied(partitions int, more ...string) {
	i.t.Helper()
	status, out, messages := i.oona(append([]string{"topics", "apply", "--partitions", strconv.Itoa(partitions), "--group", i.group}, more...)...)
	if status != 0 {
		i.t.Fatalf("topics apply: status %d, %q, %q", status, out, messages)
	}
}

// check returns what oona topics check finds.
func (i *installation) check() (status int, messages string) {
	i.t.Helper()
	status, _, messages = i.oona("topics", "check", "--group", i.group)
	return status, messages
}

// delete deletes topics and waits until they are gone.
func (i *installation) delete(topics ...string) {
	i.t.Helper()
	config := sarama.NewConfig()
	config.Version = sarama.V2_8_0_0
	admin, err := sarama.NewClusterAdmin(i.cfg.Brokers, config)
	if err != nil {
		i.t.Fatal(err)
	}
	defer admin.Close()
	for _, topic := range topics {
		if err := admin.DeleteTopic(topic); err != nil {
			i.t.Fatal(err)
		}
	}
	await(i.t, "the topics are gone", func() bool {
		all, err := admin.ListTopics()
		if err != nil {
			i.t.Fatal(err)
		}
		return !slices.ContainsFunc(topics, func(topic string) bool { _, there := all[topic]; return there })
	})
}

// publish publishes a message to a partition of a topic.
func (i *installation) publish(topic string, partition int, msg *message.Message) {
	i.t.Helper()
	publisher, err := kafka.New(i.cfg, nil).Publisher(bus.PublisherOptions{})
	if err != nil {
		i.t.Fatal(err)
	}
	defer publisher.Close()
	msg.SetContext(bus.WithTarget(msg.Context(), bus.Target{Partition: int32(partition), Directed: true}))
	if err := publisher.Publish(context.Background(), topic, msg); err != nil {
		i.t.Fatal(err)
	}
}

// rollup publishes a rollup of partition 0.
func (i *installation) rollup(trigger oona.Trigger) {
	i.t.Helper()
	r := oona.Rollup{Run: "r", Layer: "l", Start: 1_700_000_000e6, End: 1_700_000_010e6, Trigger: trigger, Frames: 1, Generation: 1, Reducer: 2}
	r.Hash = r.ContentHash()
	i.publish(i.topics.LayerHealth, 0, message.NewMessage("", avro.AppendRollup(nil, &r)))
}

func (i *installation) shown() []shownPartition {
	i.t.Helper()
	return shown(i.t, []string{"--brokers", strings.Join(i.cfg.Brokers, ","), "--prefix", i.group, "--group", i.group})
}

func (i *installation) held() *settings.Settings {
	i.t.Helper()
	s, err := settings.Read(i.t.Context(), kafka.New(i.cfg, nil), i.topics, slog.New(slog.DiscardHandler))
	if err != nil {
		i.t.Fatal(err)
	}
	return s
}

func catalogueFile(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "metrics.yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// An empty partition begins with an incarnation and a configuration that names
// the newest reducers and a catalogue; the settings topic knows both.
func TestFirstRecords(t *testing.T) {
	onInstallations(t, func(t *testing.T, i *installation) {
		own := catalogueFile(t, "metrics: {energy: {group: health, direction: lower_is_better}}")
		i.applied(2, "--catalogue", own)
		held := i.held()
		partitions := i.shown()
		for _, p := range partitions {
			if p.End != 2 || p.Unknown != "" || len(p.Incarnations) != 1 || len(p.Configurations) != 1 {
				t.Fatalf("partition is %+v", p)
			}
			begun, first := p.Incarnations[0], p.Configurations[0]
			if begun.Offset != 0 || !begun.Holds || begun.Number != p.Incarnation || begun.PreviousEnd != oona.NoOffset || held.Incarnation(i.topics.SeedMetrics, p.Partition) != p.Incarnation {
				t.Errorf("the incarnation is %+v of %+v", begun, p)
			}
			if first.Offset != 1 || !first.Holds || first.Windows["reducer"] != float64(windows.Reducer) {
				t.Errorf("the configuration is %+v", first)
			}
			hash, err := oona.ParseCatalogueHash(first.Windows["catalogue"].(string))
			if err != nil || held.Windows[p.Partition].Catalogue != hash || held.Windows[p.Partition].Reducer != windows.Reducer {
				t.Errorf("the settings have %+v, and the log the catalogue %s, %v", held.Windows[p.Partition], hash, err)
			}
			if c, found, err := held.Catalogue(hash); err != nil || !found || c.Metric("energy").Group != oona.Health {
				t.Errorf("the catalogue is %v, %v, %v", c, found, err)
			}
		}
		i.applied(2, "--catalogue", own)
		if status, messages := i.check(); status != 0 {
			t.Errorf("check: status %d, %q", status, messages)
		}
		if status, out, messages := i.oona("topics", "apply", "--partitions", "2", "--catalogue", "built-in"); status != exitFailed {
			t.Errorf("topics apply with another catalogue: status %d, %q, %q", status, out, messages)
		}
	})
}

// TestApplyKeepsPartitions: without --partitions, topics that exist keep their number of
// partitions, and new ones fit to the topic of frames.
func TestApplyKeepsPartitions(t *testing.T) {
	_, cfg := startBroker(t)
	topics, err := oona.NewTopics(oona.DefaultPrefix)
	if err != nil {
		t.Fatal(err)
	}
	b := kafka.New(cfg, nil)
	if _, err := b.Apply(t.Context(), append(topics.Specs(3), topics.RawSpecs(5)...)); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{{"topics", "apply"}, {"topics", "check"}, {"topics", "apply"}} {
		if status, out, messages := run(t, append(args, "--brokers", cfg.Brokers[0])...); status != 0 {
			t.Fatalf("%q: status %d, %s%s", args, status, out, messages)
		}
	}
	if status, _, _ := run(t, "topics", "apply", "--brokers", cfg.Brokers[0], "--partitions=4"); status != exitFailed {
		t.Errorf("with another number: status %d", status)
	}
	extents, err := b.Extents(t.Context(), topics.Events()...)
	if err != nil {
		t.Fatal(err)
	}
	for topic, partitions := range extents {
		if len(partitions) != 3 {
			t.Errorf("%s has %d partitions", topic, len(partitions))
		}
	}
}

// With --no-create, apply only writes records into existing topics.
func TestFirstRecordsWithoutMakingTopics(t *testing.T) {
	onInstallations(t, func(t *testing.T, i *installation) {
		status, _, messages := i.oona("topics", "apply", "--no-create")
		if status != exitFailed {
			t.Errorf("without topics: status %d, %q", status, messages)
		}
		specs := append(slices.Concat(i.topics.Specs(3), i.topics.RawSpecs(1), i.topics.EventSpecs(3)), i.topics.SettingsSpec(), i.topics.RedrivesSpec())
		if _, err := kafka.New(i.cfg, nil).Apply(t.Context(), specs); err != nil {
			t.Fatal(err)
		}
		if status, out, messages := i.oona("topics", "apply", "--no-create", "--memory-limit", "2GiB"); status != 0 {
			t.Errorf("with topics: status %d, %q, %q", status, out, messages)
		}
		for _, p := range i.shown() {
			if p.End != 2 || p.Incarnation == 0 {
				t.Errorf("partition is %+v", p)
			}
			if room := p.Configurations[0].Windows["max-accumulators"]; room != 8055.0 { // for 3 partitions, not for the default of 12
				t.Errorf("max-accumulators is %v", room)
			}
		}
	})
}

// An error in the file of a catalogue is found before topics are created, as a trainer
// could write to them before they have their first records.
func TestNoTopicsForACatalogueThatIsNone(t *testing.T) {
	onInstallations(t, func(t *testing.T, i *installation) {
		wrong := catalogueFile(t, "metrics: {energy: {group: helth}}")
		for _, name := range []string{wrong, wrong + ".absent"} {
			if status, out, messages := i.oona("topics", "apply", "--catalogue", name); status != exitFailed || out != "" {
				t.Errorf("%s: status %d, %q, %q", name, status, out, messages)
			}
		}
	})
}

// A trainer may write to a topic that was made again before it has its first records.
// Apply then begins an incarnation after the trainer's records, and aggregators accept
// the partition.
func TestLogThatWasMadeAgainWhileFramesCame(t *testing.T) {
	for name, old := range map[string]oona.Incarnation{"in an incarnation": 1_770_000_000e6, "from before incarnations": 0} {
		t.Run(name, func(t *testing.T) {
			onInstallations(t, func(t *testing.T, i *installation) {
				if _, err := kafka.New(i.cfg, nil).Apply(t.Context(), append(slices.Concat(i.topics.Specs(1), i.topics.EventSpecs(1)), i.topics.SettingsSpec(), i.topics.RedrivesSpec())); err != nil {
					t.Fatal(err)
				}
				i.rollup(oona.Trigger{Incarnation: old, Offset: 1000})
				i.tick(1)
				i.applied(1)
				if now := i.shown()[0]; now.Incarnation <= old || now.Incarnations[0].Offset != 1 {
					t.Errorf("the log has %+v", now)
				}
				if status, messages := i.check(); status != 0 {
					t.Errorf("check afterwards: status %d, %q", status, messages)
				}
				i.applied(1)
				i.aggregateBeyond(-1, 1, windows.DefaultConfig())
			})
		})
	}
}

// Reducer and catalogue keep their values unless they are given. The settings topic has
// the configuration that was written.
func TestApplyReducerAndCatalogue(t *testing.T) {
	onInstallations(t, func(t *testing.T, i *installation) {
		i.applied(1)
		from := func(minutes int) string {
			return time.Now().Add(time.Hour + time.Duration(minutes)*time.Minute).Format(time.RFC3339)
		}
		last := func(what string, args ...string) windows.Config {
			t.Helper()
			if status, out, messages := i.oona(append([]string{"windows", "apply", "--yes", "--group", i.group}, args...)...); status != 0 {
				t.Fatalf("%s: status %d, %q, %q", what, status, out, messages)
			}
			c := i.held().Windows[0]
			got, err := windows.ConfigurationOf(&c)
			if err != nil {
				t.Fatalf("%s: %v", what, err)
			}
			shown := i.shown()[0].Configurations
			if in := shown[len(shown)-1]; in.Generation != c.Generation || in.Windows["reducer"] != float64(c.Reducer) || in.Windows["catalogue"] != c.Catalogue.String() {
				t.Errorf("%s: the log has %+v, the settings %+v", what, in, c)
			}
			return got.Config
		}
		first := i.held().Windows[0]
		own := catalogueFile(t, "metrics: {blend: {group: health}}")
		second := last("a catalogue", "--from", from(2), "--catalogue", own)
		if second.Catalogue == first.Catalogue || second.Reducer != windows.Reducer || second.Generation != 2 {
			t.Errorf("a catalogue: %+v", second)
		}
		third := last("a reducer", "--from", from(3), "--reducer", "1")
		if third.Catalogue != second.Catalogue || third.Reducer != 1 {
			t.Errorf("a reducer: %+v", third)
		}
		if fourth := last("something else", "--from", from(4), "--max-layers", "7"); fourth.Catalogue != second.Catalogue || fourth.Reducer != 1 || fourth.MaxLayers != 7 {
			t.Errorf("something else: %+v", fourth)
		}
		if fifth := last("a hash", "--from", from(5), "--catalogue", first.Catalogue.String()); fifth.Catalogue != first.Catalogue {
			t.Errorf("a hash: %+v", fifth)
		}
		for _, wrong := range [][]string{{"--reducer", "3"}, {"--reducer", "0"}, {"--catalogue", "0011223344556677"}, {"--catalogue", own + ".absent"}} {
			if status, out, messages := i.oona(append([]string{"windows", "apply", "--yes", "--group", i.group, "--from", from(6)}, wrong...)...); status != exitFailed || out != "" {
				t.Errorf("%v: status %d, %q, %q", wrong, status, out, messages)
			}
		}
	})
}

// A lost settings topic is restored from the logs. A catalogue that cannot be restored
// is named.
func TestSettingsAreRestored(t *testing.T) {
	onInstallations(t, func(t *testing.T, i *installation) {
		own := catalogueFile(t, "metrics: {energy: {group: health}}")
		i.applied(2, "--catalogue", own)
		before := i.held()
		i.delete(i.topics.Settings)
		status, messages := i.check()
		if status != exitFailed {
			t.Errorf("check without the topic: status %d, %q", status, messages)
		}
		if status, _, messages := i.oona("windows", "show", "--restore", "--group", i.group); status != exitFailed {
			t.Errorf("restore without the topic: status %d, %q", status, messages)
		}
		i.applied(2)
		status, messages = i.check()
		if status != exitFailed {
			t.Errorf("check of an empty topic: status %d, %q", status, messages)
		}
		if status, _, messages := i.oona("windows", "show", "--restore", "--group", i.group); status != 0 {
			t.Errorf("restore: status %d, %q", status, messages)
		}
		i.applied(2, "--catalogue", own)
		if status, messages := i.check(); status != 0 {
			t.Errorf("check afterwards: status %d, %q", status, messages)
		}
		after := i.held()
		for p := range int32(2) {
			if after.Windows[p] != before.Windows[p] || after.Incarnation(i.topics.SeedMetrics, p) != before.Incarnation(i.topics.SeedMetrics, p) {
				t.Errorf("partition %d has %+v, had %+v", p, after, before)
			}
		}
	})
}

// Check reports a log that was made again without its first records, and apply corrects
// it while it is empty.
func TestLogThatWasMadeAgain(t *testing.T) {
	onInstallations(t, func(t *testing.T, i *installation) {
		i.applied(1)
		old := i.shown()[0].Incarnation
		i.rollup(oona.Trigger{Incarnation: old, Offset: 1000})
		i.delete(i.topics.SeedMetrics)
		if _, err := kafka.New(i.cfg, nil).Apply(t.Context(), i.topics.Specs(1)); err != nil {
			t.Fatal(err)
		}
		status, messages := i.check()
		if status != exitFailed {
			t.Errorf("check: status %d, %q", status, messages)
		}
		i.applied(1)
		if status, messages := i.check(); status != 0 {
			t.Errorf("check afterwards: status %d, %q", status, messages)
		}
		if now := i.shown()[0].Incarnation; now <= old {
			t.Errorf("the log is in incarnation %d, and was in %d", now, old)
		}
	})
}

// Check reports a log with a lesser incarnation than its rollups, and apply begins a
// new one.
func TestRollupsOfAGreaterIncarnation(t *testing.T) {
	onInstallations(t, func(t *testing.T, i *installation) {
		i.applied(1)
		i.tick(1)
		ahead := i.shown()[0].Incarnation + 3600e6
		i.rollup(oona.Trigger{Incarnation: ahead, Offset: 1})
		status, messages := i.check()
		if status != exitFailed {
			t.Errorf("check: status %d, %q", status, messages)
		}
		i.applied(1)
		if now := i.shown()[0]; now.Incarnation <= ahead || len(now.Incarnations) != 2 || now.Incarnations[1].PreviousEnd != 3 {
			t.Errorf("the log has %+v", now)
		}
		if status, messages := i.check(); status != 0 {
			t.Errorf("check afterwards: status %d, %q", status, messages)
		}
	})
}

// An older copy of the log that was restored together with the group's commits, or
// a log that has lost its end beyond them, ends before the rollups' triggers.
// Aggregators do not notice it, but check does, and apply begins an incarnation.
func TestRollupsBeyondTheLog(t *testing.T) {
	onInstallations(t, func(t *testing.T, i *installation) {
		i.applied(1)
		i.tick(1)
		i.aggregateBeyond(-1, 1, windows.DefaultConfig())
		now := i.shown()[0]
		i.rollup(oona.Trigger{Incarnation: now.Incarnation, Offset: now.End - 1})
		if status, messages := i.check(); status != 0 {
			t.Errorf("check with rollups of the log: status %d, %q", status, messages)
		}
		i.rollup(oona.Trigger{Incarnation: now.Incarnation, Offset: now.End})
		if status, messages := i.check(); status != exitFailed {
			t.Errorf("check with rollups beyond it: status %d, %q", status, messages)
		}
		i.applied(1)
		if status, messages := i.check(); status != 0 {
			t.Errorf("check afterwards: status %d, %q", status, messages)
		}
	})
}

// When the rollup topics have rollups of a log that was made again, check finds no
// fault, but readers drop them. --new-incarnation begins an incarnation in any case.
func TestIncarnationThatIsAskedFor(t *testing.T) {
	onInstallations(t, func(t *testing.T, i *installation) {
		i.applied(1, "--new-incarnation") // has no effect on empty partitions
		i.tick(1)
		old := i.shown()[0].Incarnation
		i.rollup(oona.Trigger{Incarnation: old, Offset: 1000})
		i.rollup(oona.Trigger{Incarnation: old, Offset: 1})
		if status, messages := i.check(); status != 0 {
			t.Errorf("check: status %d, %q", status, messages)
		}
		i.applied(1)
		i.applied(1, "--new-incarnation")
		if now := i.shown()[0]; now.Incarnation <= old || len(now.Incarnations) != 2 || i.held().Incarnation(i.topics.SeedMetrics, 0) != now.Incarnation {
			t.Errorf("the log has %+v", now)
		}
	})
}

// The time at which an incarnation began comes from its record, as its number may be
// greater than that time.
func TestWhenAnIncarnationBegan(t *testing.T) {
	onInstallations(t, func(t *testing.T, i *installation) {
		i.rolledUpAhead(1)
		_, out, messages := i.oona("windows", "show", "--group", i.group)
		_, rest, found := strings.Cut(out, ", begun at ")
		text, _, _ := strings.Cut(rest, "\n")
		if at, err := time.Parse(time.RFC3339, text); !found || err != nil || at.After(time.Now()) || time.Since(at) > 30*time.Minute {
			t.Errorf("it began at %q (%v): %q, %q", text, err, out, messages)
		}
	})
}

// rolledUpAhead makes topics whose partition 0 has a rollup of an incarnation that
// is some hours ahead of now, and has apply begin a greater one.
func (i *installation) rolledUpAhead(hours oona.Incarnation) {
	i.t.Helper()
	if _, err := kafka.New(i.cfg, nil).Apply(i.t.Context(), append(slices.Concat(i.topics.Specs(1), i.topics.EventSpecs(1)), i.topics.SettingsSpec(), i.topics.RedrivesSpec())); err != nil {
		i.t.Fatal(err)
	}
	i.rollup(oona.Trigger{Incarnation: oona.Incarnation(oona.MicrosOf(time.Now())) + hours*3600e6, Offset: 1})
	i.applied(1)
}

// If a log that was made again had records before apply wrote the first ones, it has no
// configuration. Check reports that the settings topic has one, and restore does not
// remove it. The next configuration names a catalogue.
func TestWindowsThatTheLogHasLost(t *testing.T) {
	onInstallations(t, func(t *testing.T, i *installation) {
		i.applied(1)
		i.rollup(oona.Trigger{Incarnation: i.shown()[0].Incarnation, Offset: 1000})
		i.delete(i.topics.SeedMetrics)
		if _, err := kafka.New(i.cfg, nil).Apply(t.Context(), i.topics.Specs(1)); err != nil {
			t.Fatal(err)
		}
		i.tick(1)
		i.applied(1)
		i.aggregateBeyond(-1, 1, windows.DefaultConfig())
		if status, messages := i.check(); status != exitFailed {
			t.Errorf("check: status %d, %q", status, messages)
		}
		if status, _, messages := i.oona("windows", "show", "--restore", "--group", i.group); status != 0 || i.held().Windows[0].Generation != 1 {
			t.Errorf("restore: status %d, %q", status, messages)
		}
		status, _, messages := i.apply("--group", i.group, "--reducer", "2")
		if status != 0 {
			t.Errorf("windows apply: status %d, %q", status, messages)
		}
		if c := i.held().Windows[0]; c.Reducer != 2 || c.Catalogue != oona.FirstCatalogue {
			t.Errorf("the configuration is %+v", c)
		}
		if status, messages := i.check(); status != 0 {
			t.Errorf("check afterwards: status %d, %q", status, messages)
		}
	})
}

// Check reports lost rollup topics until they have rollups again. It does not report
// topics that never had a rollup.
func TestRollupTopicsThatWereLost(t *testing.T) {
	onInstallations(t, func(t *testing.T, i *installation) {
		i.applied(1, "--window-length", "100ms", "--out-of-orderness", "0s", "--allowed-lateness", "0s", "--tick-interval", "10ms", "--idle-horizon", "50ms")
		i.tick(1)
		i.aggregateBeyond(2, 1, windows.DefaultConfig())
		if status, messages := i.check(); status != 0 {
			t.Errorf("check of a log without frames: status %d, %q", status, messages)
		}
		now := oona.MicrosOf(time.Now())
		f := oona.Frame{
			Run: "r", Layer: "l", Producer: "p", Epoch: now, ObservedAt: now, Seeds: []oona.SeedID{1}, States: []oona.State{oona.Training},
			Metrics: []oona.Column{{Name: "loss", Values: []float32{1}}},
		}
		i.publish(i.topics.SeedMetrics, 0, message.NewMessage("", avro.AppendFrame(nil, &f)))
		frame := i.shown()[0].End
		i.aggregateBeyond(frame, 1, windows.DefaultConfig())
		if status, messages := i.check(); status != 0 {
			t.Errorf("check with rollups: status %d, %q", status, messages)
		}
		i.delete(i.topics.LayerPerformance)
		i.applied(1)
		status, messages := i.check()
		if status != exitFailed {
			t.Errorf("check without one of the topics: status %d, %q", status, messages)
		}
	})
}

// Where the brokers do not allow the limit that rollup topics should have, the first records
// are written all the same, with a warning.
func TestFirstRecordsBelowTheLimit(t *testing.T) {
	onInstallations(t, func(t *testing.T, i *installation) {
		specs := append(slices.Concat(i.topics.Specs(2), i.topics.RawSpecs(2), i.topics.EventSpecs(2)), i.topics.SettingsSpec(), i.topics.RedrivesSpec())
		for k := range specs {
			if specs[k].Name == i.topics.LayerHealth {
				specs[k].MaxMessageBytes = 1 << 20
			}
		}
		if _, err := kafka.New(i.cfg, nil).Apply(t.Context(), specs); err != nil {
			t.Fatal(err)
		}
		if status, out, messages := i.oona("topics", "apply", "--no-create", "--group", i.group); status != 0 || !strings.Contains(messages, i.topics.LayerHealth) {
			t.Errorf("status %d, %q, %q", status, out, messages)
		}
		for _, p := range i.shown() {
			if p.End != 2 || len(p.Configurations) != 1 {
				t.Errorf("partition %+v", p)
			}
		}
		if status, messages := i.check(); status != exitFailed || !strings.Contains(messages, i.topics.LayerHealth) {
			t.Errorf("check: status %d, %q", status, messages)
		}
	})
}
