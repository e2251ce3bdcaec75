package scenarios

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/morphogenetic/oona/internal/localkafka"
)

var (
	clusterDir = flag.String("cluster", "", "`directory` of a cluster that is kept from one run to the next; empty: one that ends with the tests")
	port       = flag.Int("port", 29192, "`port` of the first broker; eleven more follow, of controllers, proxies, and brokers behind them. Below the ports that clients are given, or one might take a dead broker's")
)

// kafka and binaries are shared by all scenarios.
var (
	kafka    *cluster
	binaries map[string]string // path by name
)

// onlyParse is the variable with which the process only parses its flags.
const onlyParse = "OONA_TEST_ONLY_PARSE"

func TestMain(m *testing.M) {
	flag.Parse()
	if os.Getenv(onlyParse) != "" {
		os.Exit(m.Run())
	}
	status, err := run(m)
	if err != nil {
		fmt.Fprintln(os.Stderr, "scenarios:", err)
		status = 1
	}
	os.Exit(status)
}

func run(m *testing.M) (status int, err error) {
	if list := flag.Lookup("test.list"); list != nil && list.Value.String() != "" {
		return m.Run(), nil
	}
	if err := parses(os.Args[1:]); err != nil {
		return 1, err
	}
	dir, err := os.MkdirTemp("", "oona-scenarios-")
	if err != nil {
		return 1, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	if binaries, err = build(dir, "..", "ingest", "aggregate", "exporter", "oona"); err != nil {
		return 1, err
	}
	options := localkafka.Options{Dir: *clusterDir, Port: *port, ProxyPort: *port + 6, Detach: *clusterDir != ""}
	if !options.Detach {
		options.Dir = filepath.Join(dir, "kafka")
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute) // the first time, Kafka is downloaded
	defer cancel()
	brokers, err := localkafka.Start(ctx, options)
	if err != nil {
		return 1, err
	}
	kafka = &cluster{Cluster: brokers, options: options}
	if !options.Detach {
		defer func() { err = errors.Join(err, kafka.Stop()) }()
	}
	return m.Run(), nil
}

// parses returns an error if package testing would end this process because of args,
// for example -run with a regular expression that is not valid. If it did, the
// brokers would be left running.
func parses(args []string) error {
	skipAll := exec.Command(os.Args[0], append(slices.Clone(args), "-test.skip=.")...)
	skipAll.Env = append(os.Environ(), onlyParse+"=1")
	if out, err := skipAll.CombinedOutput(); err != nil {
		return fmt.Errorf("%w: %s", err, bytes.TrimSpace(out))
	}
	return nil
}

func TestExaminePatterns(t *testing.T) {
	if err := parses([]string{"-test.run=TestScenario/row(01"}); err == nil || !strings.Contains(err.Error(), "row(01") {
		t.Errorf("a pattern that is no regular expression: %v", err)
	}
	if err := parses([]string{"-test.run=TestScenario/row(01|12)$"}); err != nil {
		t.Errorf("a pattern: %v", err)
	}
}

// build compiles commands of the module in from into dir.
func build(dir, from string, names ...string) (map[string]string, error) {
	paths := make(map[string]string)
	args := []string{"build", "-o", dir}
	for _, name := range names {
		args = append(args, "./cmd/"+name)
		paths[name] = filepath.Join(dir, name)
	}
	cmd := exec.Command("go", args...)
	cmd.Dir = from
	if out, err := cmd.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("go %s: %w\n%s", strings.Join(args, " "), err, out)
	}
	return paths, nil
}

// TestScenario runs the rows of the fault matrix, one at a time. To run only one, use
// -run TestScenario/row03.
func TestScenario(t *testing.T) {
	for _, s := range []struct {
		name string
		play func(*world)
	}{
		{"row01_killed_between_publish_and_commit", killedBeforeCommit},
		{"row02_killed_during_fold_and_replay", killedDuringFoldAndReplay},
		{"row03_stopped_past_its_session", stoppedPastSession},
		{"row04_workers_join_and_leave", joinAndLeave},
		{"row05_leader_killed_and_rolling_restart", leaderKilled},
		{"row06_two_of_three_brokers_down", twoBrokersDown},
		{"row06_two_of_three_brokers_down_spool", twoBrokersDownSpool},
		{"row07_bad_network_of_trainers", badNetworkOfTrainers},
		{"row07_bad_network_of_brokers", badNetworkOfBrokers},
		{"row08_coordinator_cut_off", coordinatorCutOff},
		{"row09_ingest_killed_in_group_commit", killedInGroupCommit},
		{"row10_spool_full_and_corrupt", spoolFullAndCorrupt},
		{"row11_clocks_and_reordering", clocksOff},
		{"row12_idle_then_resume", idleThenResume},
		{"row13_retention_overtakes_the_commit", retentionOvertakes},
		{"row14_poison", poison},
		{"row14_many_keys", manyKeys},
		{"row15_backlog", backlog},
		{"row16_partitions_added", partitionsAdded},
		{"row16_configuration_changed_under_load", configurationChanged},
		{"row16_offsets_lost_log_whole", offsetsLostLogWhole},
		{"row16_offsets_lost_log_cut", offsetsLostLogCut},
		{"row17_readers_while_aggregators_die", readersWhileAggregatorsDie},
		{"row18_raw_topic", rawTopic},
		{"row19_log_end_lost", logEndLost},
		{"row19_log_end_lost_and_grown", logEndLostAndGrown},
		{"row20_topic_made_again", topicMadeAgain},
		{"row20_topic_made_again_by_others", topicMadeAgainByOthers},
		{"row20_topic_made_again_and_written_to", topicMadeAgainAndWrittenTo},
		{"row20_topic_made_again_and_outgrown", topicMadeAgainAndOutgrown},
		{"row21_upgrade_and_rollback", upgradeAndRollback},
		{"row22_events_through_an_outage", eventsThroughOutage},
	} {
		t.Run(s.name, func(t *testing.T) {
			began := time.Now()
			w := newWorld(t)
			s.play(w)
			t.Logf("%s in %s", strings.Join(w.figures, ", "), time.Since(began).Round(time.Second))
		})
	}
}
