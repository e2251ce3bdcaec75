package main

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"math"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/bus"
	"github.com/morphogenetic/oona/bus/kafka"
	"github.com/morphogenetic/oona/bus/kafka/embedded"
	"github.com/morphogenetic/oona/internal/history"
	"github.com/morphogenetic/oona/internal/settings"
	"github.com/morphogenetic/oona/windows"
)

const seedMetrics = "kasmina.telemetry.seed.metrics"

func defaultNames(t *testing.T) oona.Topics {
	t.Helper()
	topics, err := oona.NewTopics(oona.DefaultPrefix)
	if err != nil {
		t.Fatal(err)
	}
	return topics
}

// startBroker returns an embedded broker's address as flags, and as a
// configuration.
func startBroker(t *testing.T) ([]string, kafka.Config) {
	t.Helper()
	broker, err := embedded.Start(t.Context(), embedded.Options{Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = broker.Close() })
	return []string{"--brokers", broker.Addrs[0]}, kafka.Config{Brokers: broker.Addrs, ClientID: "test", Settle: shortSettle}
}

// shown returns the output of windows show --json.
func shown(t *testing.T, at []string) []shownPartition {
	t.Helper()
	status, out, messages := run(t, append([]string{"windows", "show", "--json"}, at...)...)
	var partitions []shownPartition
	if err := json.Unmarshal([]byte(out), &partitions); status != 0 || err != nil {
		t.Fatalf("show: status %d, %v in %q, %q", status, err, out, messages)
	}
	return partitions
}

func TestWindowsFromTheirFirstConfigurationOn(t *testing.T) {
	at, _ := startBroker(t)
	topics := func(more ...string) {
		t.Helper()
		if status, _, messages := run(t, append(append([]string{"topics", "apply", "--partitions", "3"}, at...), more...)...); status != 0 {
			t.Fatalf("topics apply: status %d, %q", status, messages)
		}
	}
	topics("--window-length", "3s", "--allowed-lateness", "2s")
	topics("--window-length", "3s") // the partitions are not empty: it writes nothing
	topics()
	log := newTranscript(t, at[1], "BROKER")
	log.note("Apply never changes the windows of partitions that are not empty.")
	log.run(append([]string{"topics", "apply", "--partitions", "3", "--window-length", "4s", "--memory-limit", "1GiB"}, at...)...)

	apply := func(generation int, from time.Time, more ...string) {
		t.Helper()
		args := append([]string{"windows", "apply", "--generation", strconv.Itoa(generation), "--from", from.Format(time.RFC3339)}, at...)
		log.run(append(args, more...)...)
	}
	soon := time.Now().Add(time.Hour)
	for _, c := range []struct {
		name       string
		generation int
		from       time.Time
		more       []string
	}{
		{"The generation of the log.", 1, soon, []string{"--yes"}},
		{"A wrong generation.", math.MaxInt32, soon, []string{"--yes"}},
		{"A wrong year.", 2, soon.AddDate(100, 0, 0), []string{"--yes"}},
		{"A time beyond the range of the record.", 2, time.Date(2200, 1, 1, 0, 0, 0, 0, time.UTC), []string{"--yes", "--far"}},
		{"Now.", 2, time.Now(), []string{"--yes"}},
		{"Another number of slots.", 2, soon, []string{"--yes", "--frontier-slots", "64"}},
		{"Both limits.", 2, soon, []string{"--yes", "--memory-limit", "1GiB", "--max-accumulators", "9"}},
		{"No length.", 2, soon, []string{"--yes", "--window-length", "0s"}},
		{"No terminal.", 2, soon, nil},
	} {
		log.note(c.name)
		apply(c.generation, c.from, c.more...)
	}
	for _, p := range shown(t, at) {
		if p.End != 2 || len(p.Configurations) != 1 {
			t.Errorf("partition %d has %d records and %d configurations after what was refused", p.Partition, p.End, len(p.Configurations))
		}
	}

	t.Setenv("OONA_MAX_LAYERS", "7")
	log.note("The settings that are given change, with OONA_MAX_LAYERS=7, and no others.")
	apply(2, soon, "--yes", "--window-length", "5s", "--idle-horizon", "90s", "--tick-interval", "2s", "--memory-limit", "1GiB")
	partitions := shown(t, at)
	if len(partitions) != 3 {
		t.Fatalf("%d partitions are shown", len(partitions))
	}
	for _, p := range partitions {
		if p.Start != 0 || p.End != 3 || len(p.Configurations) != 2 {
			t.Fatalf("partition is %+v", p)
		}
		first, second := p.Configurations[0], p.Configurations[1]
		if first.Offset != 1 || first.Generation != 1 || !first.Holds || first.Windows["window-length"] != "3s" {
			t.Errorf("the first is %+v", first)
		}
		w := second.Windows
		if second.Generation != 2 || !second.Holds || !second.From.Equal(soon.Truncate(time.Second)) ||
			w["window-length"] != "5s" || w["max-accumulators"] != 3686.0 || w["max-timeline-accumulators"] != 1843.0 || w["idle-horizon"] != "1m30s" || w["tick-interval"] != "2s" || w["allowed-lateness"] != "2s" || w["max-layers"] != 7.0 || w["max-seeds"] != 65536.0 {
			t.Errorf("the second is %+v; want what was given changed, and nothing else", second)
		}
	}
	log.run(append([]string{"windows", "show"}, at...)...)
	log.golden("windows.txt")
}

