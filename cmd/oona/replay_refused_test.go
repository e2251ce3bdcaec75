package main

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/morphogenetic/oona/replay/manifest"
)

// What a replay says of flags and sources that cannot be meant, and what it leaves behind.
func TestReplayThatCannotBeMeant(t *testing.T) {
	onInstallations(t, func(t *testing.T, i *installation) {
		i.applyTopics()
		i.recordMinutes(0, 2)
		tables := filepath.Join(t.TempDir(), "rollups")
		out := i.must("--aggregate", "--session", "1s", "--partial", "--parquet", tables)
		m, err := manifest.Read(tables)
		if err != nil {
			t.Fatal(err)
		}
		for _, topic := range m.Topics {
			if rows, records := i.rowsOf(m, topic.Name); rows == 0 || rows != records {
				t.Errorf("%s: %d rows of %d rollups: %s", topic.Name, rows, records, out)
			}
		}
		for _, action := range []string{"--lines", "--aggregate"} {
			i.refused(exitFailed, errNotAnArchive.Error(), tables, action)
		}
		i.leavesNothing()
	})
}

// leavesNothing gives commands that are refused, or fail, before anything is written.
func (i *installation) leavesNothing() {
	i.t.Helper()
	above := filepath.Join(i.t.TempDir(), "made")
	dir := filepath.Join(above, "run")
	for _, form := range []string{"--archive", "--avro", "--parquet"} {
		for _, args := range [][]string{{"--from", "now", "--until", "2h"}, {"no.such.topic"}} {
			if status, _, messages := i.replays(append(args, form, dir)...); status == 0 {
				i.t.Errorf("%v: %q", args, messages)
			}
		}
		status, _, _ := run(i.t, "replay", form, dir, "--brokers", "127.0.0.1:1", "--group=", "--prefix", i.group)
		if status == 0 {
			i.t.Errorf("%s without a bus succeeded", form)
		}
		if _, err := os.Stat(above); !errors.Is(err, fs.ErrNotExist) {
			i.t.Errorf("%s left a directory: %v", form, err)
		}
	}
	if err := os.MkdirAll(dir, 0o777); err != nil {
		i.t.Fatal(err)
	}
	i.refused(exitFailed, "no.such.topic", "--avro", dir, "no.such.topic")
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 0 {
		i.t.Errorf("a directory that was there has %v, %v", entries, err)
	}
}

// An error names the command that shows the flags, as does the help.
func TestReplayHelp(t *testing.T) {
	status, out, _ := run(t, "replay", "--help")
	if status != 0 || !strings.Contains(out, "oona replay run --help") {
		t.Errorf("status %d, %q", status, out)
	}
	status, _, messages := run(t, "replay")
	if status != exitUsage || !strings.Contains(messages, "Run oona replay run --help") {
		t.Errorf("status %d, %q", status, messages)
	}
}

func TestReplayBoundsInReverse(t *testing.T) {
	for _, test := range []struct {
		from, until string
		refused     bool
	}{
		{"now", "2h", true}, {"1h", "2h", true}, {"now", "offset:3", true}, {"offset:4", "offset:3", true}, {"offset:4", "beginning", true},
		{"2026-11-27T18:00:00Z", "2026-11-27T17:00:00Z", true}, {"2h", "1h", false}, {"now", "now", false}, {"offset:3", "offset:4", false},
		{"beginning", "2h", false}, {"2h", "offset:3", false}, {"offset:3", "2h", false}, {"beginning", "beginning", false},
	} {
		var from, until bound
		if err := errors.Join(from.UnmarshalText([]byte(test.from)), until.UnmarshalText([]byte(test.until))); err != nil {
			t.Fatal(err)
		}
		r := defaultReplay().Run
		r.Lines, r.From, r.Until, r.Parquet.RowGroupRows = true, from, until, 1
		err := r.Validate()
		if test.refused != (err != nil) || err != nil && (!strings.Contains(err.Error(), "--from "+test.from) || !strings.Contains(err.Error(), "--until "+test.until)) {
			t.Errorf("--from %s --until %s: %v", test.from, test.until, err)
		}
	}
}
