package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/morphogenetic/oona/replay"
	"github.com/morphogenetic/oona/replay/manifest"
)

// Retention has deleted the beginning of the log, and there is no commit from before.
func TestReplayOfALogWithoutItsBeginning(t *testing.T) {
	onInstallations(t, func(t *testing.T, i *installation) {
		i.applyTopics("--window-length=300ms", "--allowed-lateness=50ms", "--out-of-orderness=50ms", "--tick-interval=20ms", "--idle-horizon=200ms", "--max-delay=1s", "--max-skew=200ms")
		i.record(func(step int) (time.Time, bool) {
			time.Sleep(50 * time.Millisecond)
			return time.Now(), step < 100
		})
		i.aggregateAll()
		i.must("--aggregate")
		for p, held := range i.heldOf(i.topics.SeedMetrics) {
			i.deleteRecords(i.topics.SeedMetrics, int32(p), held.End/5)
		}
		dir := filepath.Join(t.TempDir(), "run")
		status, _, messages := i.replays("--archive", dir, "--no-snapshot")
		if status != 0 || messages != "" {
			t.Fatalf("archive: status %d, %q", status, messages)
		}
		with := filepath.Join(t.TempDir(), "run")
		status, _, messages = i.replays("--archive", with)
		if status != 0 || strings.Count(messages, "no snapshot") != replayedPartitions {
			t.Fatalf("archive that cannot have snapshots: status %d, %q", status, messages)
		}
		for _, source := range [][]string{nil, {dir}, {with}} {
			i.answersLater(source)
		}
	})
}

func (i *installation) answersLater(source []string) {
	i.t.Helper()
	status, out, messages := i.replays(append(source, "--aggregate", "--json")...)
	f := parse[foldedAgain](i.t, out)
	if status != exitIncomplete || f.Comparison.Same == 0 || f.Comparison.Unanswered == 0 || !f.Comparison.Equal() || len(f.Since) != replayedPartitions {
		i.t.Fatalf("%v: status %d, %s, %q", source, status, out, messages)
	}
	from := f.Since[0].Window
	for _, s := range f.Since {
		if s.Window.After(from) {
			from = s.Window
		}
	}
	text := from.Format(time.RFC3339Nano)
	if !strings.Contains(messages, "--from "+text) {
		i.t.Errorf("%v: %q does not say %s", source, messages, text)
	}
	status, out, messages = i.replays(append(source, "--aggregate", "--json", "--from", text)...)
	if f := parse[foldedAgain](i.t, out); status != 0 || f.Comparison.Same == 0 || !f.Comparison.Equal() {
		i.t.Errorf("%v from %s: status %d, %s, %q", source, text, status, out, messages)
	}
}

// Each fault of an archive is found, and says where it is.
func TestReplayVerify(t *testing.T) {
	onInstallations(t, func(t *testing.T, i *installation) {
		i.applyTopics()
		i.recordMinutes(0, 3)
		i.aggregateAll()
		dir := filepath.Join(t.TempDir(), "run")
		m := parse[*manifest.Manifest](t, i.must("--archive", dir, "--file-size", "4KiB", "--json"))
		files := m.Topic(i.topics.SeedMetrics).Partitions[0].Files
		if len(files) < 4 {
			t.Fatalf("too few files: %+v", files)
		}
		middle := files[1].Name
		name := filepath.Join(dir, middle)
		whole := readFile(t, name)
		faulty := func(what string, says ...string) {
			t.Helper()
			status, out, messages := i.replays("verify", dir)
			if status != exitFailed || !strings.Contains(messages, errArchiveFaults.Error()) {
				t.Errorf("%s: status %d, %q, %q", what, status, out, messages)
			}
			for _, s := range says {
				if !strings.Contains(out, s) {
					t.Errorf("%s: %q does not say %q", what, out, s)
				}
			}
		}
		write := func(text string) {
			t.Helper()
			if err := os.WriteFile(name, []byte(text), 0o666); err != nil {
				t.Fatal(err)
			}
		}
		write(whole[:len(whole)/2] + "x" + whole[len(whole)/2+1:])
		faulty("a byte was changed", middle)
		for _, args := range [][]string{{"--aggregate"}, {"--aggregate", "--window=1m"}, {"--lines"}, {"--avro", t.TempDir()}, {"--parquet", t.TempDir()}, {"--archive", filepath.Join(t.TempDir(), "part")}} {
			i.refused(exitFailed, middle, append([]string{dir}, args...)...)
		}
		write(whole[:len(whole)-10])
		faulty("the file was cut", middle)
		if err := os.Remove(name); err != nil {
			t.Fatal(err)
		}
		faulty("the file is missing", middle, "missing")
		for _, args := range [][]string{{dir, "--aggregate"}, {dir, "--archive", filepath.Join(t.TempDir(), "part")}} {
			if status, _, messages := i.replays(args...); status != exitFailed || !strings.Contains(messages, middle) {
				t.Errorf("%v without a file in the middle: status %d, %q", args, status, messages)
			}
		}
		write(whole)
		i.verified(dir, m)

		text := readFile(t, filepath.Join(dir, manifest.Name))
		listed := *m
		p := &listed.Topic(i.topics.SeedMetrics).Partitions[0]
		p.Files = append(append([]manifest.File(nil), files[:1]...), files[2:]...)
		if err := listed.Write(dir); err != nil {
			t.Fatal(err)
		}
		faulty("the manifest lacks a file", files[2].Name)
		if err := os.WriteFile(filepath.Join(dir, manifest.Name), []byte(text), 0o666); err != nil {
			t.Fatal(err)
		}

		i.deleteRecords(i.topics.SeedMetrics, 0, 5)
		v := parse[replay.Verified](t, i.must("verify", dir, "--json"))
		if v.Deleted != 5 || v.Compared != v.Records-5 || len(v.Faults) != 0 {
			t.Errorf("retention has deleted 5 records: %+v", v)
		}
		i.madeAgain(dir, faulty)
	})
}

// madeAgain makes the topics of an archive again.
func (i *installation) madeAgain(dir string, faulty func(what string, says ...string)) {
	i.t.Helper()
	i.delete(i.topics.SeedMetrics, i.topics.LayerHealth, i.topics.LayerPerformance)
	i.applyTopics("--group=")
	faulty("the topics were made again, and are shorter", i.topics.LayerHealth+"/0: the log ends at offset 0")
	i.refused(exitFailed, replay.ErrOtherLog.Error(), "--archive", dir, "--file-size", "4KiB")
	i.recordMinutes(10, 20)
	faulty("the topics were made again, and are longer", "another append time")
	i.refused(exitFailed, replay.ErrOtherLog.Error(), "--archive", dir, "--file-size", "4KiB", i.topics.SeedMetrics)
	i.must("verify", dir, "--offline")
}
