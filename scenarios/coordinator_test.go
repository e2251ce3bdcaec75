package scenarios

import (
	"fmt"
	"os"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/morphogenetic/oona"
)

// Row 8. Only the aggregator cannot reach the broker that coordinates its group. It continues
// with the partitions that other brokers lead, and reports that it gets no answer for the
// partition that this broker leads. Its commits fail, and their age rises to the threshold of
// the alert. By then the group has removed the aggregator, which it notices when the network
// works again. Nothing is lost.
func coordinatorCutOff(w *world) {
	kafka.lead(w.T, w.ctx, w.topics.SeedMetrics, w.topics.LayerHealth, w.topics.LayerPerformance)
	w.startIngest()
	net := w.startNetwork()
	w.brokers = net.addresses()
	worker := w.startWorker("--group-instance", "one")
	finish := w.train(w.pair("run-a", 200)...)
	w.pause(2 * time.Second)
	calm := 0.0
	for began := time.Now(); time.Since(began) < 4*time.Second; w.pause(50 * time.Millisecond) {
		calm = max(calm, worker.oldestCommit())
	}
	alarm, longestSilence := w.alarmThreshold("oona_aggregate_commit_age_seconds"), w.alarmThreshold("oona_aggregate_end_offset_age_seconds")
	coordinator := kafka.coordinator(w.T, w.ctx, w.prefix)
	done := worker.metrics()[`oona_aggregate_commits_total{result="done"}`]
	net.sever(dead, coordinator)
	w.pause(time.Second) // for a commit in flight
	before, cutAt := w.rollupEnds(), time.Now()
	w.await("the alarm on old commits", func() bool { return worker.oldestCommit() > alarm })

	m, after := worker.metrics(), w.rollupEnds()
	partition := int32(coordinator - 1) // that this broker leads; see lead
	for p := range int32(partitions) {
		age := m[fmt.Sprintf(`oona_aggregate_commit_age_seconds{partition="%d"}`, p)]
		if age < alarm-10 {
			w.Errorf("the commit of partition %d is %.0f s old, but no commit was possible for %.0f s", p, age, time.Since(cutAt).Seconds())
		}
		unheard := m[fmt.Sprintf(`oona_aggregate_end_offset_age_seconds{partition="%d"}`, p)]
		if silent := unheard > longestSilence; silent != (p == partition) {
			w.Errorf("the leader of partition %d was last heard %.0f s ago, and broker %d was cut off %.0f s ago", p, unheard, coordinator, time.Since(cutAt).Seconds())
		}
		for _, group := range []oona.Group{oona.Health, oona.Performance} {
			topic := w.topics.Rollup(group)
			if goesOn := after[topic][p]-before[topic][p] > 10; goesOn == (p == partition) {
				w.Errorf("%s/%d went from %d to %d while broker %d was cut off", topic, p, before[topic][p], after[topic][p], coordinator)
			}
		}
	}
	if failed := m[`oona_aggregate_commits_total{result="failed"}`]; failed == 0 || m[`oona_aggregate_commits_total{result="done"}`] > done+partitions {
		w.Errorf("%v commits failed, and %v were made after %v", failed, m[`oona_aggregate_commits_total{result="done"}`], done)
	}
	if worker.ready() {
		w.Errorf("ready without a way to the leader of partition %d", partition)
	}
	open := m[fmt.Sprintf(`oona_aggregate_oldest_window_seconds{partition="%d"}`, partition)]
	if open < alarm/2 {
		w.Errorf("the oldest window of partition %d is open for %.0f s, and nothing of it could be read for %.0f s", partition, open, time.Since(cutAt).Seconds())
	}
	w.figure("commits were %.1f s old before, and over %.0f s after %.0f s without the coordinator", calm, alarm, time.Since(cutAt).Seconds())
	if calm > 2.5 {
		w.Errorf("commits were %.1f s old before", calm)
	}

	net.heal()
	healed := time.Now()
	w.awaitCommits(worker)
	w.figure("committing again after %.0f s", time.Since(healed).Seconds())
	finish()
	w.stop()
	w.figure("%d bytes held", net.sum(held))
	r := w.check()
	w.nothingAside(r)
	if r.reemitted == 0 {
		w.Error("nothing was emitted again: the aggregator did not begin again from its last commit")
	}
}

// oldestCommit returns the age of the worker's oldest commit in seconds.
func (p *process) oldestCommit() (oldest float64) {
	for series, v := range p.metrics() {
		if strings.HasPrefix(series, "oona_aggregate_commit_age_seconds{") {
			oldest = max(oldest, v)
		}
	}
	return oldest
}

// alarmThreshold returns the threshold of the alert on a series.
func (w *world) alarmThreshold(series string) float64 {
	w.Helper()
	text, err := os.ReadFile("../deploy/prometheus/oona-alerts.yml")
	if err != nil {
		w.Fatal(err)
	}
	found := regexp.MustCompile(`expr: .*\b` + series + `\) > ([0-9]+)`).FindSubmatch(text)
	if found == nil {
		w.Fatalf("there is no alarm on %s", series)
	}
	threshold, err := strconv.ParseFloat(string(found[1]), 64)
	if err != nil {
		w.Fatal(err)
	}
	return threshold
}
