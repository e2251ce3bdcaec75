package main

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/morphogenetic/oona/replay/manifest"
	"github.com/morphogenetic/oona/replay/parquet"
)

// Parquet files from the bus and from an archive of it are the same, verify, and are
// continued.
func TestReplayParquet(t *testing.T) {
	onInstallations(t, func(t *testing.T, i *installation) {
		i.applyTopics()
		i.recordMinutes(0, 8)
		i.aggregateAll()
		dir := filepath.Join(t.TempDir(), "tables")
		m := parse[*manifest.Manifest](t, i.must("--parquet", dir, "--json"))
		const frames = 8 * 12 * 4
		if rows, _ := i.rowsOf(m, i.topics.SeedMetrics); rows != 2*frames {
			t.Errorf("%d rows, want two for each of %d frames", rows, frames)
		}
		for _, topic := range []string{i.topics.LayerHealth, i.topics.LayerPerformance} {
			if rows, records := i.rowsOf(m, topic); rows != records || rows == 0 {
				t.Errorf("%s: %d rows of %d rollups", topic, rows, records)
			}
		}
		i.must("verify", dir)

		archived, again := filepath.Join(t.TempDir(), "archive"), filepath.Join(t.TempDir(), "again")
		i.must("--archive", archived)
		if status, _, messages := i.replaysOffline(archived, "--parquet", again); status != 0 {
			t.Fatalf("from the archive: status %d, %q", status, messages)
		}
		for _, topic := range m.Topics {
			for _, p := range topic.Partitions {
				for _, f := range p.Files {
					if readFile(t, filepath.Join(dir, f.Name)) != readFile(t, filepath.Join(again, f.Name)) {
						t.Errorf("%s from the archive differs", f.Name)
					}
				}
			}
		}

		i.recordMinutes(8, 10)
		longer := parse[*manifest.Manifest](t, i.must("--parquet", dir, "--json"))
		if rows, _ := i.rowsOf(longer, i.topics.SeedMetrics); rows != 2*frames/8*10 {
			t.Errorf("%d rows after two more minutes, want %d", rows, 2*frames/8*10)
		}
		i.must("verify", dir)
		i.refused(exitFailed, parquet.ErrOptions.Error(), "--parquet", dir, "--compression", "snappy")
		late := filepath.Join(t.TempDir(), "late")
		i.must("--parquet", late, "--from", "offset:20", i.topics.SeedMetrics)
		i.refused(exitFailed, parquet.ErrGap.Error(), "--parquet", late, i.topics.SeedMetrics)
		foreign := t.TempDir()
		if err := os.WriteFile(filepath.Join(foreign, "a.parquet"), nil, 0o666); err != nil {
			t.Fatal(err)
		}
		i.refused(exitFailed, parquet.ErrForeign.Error(), "--parquet", foreign)
		if _, err := os.Stat(filepath.Join(foreign, manifest.Name)); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("a refused directory has a manifest: %v", err)
		}
		i.refused(exitUsage, "--row-group-rows", "--parquet", dir, "--row-group-rows", "0")
		if err := os.Remove(filepath.Join(dir, m.Topics[0].Partitions[0].Files[0].Name)); err != nil {
			t.Fatal(err)
		}
		i.refused(exitFailed, errArchiveFaults.Error(), "verify", dir)
	})
}

// rowsOf returns how many rows and records the manifest counts of a topic.
func (i *installation) rowsOf(m *manifest.Manifest, topic string) (rows, records int64) {
	i.t.Helper()
	for _, p := range m.Topic(topic).Partitions {
		if p.Counts != nil {
			rows, records = rows+p.Counts.Rows, records+p.Counts.Records-p.Counts.Own
		}
	}
	return rows, records
}