// A partition with records gets no first configuration, as it would have no effect.
func TestNoFirstConfigurationBehindRecords(t *testing.T) {
	t.Parallel()
	at, cfg := startBroker(t)
	topics, err := oona.NewTopics(oona.DefaultPrefix)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := kafka.New(cfg, nil).Apply(t.Context(), topics.Specs(2)); err != nil {
		t.Fatal(err)
	}
	publisher, err := kafka.New(cfg, nil).Publisher(bus.PublisherOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer publisher.Close()
	msg := message.NewMessage("", []byte("not a frame"))
	msg.SetContext(bus.WithTarget(msg.Context(), bus.Target{Partition: 1, Directed: true}))
	if err := publisher.Publish(context.Background(), seedMetrics, msg); err != nil {
		t.Fatal(err)
	}
	s := newTranscript(t, at[1], "BROKER")
	s.run(append([]string{"topics", "apply", "--partitions", "2"}, at...)...)
	s.golden("windows-behind-records.txt")
	partitions := shown(t, at)
	if len(partitions) != 2 || len(partitions[0].Configurations) != 1 || len(partitions[1].Configurations) != 0 || partitions[1].End != 1 {
		t.Errorf("partitions are %+v", partitions)
	}
}

// Show prints the other configurations if there is one of a later version. Apply refuses
// to write another.
func TestConfigurationOfALaterVersion(t *testing.T) {
	t.Parallel()
	at, cfg := startBroker(t)
	if status, _, messages := run(t, append([]string{"topics", "apply", "--partitions", "1"}, at...)...); status != 0 {
		t.Fatal(messages)
	}
	publisher, err := kafka.New(cfg, nil).Publisher(bus.PublisherOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer publisher.Close()
	later := message.NewMessage("", []byte("who knows"))
	later.Metadata.Set(oona.HeaderRecord, "configuration/2")
	later.SetContext(bus.WithTarget(later.Context(), bus.Target{Partition: 0, Directed: true}))
	if err := publisher.Publish(context.Background(), seedMetrics, later); err != nil {
		t.Fatal(err)
	}
	s := newTranscript(t, at[1], "BROKER")
	s.run(append([]string{"windows", "show"}, at...)...)
	apply := append([]string{"windows", "apply", "--yes", "--from", time.Now().Add(time.Hour).Format(time.RFC3339)}, at...)
	s.run(apply...)
	s.golden("windows-later-version.txt")
}

func TestWindowsOfTopicsThatAreNotThere(t *testing.T) {
	t.Parallel()
	at, _ := startBroker(t)
	s := newTranscript(t, at[1], "BROKER")
	for _, command := range [][]string{{"show"}, {"show", "--group="}, {"apply", "--from", "2126-12-01T12:00:00Z"}} {
		s.run(append(append([]string{"windows"}, command...), append(at, "--prefix", "nosuch")...)...)
	}
	s.golden("windows-without-topics.txt")
}

func TestOnlyYesIsYes(t *testing.T) {
	for answer, want := range map[string]error{"y\n": nil, "YES\n": nil, "yes": nil, "": errNotConfirmed, "\n": errNotConfirmed, "no\n": errNotConfirmed, "yess\n": errNotConfirmed} {
		var asked strings.Builder
		if err := ask(strings.NewReader(answer), &asked, "Write?"); !errors.Is(err, want) || asked.String() != "Write? [y/N] " {
			t.Errorf("%q: %v, asked %q", answer, err, asked.String())
		}
	}
}

// Apply reports that the last generation has been used. With --far, a configuration may
// begin far in the future.
func TestBoundsOfAChange(t *testing.T) {
	t.Parallel()
	at, cfg := startBroker(t)
	if status, _, messages := run(t, append([]string{"topics", "apply", "--partitions", "2"}, at...)...); status != 0 {
		t.Fatal(messages)
	}
	s := newTranscript(t, at[1], "BROKER")
	apply := func(from time.Time, more ...string) {
		t.Helper()
		s.run(append(append([]string{"windows", "apply", "--yes", "--from", from.Format(time.RFC3339)}, at...), more...)...)
	}
	year := time.Now().AddDate(1, 0, 0)
	apply(year, "--far", "--generation", "1001")
	last := windows.Configuration{Config: windows.DefaultConfig(), From: oona.MicrosOf(year.AddDate(1, 0, 0))}
	last.Config.Generation = math.MaxInt32
	if err := settings.WriteConfiguration(t.Context(), kafka.New(cfg, nil), defaultNames(t), []int32{1}, last.Record()); err != nil {
		t.Fatal(err)
	}
	for _, more := range [][]string{nil, {"--generation", "2147483647"}, {"--generation", "2"}} {
		apply(year, more...)
	}
	s.golden("windows-last-generation.txt")
}

// It is an error if a record is not read back or has no effect.
func TestReportOfWhatWasWritten(t *testing.T) {
	written := windows.Configuration{Config: windows.DefaultConfig(), From: 5}
	other := written
	other.From = 6
	h := &history.History{Partitions: []*history.Partition{
		{Number: 0, Next: 9, Found: []history.Found{{Configuration: written, Offset: 3, Holds: true, Says: "of before"}, {Configuration: other, Offset: 8, Holds: true, Says: "another's"}}},
		{Number: 1, Found: []history.Found{{Configuration: written, Offset: 4, Says: "it is void"}}},
		{Number: 2, Found: []history.Found{{Configuration: written, Offset: 5, Holds: true, Says: "it holds"}}},
	}}
	var out strings.Builder
	err := reportWritten(&out, h, written, []int{1, 0, 0})
	want := "partition 0: the record is not in the log up to offset 9\npartition 1, offset 4: it is void\npartition 2, offset 5: it holds\n"
	if out.String() != want || err == nil || !strings.Contains(err.Error(), "no effect in partitions 1, ") || !strings.Contains(err.Error(), "not known whether the configuration holds in partitions 0.") {
		t.Errorf("it says %q, %v", out.String(), err)
	}
}

// An invalid configuration is shown as a dead letter.
func TestDeadConfigurationIsShown(t *testing.T) {
	t.Parallel()
	at, cfg := startBroker(t)
	if status, _, messages := run(t, append([]string{"topics", "apply", "--partitions", "1"}, at...)...); status != 0 {
		t.Fatal(messages)
	}
	dead := windows.Configuration{Config: windows.DefaultConfig(), From: oona.MicrosOf(time.Date(2200, 1, 1, 0, 0, 0, 0, time.UTC))}
	dead.Config.Generation = 2
	if err := settings.WriteConfiguration(t.Context(), kafka.New(cfg, nil), defaultNames(t), []int32{0}, dead.Record()); err != nil {
		t.Fatal(err)
	}
	s := newTranscript(t, at[1], "BROKER")
	s.run(append([]string{"windows", "show"}, at...)...)
	s.golden("windows-dead-letter.txt")
}

// After 32 changes within max-delay, apply refuses another, as commits need the space
// for timelines. --many allows it.
func TestManyConfigurationsInReach(t *testing.T) {
	t.Parallel()
	at, cfg := startBroker(t)
	if status, _, messages := run(t, append([]string{"topics", "apply", "--partitions", "1"}, at...)...); status != 0 {
		t.Fatal(messages)
	}
	soon := time.Now().Add(time.Hour)
	for n := range history.ManyInReach - 1 {
		c := windows.Configuration{Config: windows.DefaultConfig(), From: oona.MicrosOf(soon.Add(time.Duration(n) * time.Minute))}
		c.Config.Generation = int32(n + 2)
		if err := settings.WriteConfiguration(t.Context(), kafka.New(cfg, nil), defaultNames(t), []int32{0}, c.Record()); err != nil {
			t.Fatal(err)
		}
	}
	apply := append([]string{"windows", "apply", "--yes", "--from", soon.Add(time.Hour).Format(time.RFC3339)}, at...)
	s := newTranscript(t, at[1], "BROKER")
	s.run(apply...)
	s.run(append(apply, "--many")...)
	s.golden("windows-many.txt")
}
